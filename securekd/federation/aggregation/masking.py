"""Pairwise masking (Bonawitz et al. 2017): the server learns the sum of at least `threshold` survivors."""

import os
from collections.abc import Sequence

import numpy as np

from securekd.federation.aggregation.policy import local_policy, roster
from securekd.federation.aggregation.seam import SERVER, Directory, Message, Part, ServerPart, Terms
from securekd_protocols import Identity, MaskingClient, MaskingServer, SessionParameters
from securekd_protocols.masking.server import Outgoing
from securekd_protocols.parameters import NONCE_BYTES, hash_context
from securekd_protocols.simulation import naming
from securekd_protocols.states import ClientState, ServerState, stage_of


class MaskingAggregator:
    """Everybody shares masks with everybody.

    In a k-regular graph (Bell et al. 2020) a malicious server can open several sums of fewer clients, and the noise
    that the ledger counts would not be in each.
    """

    sums_only = True

    def server(self, terms: Terms, who: Directory, identity: Identity) -> ServerPart:
        """Begins a session with fresh keys."""
        parameters = SessionParameters(
            roster=roster(who),
            server_public=who.server,
            threshold=terms.threshold,
            colluders=terms.colluders,
            vector_length=terms.values,
            magnitude=terms.magnitude,
            round_number=terms.round_number,
            nonce=os.urandom(NONCE_BYTES),
            context=hash_context(terms.context),
            noise_variance=terms.noise_variance,
        )
        return _Server(MaskingServer(parameters, identity), terms.clients)

    def client(self, terms: Terms, who: Directory, identity: Identity, number: int, vector: np.ndarray) -> Part:
        """Insists on what it has agreed on itself."""
        return _Client(MaskingClient(identity, local_policy(terms, who)), number, vector)

    def decryptor(self, terms: Terms, who: Directory, identity: Identity) -> None:
        """There is none."""


class _Client:
    def __init__(self, client: MaskingClient, number: int, vector: np.ndarray) -> None:
        self._client, self._number = client, number
        self._vector: np.ndarray | None = vector

    def receive(self, message: Message) -> list[Message]:
        if self._vector is not None and self._client.state is ClientState.SHARED:
            with naming(self._number):
                self._client.submit(self._vector)  # not earlier, so that no more inputs are copied than need be
            self._vector = None
        replies = self._client.receive(message.data)
        return [Message(self._number, SERVER, stage_of(reply).value, reply) for reply in replies]


class _Server:
    def __init__(self, server: MaskingServer, clients: int) -> None:
        self._server, self._clients = server, clients

    def begin(self) -> list[Message]:
        invitation = self._server.invitation()
        return [Message(SERVER, i, stage_of(invitation).value, invitation) for i in range(self._clients)]

    def receive(self, message: Message) -> list[Message]:
        return _sent(self._server.receive(message.data))

    def close(self) -> list[Message]:
        return _sent(self._server.close_phase())

    @property
    def result(self) -> tuple[np.ndarray, tuple[int, ...]] | None:
        if self._server.state is not ServerState.FINISHED:
            return None
        return self._server.result.total, self._server.result.survivors


def _sent(outgoing: Sequence[Outgoing]) -> list[Message]:
    return [Message(SERVER, out.recipient, stage_of(out.data).value, out.data) for out in outgoing]
