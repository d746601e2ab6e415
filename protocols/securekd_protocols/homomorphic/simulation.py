"""A whole homomorphic session in one process: clients, server and decryptor as they are, frames as they travel."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import TooFewClients, UnknownClient
from securekd_protocols.homomorphic.client import HomomorphicClient
from securekd_protocols.homomorphic.decryptor import Decryptor
from securekd_protocols.homomorphic.messages import DECRYPTOR
from securekd_protocols.homomorphic.parameters import HomomorphicParameters, HomomorphicPolicy
from securekd_protocols.homomorphic.scheme import Scheme, SchemeName
from securekd_protocols.homomorphic.server import HomomorphicServer, HomomorphicServerState, Outgoing
from securekd_protocols.keys import Identity
from securekd_protocols.parameters import NONCE_BYTES, Member, hash_context
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.simulation import ClientId, naming


@dataclass(frozen=True)
class HomomorphicSettings:
    """What everybody in a simulated session wants.

    Attributes:
        scheme: BFV or CKKS.
        magnitude: Largest absolute value of an entry before noise.
        threshold: Fewest summands.
        colluders: Clients that may work with the server.
        noise_tail: Largest absolute value of a client's integer noise in an entry.
        noise_variance: Least variance of it, in squared steps.
    """

    scheme: SchemeName
    magnitude: int
    threshold: int
    colluders: int = 1
    noise_tail: int = 0
    noise_variance: int = 0


@dataclass(frozen=True, eq=False)
class HomomorphicResult:
    """What a simulated session yields.

    Attributes:
        total: Exact sum of the survivors' vectors, int64, shape (d,).
        survivors: Whose vectors are in it.
        scheme: The parameters of encryption.
        bytes_up: Bytes that each client sent, by phase.
        bytes_down: Bytes that each client received, by phase.
        decryptor_up: Bytes that the decryptor sent to the server.
        decryptor_down: Bytes that the server sent to the decryptor.
    """

    total: NDArray[np.int64]
    survivors: tuple[ClientId, ...]
    scheme: Scheme
    bytes_up: Mapping[str, Mapping[ClientId, int]]
    bytes_down: Mapping[str, Mapping[ClientId, int]]
    decryptor_up: int
    decryptor_down: int


def simulate_homomorphic(
    vectors: Mapping[ClientId, NDArray[np.signedinteger]],
    settings: HomomorphicSettings,
    *,
    context: bytes = b"",
    round_number: int = 0,
    dropouts: Collection[ClientId] = (),
    on_server_receive: Callable[[bytes], None] | None = None,
) -> HomomorphicResult:
    """Run a session with fresh identities and keys.

    Args:
        vectors: Integer vectors of equal length, by client.
        settings: What everybody wants.
        context: What clients agree on.
        round_number: The caller's counter.
        dropouts: Clients that fall silent before they send their input.
        on_server_receive: A witness of every frame that the server gets.

    Raises:
        ProtocolError: Whatever the session raises, for instance `TooFewSurvivors` or `NoParametersFit`.
    """
    if not vectors:
        raise TooFewClients("no clients", "pass at least 3 vectors")
    for client in dropouts:
        if client not in vectors:
            raise UnknownClient(f"dropout of {client!r}, who has no vector", f"choose from {list(vectors)}")
    identities = {client: Identity.generate(os.urandom) for client in vectors}
    operator, keeper = Identity.generate(os.urandom), Identity.generate(os.urandom)
    parameters = HomomorphicParameters(
        roster=tuple(Member(repr(client), identity.public) for client, identity in identities.items()),
        server_public=operator.public,
        decryptor_public=keeper.public,
        scheme_name=settings.scheme,
        threshold=settings.threshold,
        colluders=settings.colluders,
        vector_length=len(np.atleast_1d(next(iter(vectors.values())))),
        magnitude=settings.magnitude,
        round_number=round_number,
        nonce=os.urandom(NONCE_BYTES),
        context=hash_context(context),
        noise_tail=settings.noise_tail,
        noise_variance=settings.noise_variance,
    )
    policy = HomomorphicPolicy(
        LocalPolicy(
            server_public=operator.public,
            known={member.name: member.public for member in parameters.roster},
            context=context,
            round_number=round_number,
            colluders=settings.colluders,
            lowest_threshold=settings.threshold,
        ),
        keeper.public,
    )
    wire = _Wire(
        HomomorphicServer(parameters, operator),
        Decryptor(keeper, policy),
        [HomomorphicClient(identity, policy) for identity in identities.values()],
        vectors,
        frozenset(dropouts),
        on_server_receive,
    )
    wire.run()
    outcome = wire.server.result
    return HomomorphicResult(
        outcome.total,
        tuple(wire.names[index] for index in outcome.survivors),
        parameters.scheme,
        wire.bytes_up,
        wire.bytes_down,
        wire.decryptor_up,
        wire.decryptor_down,
    )


class _Wire:
    """Carries frames, counts them, and loses those of silent clients; one client's ciphertexts exist at a time."""

    def __init__(
        self,
        server: HomomorphicServer,
        decryptor: Decryptor,
        clients: list[HomomorphicClient],
        vectors: Mapping[ClientId, NDArray[np.signedinteger]],
        silent: frozenset[ClientId],
        on_server_receive: Callable[[bytes], None] | None,
    ) -> None:
        self.server = server
        self.names: tuple[ClientId, ...] = tuple(vectors)
        self.bytes_up: dict[str, dict[ClientId, int]] = {"input": {}}
        self.bytes_down: dict[str, dict[ClientId, int]] = {"invitation": {}, "key": {}}
        self.decryptor_up = self.decryptor_down = 0
        self._decryptor = decryptor
        self._clients = clients
        self._vectors = list(vectors.values())
        self._silent = silent
        self._on_server_receive = on_server_receive

    def run(self) -> None:
        """Invite, hand the key on, collect inputs, have the sum opened."""
        invitation = self.server.invitation()
        for name, client, vector in zip(self.names, self._clients, self._vectors, strict=True):
            client.receive(invitation)
            with naming(name):
                client.submit(vector)
            self.bytes_down["invitation"][name] = len(invitation)
        under_way = deque(self._to_decryptor(invitation))
        while self.server.state is not HomomorphicServerState.FINISHED:
            if not under_way:
                under_way.extend(self.server.close_phase())
                continue
            message = under_way.popleft()
            if message.recipient == DECRYPTOR:
                under_way.extend(self._to_decryptor(message.data))
                continue
            name = self.names[message.recipient]
            self.bytes_down["key"][name] = len(message.data)
            if name in self._silent:
                continue
            for reply in self._clients[message.recipient].receive(message.data):
                self.bytes_up["input"][name] = len(reply)
                under_way.extend(self._to_server(reply))

    def _to_decryptor(self, frame: bytes) -> list[Outgoing]:
        self.decryptor_down += len(frame)
        outgoing: list[Outgoing] = []
        for reply in self._decryptor.receive(frame):
            self.decryptor_up += len(reply)
            outgoing.extend(self._to_server(reply))
        return outgoing

    def _to_server(self, frame: bytes) -> list[Outgoing]:
        if self._on_server_receive is not None:
            self._on_server_receive(frame)
        return self.server.receive(frame)
