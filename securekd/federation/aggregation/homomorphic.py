"""Sums under homomorphic encryption: the server adds ciphertexts, and a decryptor opens one sum of enough clients."""

import os

import numpy as np

from securekd.errors import SettingError
from securekd.federation.aggregation.policy import local_policy, roster
from securekd.federation.aggregation.seam import DECRYPTOR, SERVER, Directory, Message, Part, ServerPart, Terms
from securekd_protocols import Identity, ProtocolError
from securekd_protocols.homomorphic import (
    Decryptor,
    HomomorphicClient,
    HomomorphicParameters,
    HomomorphicPolicy,
    HomomorphicServer,
    SchemeName,
    choose_scheme,
    require_seal,
)
from securekd_protocols.homomorphic.messages import DECRYPTOR as KEEPER
from securekd_protocols.homomorphic.server import HomomorphicServerState, Outgoing
from securekd_protocols.parameters import NONCE_BYTES, hash_context
from securekd_protocols.simulation import naming


class HomomorphicAggregator:
    """The decryptor is neither the server nor a client; it must not work with the server.

    It sees the same sum; with CKKS it is trusted to look at nothing else.
    """

    sums_only = True

    def __init__(self, scheme: SchemeName) -> None:
        """Take the scheme."""
        self._scheme = scheme

    @property
    def trusts_decryptor(self) -> bool:
        """Whether a decryptor that looks at more than the sum could learn more (HOMOMORPHIC.md of the protocols)."""
        return self._scheme is SchemeName.CKKS

    def refuse_unfit(self, clients: int, values: int, magnitude: int) -> None:
        """See `Limited`; also refused where TenSEAL is not installed."""
        try:
            require_seal()
            choose_scheme(self._scheme, clients, magnitude, values)
        except ProtocolError as error:
            raise SettingError(f"aggregation = {self._scheme.value!r}: {error}") from error

    def server(self, terms: Terms, who: Directory, identity: Identity) -> ServerPart:
        """Begins a session; the decryptor makes its keys."""
        parameters = HomomorphicParameters(
            roster=roster(who),
            server_public=who.server,
            decryptor_public=who.decryptor,
            scheme_name=self._scheme,
            threshold=terms.threshold,
            colluders=terms.colluders,
            vector_length=terms.values,
            magnitude=terms.magnitude,
            round_number=terms.round_number,
            nonce=os.urandom(NONCE_BYTES),
            context=hash_context(terms.context),
            noise_variance=terms.noise_variance,
        )
        return _Server(HomomorphicServer(parameters, identity), terms.clients)

    def client(self, terms: Terms, who: Directory, identity: Identity, number: int, vector: np.ndarray) -> Part:
        """Insists on what it has agreed on itself."""
        return _Client(HomomorphicClient(identity, _policy(terms, who)), number, vector)

    def decryptor(self, terms: Terms, who: Directory, identity: Identity) -> Part:
        """Insists likewise."""
        return _Decryptor(Decryptor(identity, _policy(terms, who)))


def _policy(terms: Terms, who: Directory) -> HomomorphicPolicy:
    return HomomorphicPolicy(local_policy(terms, who), who.decryptor)


class _Client:
    def __init__(self, client: HomomorphicClient, number: int, vector: np.ndarray) -> None:
        self._client, self._number = client, number
        self._vector: np.ndarray | None = vector

    def receive(self, message: Message) -> list[Message]:
        replies = self._client.receive(message.data)
        if self._vector is not None:
            with naming(self._number):
                self._client.submit(self._vector)
            self._vector = None
        return [Message(self._number, SERVER, "input", reply) for reply in replies]


class _Decryptor:
    def __init__(self, decryptor: Decryptor) -> None:
        self._decryptor = decryptor

    def receive(self, message: Message) -> list[Message]:
        return [Message(DECRYPTOR, SERVER, "decryptor", reply) for reply in self._decryptor.receive(message.data)]


class _Server:
    def __init__(self, server: HomomorphicServer, clients: int) -> None:
        self._server, self._clients = server, clients

    def begin(self) -> list[Message]:
        invitation = self._server.invitation()
        to_clients = [Message(SERVER, i, "invitation", invitation) for i in range(self._clients)]
        return [*to_clients, Message(SERVER, DECRYPTOR, "decryptor", invitation)]

    def receive(self, message: Message) -> list[Message]:
        return [_sent(out) for out in self._server.receive(message.data)]

    def close(self) -> list[Message]:
        return [_sent(out) for out in self._server.close_phase()]

    @property
    def result(self) -> tuple[np.ndarray, tuple[int, ...]] | None:
        if self._server.state is not HomomorphicServerState.FINISHED:
            return None
        return self._server.result.total, self._server.result.survivors


def _sent(out: Outgoing) -> Message:
    if out.recipient == KEEPER:
        return Message(SERVER, DECRYPTOR, "decryptor", out.data)
    return Message(SERVER, out.recipient, "key", out.data)
