"""Who shares masks with whom: everybody with everybody, or a ring whose order nobody can choose.

In a ring of degree k (Bell et al. 2020, section 3.4) a client's neighbours stand at most k/2 places away from it. The
order comes from a seed to which every client contributes: it commits to 32 random bytes before it sees anybody else's,
and reveals them only when all commitments are on the table. As long as one reveal is random the seed is, so that a
server can not place its colluders around a victim. The ring's places are for the whole roster; who is absent takes up
a place and counts as a dropout, as the rule in `graph_rule` supposes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

from securekd_protocols.keys import Label

REVEAL_BYTES = 32


class Graph(Protocol):
    """Which clients a client deals with."""

    def neighbours(self, index: int) -> frozenset[int]:
        """The other clients with which `index` exchanges shares and masks."""

    def holders(self, index: int) -> frozenset[int]:
        """The clients that hold shares of the secrets of `index`."""


@dataclass(frozen=True)
class CompleteGraph:
    """Everybody is everybody's neighbour, and holds a share of its own secrets too (Bonawitz et al. 2017).

    Attributes:
        clients: On the roster.
    """

    clients: int

    @cached_property
    def _everybody(self) -> frozenset[int]:
        return frozenset(range(self.clients))

    def neighbours(self, index: int) -> frozenset[int]:
        """Everybody else."""
        return self._everybody - {index}

    def holders(self, index: int) -> frozenset[int]:
        """Everybody."""
        return self._everybody


@dataclass(frozen=True)
class RingGraph:
    """A permuted ring; only neighbours hold shares.

    Attributes:
        order: Every client of the roster, by its place.
        degree: Neighbours of each client, even.
    """

    order: tuple[int, ...]
    degree: int

    @cached_property
    def _near(self) -> dict[int, frozenset[int]]:
        half, size = self.degree // 2, len(self.order)
        around = self.order[size - half :] + self.order + self.order[:half]
        return {
            client: frozenset(around[place : place + self.degree + 1]) - {client}
            for place, client in enumerate(self.order)
        }

    def neighbours(self, index: int) -> frozenset[int]:
        """The clients on the nearest k/2 places to each side."""
        return self._near[index]

    def holders(self, index: int) -> frozenset[int]:
        """The neighbours."""
        return self.neighbours(index)


def graph_seed(transcript: bytes, reveals: Mapping[int, bytes]) -> bytes:
    """Join everybody's reveals to the seed, by ascending client index.

    Args:
        transcript: After the commit stage.
        reveals: 32 bytes of each client that has committed.

    Returns:
        32 bytes.
    """
    return hashlib.sha256(
        Label.GRAPH_SEED.value + transcript + b"".join(reveals[index] for index in sorted(reveals))
    ).digest()


@lru_cache(maxsize=8)
def ring_graph(seed: bytes, clients: int, degree: int) -> RingGraph:
    """Order the clients 0 … clients − 1 by SHA-256(label ‖ seed ‖ index); ties have probability below 2^−200."""

    def place(index: int) -> bytes:
        return hashlib.sha256(Label.GRAPH_PLACE.value + seed + index.to_bytes(2, "little")).digest()

    return RingGraph(tuple(sorted(range(clients), key=place)), degree)
