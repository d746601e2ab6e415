"""How many neighbours, and how many of them must last: the rule for k and t of a k-regular graph.

After Bell et al. 2020 ("Secure Single-Server Aggregation with (Poly)Logarithmic Overhead"), section 3.3: with n
clients, of whom C may be corrupt and D may drop out, a random k-regular graph has to stay connected when B = C + D of
its nodes are taken away, no client may have t corrupt neighbours, and none may be left with fewer than t neighbours.
The first two may fail with probability 2^−σ in all (they protect inputs), the last with 2^−η (it protects the result).

Everything is decided in exact integers; the hypergeometric law is never approximated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from securekd_protocols.errors import BadParameter, GraphUnsafe

SECURITY_BITS = 40  # σ
CORRECTNESS_BITS = 20  # η
MOST_NEIGHBOURS = 1000  # bounds the work of a search, and of checking what a stranger proposes


@dataclass(frozen=True)
class GraphDemand:
    """What a graph has to withstand.

    Attributes:
        clients: n, on the roster.
        colluders: C, clients that may work with the server; at least 1.
        dropouts: D, clients that may fall silent; at least 1.
        malicious_server: Whether the server may ask disjoint halves of a neighbourhood for different shares.
        restarts: How many graphs the server may see before it lets one stand; log₂ of it is added to σ.
    """

    clients: int
    colluders: int
    dropouts: int
    malicious_server: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        if min(self.colluders, self.dropouts, self.restarts) < 1 or self.colluders + self.dropouts > self.clients:
            raise BadParameter(
                f"{self.colluders} colluders, {self.dropouts} dropouts, {self.restarts} restarts of {self.clients}",
                "state at least one of each, and fewer colluders and dropouts than clients",
            )


@dataclass(frozen=True)
class GraphChoice:
    """Degree and threshold of a k-regular graph.

    Attributes:
        degree: k, even.
        threshold: t, neighbours of each client that must last.
    """

    degree: int
    threshold: int


@lru_cache(maxsize=256)
def choose_graph(demand: GraphDemand) -> GraphChoice:
    """The smallest even degree for which the rule holds, with its smallest threshold.

    Raises:
        GraphUnsafe: No degree up to 1,000 and below the number of clients is enough.
    """
    for degree in range(2, min(demand.clients, MOST_NEIGHBOURS + 1), 2):
        if stays_connected(demand, degree):
            allowed = thresholds_allowed(demand, degree)
            if allowed:
                return GraphChoice(degree, allowed.start)
    raise GraphUnsafe(
        f"no k-regular graph of {demand.clients} clients withstands {demand.colluders} colluders and "
        f"{demand.dropouts} dropouts",
        "use the complete graph, or allow for fewer of either",
    )


@lru_cache(maxsize=256)
def check_graph(demand: GraphDemand, choice: GraphChoice) -> None:
    """Refuse a degree or threshold that does not withstand what is demanded.

    Raises:
        GraphUnsafe: The degree is odd, or one of the rule's conditions fails.
    """
    degree, threshold = choice.degree, choice.threshold
    stated = f"degree {degree} and threshold {threshold} for {demand}"
    if degree % 2 or not 2 <= degree < min(demand.clients, MOST_NEIGHBOURS + 1):
        raise GraphUnsafe(stated, f"choose an even degree from 2 to {min(demand.clients - 1, MOST_NEIGHBOURS)}")
    if not stays_connected(demand, degree):
        raise GraphUnsafe(stated, "the graph could fall apart: take the degree that choose_graph gives")
    allowed = thresholds_allowed(demand, degree)
    if threshold not in allowed:
        raise GraphUnsafe(stated, f"take a threshold in {allowed}, or what choose_graph gives")


def stays_connected(demand: GraphDemand, degree: int) -> bool:
    """Whether taking B random nodes away leaves the graph connected, but for probability 2^−(σ+1) / restarts.

    The bound is n(n−k−1)/2 · C(n−k, B−k) / C(n, B): two places of the ring must be cut, and each cut takes k/2 nodes in
    a row. Where B < k it is zero.
    """
    n, gone = demand.clients, demand.colluders + demand.dropouts
    if degree > gone:
        return True
    ways = n * (n - degree - 1) * math.perm(gone, degree)  # C(n−k, B−k) / C(n, B) = B…(B−k+1) / n…(n−k+1)
    return ways * demand.restarts << (SECURITY_BITS + 1) < 2 * math.perm(n, degree)


def thresholds_allowed(demand: GraphDemand, degree: int) -> range:
    """The thresholds t₁ < t ≤ t₂; empty where there is none.

    t₁ is the least x with n·P[HG(n, C, k) > x] ≤ 2^−(σ+1), and against a malicious server ⌈(t₁ + k − 1.25) / 2⌉, so
    that two disjoint parts of a neighbourhood, each with all corrupt neighbours beside it, do not both reach t. t₂ is
    the largest x with n·P[HG(n, n − D, k) < x] ≤ 2^−η.
    """
    n, whole = demand.clients, math.comb(demand.clients, degree)
    lower = most_corrupt_neighbours(demand, degree)
    if demand.malicious_server:
        lower = -((5 - 4 * (lower + degree)) // 8)
    alive = _hypergeometric(n, n - demand.dropouts, degree)
    tail, upper = 0, 0
    while upper < degree and n * (tail + alive[upper]) << CORRECTNESS_BITS <= whole:
        tail += alive[upper]
        upper += 1
    return range(max(lower + 1, 2), upper + 1) if lower < upper else range(0)


def most_corrupt_neighbours(demand: GraphDemand, degree: int) -> int:
    """How many neighbours of any client may be corrupt: t₁ before it is raised, exceeded with 2^−(σ+1) / restarts."""
    n, whole = demand.clients, math.comb(demand.clients, degree)
    corrupt = _hypergeometric(n, demand.colluders, degree)
    tail, most = 0, degree
    while most and n * demand.restarts * (tail + corrupt[most]) << (SECURITY_BITS + 1) <= whole:
        tail += corrupt[most]
        most -= 1
    return most


def fewest_honest(demand: GraphDemand, choice: GraphChoice) -> int:
    """The fewest honest inputs in any sum that one session can open, but for probability 2^−σ / restarts.

    The graph is random and colluders are not: they are chosen before it is known.

    A server that follows the protocol opens one sum of at least n − D survivors. A malicious one tells parts of the
    ring different stories, and opens a sum for each: beside an honest client it contains at least 2t − k − t₁ honest
    neighbours of it, with t₁ as `most_corrupt_neighbours` has it, and no more can be promised (SPEC.md, "One sum,
    k-regular graph").
    """
    if not demand.malicious_server:
        return demand.clients - demand.dropouts - demand.colluders
    return 2 * choice.threshold - choice.degree - most_corrupt_neighbours(demand, choice.degree) + 1


@lru_cache(maxsize=64)
def _hypergeometric(population: int, marked: int, drawn: int) -> tuple[int, ...]:
    """How many of the C(population, drawn) samples have 0, 1, … drawn marked members."""
    rest = population - marked
    counts = [0] * (drawn + 1)
    lowest, highest = max(0, drawn - rest), min(marked, drawn)
    count = math.comb(marked, lowest) * math.comb(rest, drawn - lowest)
    for j in range(lowest, highest + 1):
        counts[j] = count
        count = count * (marked - j) * (drawn - j) // ((j + 1) * (rest - drawn + j + 1))
    return tuple(counts)
