"""What one client knows once it has accepted an invitation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from securekd_protocols.errors import TooFewSurvivors
from securekd_protocols.graph import CompleteGraph, Graph, RingGraph
from securekd_protocols.keys import Binding
from securekd_protocols.masking.secrets import PairSecrets, SessionSecrets
from securekd_protocols.messages import Advertise, Limits, SharePair
from securekd_protocols.parameters import SessionParameters
from securekd_protocols.ring import Words
from securekd_protocols.states import GraphKind

GIVE_UP = "leave the session; the server can go on without this client if enough others last"


def limits_of(parameters: SessionParameters) -> Limits:
    """How large the session's messages can be."""
    size = parameters.ring.value_bytes * parameters.vector_length
    return Limits(parameters.clients, size, parameters.graph is not None)


def graph_kind(parameters: SessionParameters) -> GraphKind:
    """Which rows of the table apply."""
    return GraphKind.COMPLETE if parameters.graph is None else GraphKind.REGULAR


@dataclass
class ClientSession:
    """A client's memory of one session; everything in it but the parameters is its own and secret.

    Attributes:
        parameters: What was agreed on.
        index: This client's place on the roster.
        transcript: 32 bytes, as far as the session has come.
        secrets: Drawn for this session.
        graph: Who deals with whom; in a k-regular graph unknown (a ring without order) until all have revealed.
        commitments: In a k-regular graph, the commit book.
        pairs: Raw shared secrets by neighbour.
        server_secret: The raw secret shared with the server, for tags.
        held: Shares by owner.
        sharers: Whose shares were delivered.
        survivors: Whose inputs are in the sum.
        words: The encoded input, until it is masked.
    """

    parameters: SessionParameters
    index: int
    transcript: bytes
    secrets: SessionSecrets
    graph: Graph
    commitments: dict[int, bytes] = field(default_factory=dict)
    pairs: dict[int, PairSecrets] = field(default_factory=dict)
    server_secret: bytes = b""
    held: dict[int, SharePair] = field(default_factory=dict)
    sharers: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()
    words: Words | None = None

    @classmethod
    def begin(cls, parameters: SessionParameters, index: int, secrets: SessionSecrets) -> ClientSession:
        """The memory of a client that has just accepted an invitation."""
        graph: Graph = CompleteGraph(parameters.clients)
        if parameters.graph is not None:
            graph = RingGraph((), parameters.graph.degree)
        return cls(parameters, index, parameters.session_id, secrets, graph)

    @cached_property
    def limits(self) -> Limits:
        """How large messages can be."""
        return limits_of(self.parameters)

    @property
    def binding(self) -> Binding:
        """What keys of the present stage are derived for."""
        return Binding(self.parameters.session_id, self.transcript)

    @property
    def own_advertise(self) -> Advertise:
        """What this client advertises."""
        return self.secrets.advertise(self.parameters.session_id, self.index)

    def enough(self, members: Collection[int], what: str) -> None:
        """Refuse to go on with too few.

        Args:
            members: The clients that have got so far.
            what: What they have done, for the error text.

        Raises:
            TooFewSurvivors: They are fewer than any sum may have, or too few of them are neighbours.
        """
        floor = self.parameters.fewest_survivors
        if len(members) < floor:
            raise TooFewSurvivors(f"{len(members)} clients {what}, and {floor} are needed", GIVE_UP)
        self.enough_neighbours(members, what)

    def enough_neighbours(self, members: Collection[int], what: str) -> None:
        """Refuse to go on with fewer than threshold holders of this client's shares among `members`."""
        threshold = self.parameters.threshold
        near = self.graph.holders(self.index) & set(members)
        if len(near) < threshold:
            raise TooFewSurvivors(f"{len(near)} holders of shares {what}, and {threshold} are needed", GIVE_UP)
