"""A whole session in one process: every client, the server, and every byte between them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import BadParameter, LocalProtocolError, TooFewClients, UnknownClient, UnknownStage
from securekd_protocols.graph_rule import GraphDemand, choose_graph
from securekd_protocols.keys import Identity
from securekd_protocols.masking.client import MaskingClient
from securekd_protocols.masking.server import MaskingServer, Outgoing
from securekd_protocols.messages import Kind
from securekd_protocols.parameters import NONCE_BYTES, Member, RegularGraph, SessionParameters, hash_context
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.states import ServerState, Stage, kind_of, stage_of
from securekd_protocols.thresholds import recommended_threshold

ClientId = int | str
LARGEST_COMPLETE = 100  # clients up to which everybody shares masks with everybody, unless asked otherwise
_SENT_STAGES = tuple(stage for stage in Stage if stage is not Stage.INVITATION)


@dataclass(frozen=True)
class Policy:
    """What a simulated session promises.

    Up to 100 clients, or wherever a threshold is given, everybody shares masks with everybody; beyond, the graph is
    k-regular, with degree and threshold from `choose_graph`. `graph` asks for one or the other.

    Attributes:
        magnitude: Largest absolute value of an input's entry before noise; see `ring_bits`.
        colluders: How many clients may work with the server.
        threshold: Fewest survivors in a complete graph; `None` takes `recommended_threshold`.
        graph: "complete", "regular", or "auto" for the rule above.
        dropouts: How many clients may fall silent in a k-regular graph; `None` allows for a tenth, rounded up.
        malicious_server: Whether a k-regular graph's threshold withstands a server that departs from the protocol.
        restarts: Invitations for one round that a client accepts, and that a k-regular graph's security allows for.
        ring_bits: 16, 24, 32 or 64: clients × (magnitude + noise_tail) < 2^(ring_bits − 1).
        noise_tail: Largest absolute value of the integer noise that inputs contain.
        noise_variance: Least variance of that noise.
    """

    magnitude: int
    colluders: int = 1
    threshold: int | None = None
    graph: str = "auto"
    dropouts: int | None = None
    malicious_server: bool = True
    restarts: int = 16
    ring_bits: int = 32
    noise_tail: int = 0
    noise_variance: int = 0

    def __post_init__(self) -> None:
        if self.graph not in ("auto", "complete", "regular"):
            raise BadParameter(f"graph {self.graph!r}", 'choose "auto", "complete" or "regular"')
        if self.graph == "regular" and self.threshold is not None:
            raise BadParameter("a threshold for a k-regular graph", "leave it out: it belongs to the degree")

    def graph_for(self, clients: int) -> tuple[RegularGraph | None, int]:
        """The graph of a session with so many clients, and its threshold.

        Raises:
            ProtocolError: `GraphUnsafe`, `ThresholdUnsafe` or `TooFewClients`.
        """
        many = clients > LARGEST_COMPLETE and self.threshold is None
        if self.graph == "complete" or (self.graph == "auto" and not many):
            chosen = self.threshold
            return None, recommended_threshold(clients, self.colluders) if chosen is None else chosen
        dropouts = max(1, -(-clients // 10)) if self.dropouts is None else self.dropouts
        choice = choose_graph(GraphDemand(clients, self.colluders, dropouts, self.malicious_server, self.restarts))
        return RegularGraph(choice.degree, dropouts, self.malicious_server, self.restarts), choice.threshold


@dataclass(frozen=True)
class SessionResult:
    """What a simulated session yields, and what it cost.

    Attributes:
        total: Exact sum of the survivors' vectors, int64, shape (vector_length,).
        survivors: The clients in the sum, in the order in which they were given.
        threshold: Fewest survivors that would have done; in a k-regular graph, fewest neighbours of each.
        graph: The k-regular graph that was used, or `None` for the complete one.
        bytes_up: Bytes that each client sent, by stage (`Stage` values), frames and signatures included.
        bytes_down: Bytes that each client received, by the stage that the message closes; the server's first message
            counts under "invitation".
    """

    total: NDArray[np.int64]
    survivors: tuple[ClientId, ...]
    threshold: int
    bytes_up: Mapping[str, Mapping[ClientId, int]]
    bytes_down: Mapping[str, Mapping[ClientId, int]]
    graph: RegularGraph | None = None


def simulate(
    vectors: Mapping[ClientId, NDArray[np.signedinteger]],
    policy: Policy,
    *,
    context: bytes = b"",
    round_number: int = 0,
    dropouts: Mapping[ClientId, str] | None = None,
    on_server_receive: Callable[[bytes], None] | None = None,
    insecure_randomness_for_tests: RandomBytes | None = None,
) -> SessionResult:
    """Sum integer vectors by a whole session of pairwise masking, in this process.

    Args:
        vectors: One integer array of shape (d,) for each client, all of the same length.
        policy: Magnitude, graph, threshold, and what they are to withstand.
        context: What all clients answer for; enters the session id.
        round_number: The caller's counter.
        dropouts: Clients that fall silent, each with the stage whose message it does not send any more: "advertise",
            "share", "masked_input", "consistency" or "unmask"; in a k-regular graph also "commit", and there one
            that is silent at "advertise" ends the session, since it withholds its part of the graph seed.
        on_server_receive: Called with every byte string that reaches the server, before the server sees it.
        insecure_randomness_for_tests: Replaces the operating system's generator, identities included.

    Returns:
        Sum, survivors and bytes.

    Raises:
        ProtocolError: Any refusal, among them `ValueOutOfRange`, `WrongLength`, `NotIntegers`, `TooFewClients`,
            `ThresholdUnsafe`, `GraphUnsafe`, `RingTooSmall`, `TooFewSurvivors`, `WithheldReveal`, `UnknownClient`,
            `UnknownStage`.
    """
    if not vectors:
        raise TooFewClients("no clients", "pass at least 3 vectors")
    silent = _check_dropouts(dropouts or {}, vectors)
    random_bytes = insecure_randomness_for_tests or os.urandom
    identities = {client: Identity.generate(random_bytes) for client in vectors}
    operator = Identity.generate(random_bytes)
    roster = tuple(Member(repr(client), identity.public) for client, identity in identities.items())
    graph, threshold = policy.graph_for(len(roster))
    parameters = SessionParameters(
        roster=roster,
        server_public=operator.public,
        threshold=threshold,
        colluders=policy.colluders,
        vector_length=len(np.atleast_1d(next(iter(vectors.values())))),
        magnitude=policy.magnitude,
        round_number=round_number,
        nonce=random_bytes(NONCE_BYTES),
        context=hash_context(context),
        graph=graph,
        ring_bits=policy.ring_bits,
        noise_tail=policy.noise_tail,
        noise_variance=policy.noise_variance,
    )
    local = LocalPolicy(
        server_public=operator.public,
        known={member.name: member.public for member in roster},
        context=context,
        round_number=round_number,
        colluders=policy.colluders,
        lowest_threshold=parameters.fewest_survivors,
        malicious_server=policy.malicious_server,
        restarts=policy.restarts,
    )
    clients = [
        MaskingClient(identity, local, insecure_randomness_for_tests=insecure_randomness_for_tests)
        for identity in identities.values()
    ]
    server = MaskingServer(parameters, operator, insecure_randomness_for_tests=insecure_randomness_for_tests)
    wire = _Wire(server, clients, vectors, silent, on_server_receive)
    wire.run()
    outcome = server.result
    survivors = tuple(wire.names[index] for index in outcome.survivors)
    return SessionResult(outcome.total, survivors, threshold, wire.bytes_up, wire.bytes_down, graph)


def _check_dropouts(dropouts: Mapping[ClientId, str], vectors: Mapping[ClientId, object]) -> dict[ClientId, Stage]:
    known = {stage.value: stage for stage in _SENT_STAGES}
    silent: dict[ClientId, Stage] = {}
    for client, name in dropouts.items():
        if client not in vectors:
            raise UnknownClient(f"dropout of {client!r}, who has no vector", f"choose from {list(vectors)}")
        if name not in known:
            raise UnknownStage(f"dropout at stage {name!r}", f"choose from {list(known)}")
        silent[client] = known[name]
    return silent


@contextmanager
def naming(client: ClientId) -> Iterator[None]:
    """Have a refusal say whose vector is refused."""
    try:
        yield
    except LocalProtocolError as error:
        raise type(error)(f"client {client!r}: {error.what}", error.remedy) from error


class _Wire:
    """Carries frames in the order in which they were sent, counts them, and loses those of silent clients."""

    def __init__(
        self,
        server: MaskingServer,
        clients: list[MaskingClient],
        vectors: Mapping[ClientId, NDArray[np.signedinteger]],
        silent: Mapping[ClientId, Stage],
        on_server_receive: Callable[[bytes], None] | None,
    ) -> None:
        self.server = server
        self.names = tuple(vectors)
        commits = server.state is ServerState.COMMITMENTS
        stages = [stage for stage in Stage if commits or stage is not Stage.COMMIT]
        self.bytes_up: dict[str, dict[ClientId, int]] = {
            stage.value: {} for stage in stages if stage is not Stage.INVITATION
        }
        self.bytes_down: dict[str, dict[ClientId, int]] = {stage.value: {} for stage in stages}
        self._clients = clients
        self._vectors = vectors
        self._silent = silent
        self._on_server_receive = on_server_receive
        self._gone: set[ClientId] = set()

    def run(self) -> None:
        """Deliver until the server has finished; when nothing is under way, its patience ends."""
        invitation = self.server.invitation()
        under_way = deque(Outgoing(index, invitation) for index in range(len(self._clients)))
        while self.server.state is not ServerState.FINISHED:
            if not under_way:
                under_way.extend(self.server.close_phase())
            else:
                under_way.extend(self._deliver(under_way.popleft()))

    def _deliver(self, message: Outgoing) -> list[Outgoing]:
        """Bring one message to its client, and the client's answers to the server."""
        name, client = self.names[message.recipient], self._clients[message.recipient]
        _count(self.bytes_down, message.data, name)
        if name in self._gone:
            return []
        if kind_of(message.data) is Kind.SHARE_DELIVERY:
            with naming(name):
                client.submit(self._vectors[name])  # not earlier, so that no more inputs are copied than need be
        outgoing = []
        for reply in client.receive(message.data):
            if stage_of(reply) is self._silent.get(name):
                self._gone.add(name)
                break
            _count(self.bytes_up, reply, name)
            if self._on_server_receive is not None:
                self._on_server_receive(reply)
            outgoing.extend(self.server.receive(reply))
        return outgoing


def _count(account: dict[str, dict[ClientId, int]], frame: bytes, name: ClientId) -> None:
    stage = account[stage_of(frame).value]
    stage[name] = stage.get(name, 0) + len(frame)
