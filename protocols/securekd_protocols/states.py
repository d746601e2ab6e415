"""Which message may follow which: the one table that client and server obey, and that the documentation draws.

Each row is a stage as one side lives it, in sessions with the graph that it names (or with any). A client that gets
anything else than its row's message, and a server that gets anything else than its row's kind, raises `OutOfOrder`;
from every state a violation may lead to `ABORTED`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from securekd_protocols.messages import Kind


class Stage(Enum):
    """The stages of a session, by the names under which bytes are counted and dropouts are simulated."""

    INVITATION = "invitation"
    COMMIT = "commit"
    ADVERTISE = "advertise"
    SHARE = "share"
    MASKED_INPUT = "masked_input"
    CONSISTENCY = "consistency"
    UNMASK = "unmask"


class ClientState(Enum):
    """Where a client stands."""

    INVITED = "invited"
    COMMITTED = "committed"
    ADVERTISED = "advertised"
    SHARED = "shared"
    MASKED = "masked"
    SIGNED = "signed"
    UNMASKED = "unmasked"
    ABORTED = "aborted"


class ServerState(Enum):
    """What a server is collecting."""

    COMMITMENTS = "commitments"
    KEYS = "keys"
    SHARES = "shares"
    MASKED_INPUTS = "masked inputs"
    SIGNATURES = "signatures"
    UNMASKING = "unmasking shares"
    FINISHED = "finished"
    ABORTED = "aborted"


class GraphKind(Enum):
    """The two kinds of graph, for the rows in which they differ."""

    COMPLETE = "complete graph"
    REGULAR = "k-regular graph"


@dataclass(frozen=True)
class ClientStep:
    """In `state`, a client reads one `reads`, answers with one `sends`, and is in `then`."""

    state: ClientState
    reads: Kind
    sends: Kind
    then: ClientState
    only: GraphKind | None = None


@dataclass(frozen=True)
class ServerStep:
    """In `state`, a server takes one `collects` from each client left, then sends `sends` to each, and is in `then`."""

    stage: Stage
    state: ServerState
    collects: Kind
    sends: Kind | None
    then: ServerState
    only: GraphKind | None = None


CLIENT_STEPS = (
    ClientStep(ClientState.INVITED, Kind.INVITATION, Kind.ADVERTISE, ClientState.ADVERTISED, GraphKind.COMPLETE),
    ClientStep(ClientState.INVITED, Kind.INVITATION, Kind.COMMIT, ClientState.COMMITTED, GraphKind.REGULAR),
    ClientStep(ClientState.COMMITTED, Kind.COMMIT_BOOK, Kind.ADVERTISE, ClientState.ADVERTISED, GraphKind.REGULAR),
    ClientStep(ClientState.ADVERTISED, Kind.KEY_BOOK, Kind.SHARES, ClientState.SHARED),
    ClientStep(ClientState.SHARED, Kind.SHARE_DELIVERY, Kind.MASKED_INPUT, ClientState.MASKED),
    ClientStep(ClientState.MASKED, Kind.SURVIVOR_LIST, Kind.CONSISTENCY, ClientState.SIGNED),
    ClientStep(ClientState.SIGNED, Kind.CONSISTENCY_PROOF, Kind.UNMASK, ClientState.UNMASKED),
)

SERVER_STEPS = (
    ServerStep(
        Stage.COMMIT, ServerState.COMMITMENTS, Kind.COMMIT, Kind.COMMIT_BOOK, ServerState.KEYS, GraphKind.REGULAR
    ),
    ServerStep(Stage.ADVERTISE, ServerState.KEYS, Kind.ADVERTISE, Kind.KEY_BOOK, ServerState.SHARES),
    ServerStep(Stage.SHARE, ServerState.SHARES, Kind.SHARES, Kind.SHARE_DELIVERY, ServerState.MASKED_INPUTS),
    ServerStep(
        Stage.MASKED_INPUT, ServerState.MASKED_INPUTS, Kind.MASKED_INPUT, Kind.SURVIVOR_LIST, ServerState.SIGNATURES
    ),
    ServerStep(
        Stage.CONSISTENCY, ServerState.SIGNATURES, Kind.CONSISTENCY, Kind.CONSISTENCY_PROOF, ServerState.UNMASKING
    ),
    ServerStep(Stage.UNMASK, ServerState.UNMASKING, Kind.UNMASK, None, ServerState.FINISHED),
)

SERVER_STEP = {step.state: step for step in SERVER_STEPS}

STAGE_OF = {Kind.INVITATION: Stage.INVITATION} | {
    kind: step.stage for step in SERVER_STEPS for kind in (step.collects, step.sends) if kind is not None
}
"""The stage under which a message's bytes are counted: of an answer by the server, the stage that it closes."""


def client_step(state: ClientState, reads: Kind, graph: GraphKind) -> ClientStep | None:
    """The table's row for a client in `state` that gets a message of kind `reads`, or `None`."""
    for step in CLIENT_STEPS:
        if step.state is state and step.reads is reads and step.only in (None, graph):
            return step
    return None


def first_server_state(graph: GraphKind) -> ServerState:
    """What a server collects first."""
    return next(step.state for step in SERVER_STEPS if step.only in (None, graph))


def kind_of(frame: bytes) -> Kind:
    """The kind of message that a frame of this package's own making is; of no frame from a network."""
    return Kind(frame[5])


def stage_of(frame: bytes) -> Stage:
    """The stage under which such a frame's bytes are counted."""
    return STAGE_OF[kind_of(frame)]
