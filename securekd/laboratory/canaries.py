"""Canaries: private records that a fair coin each keeps in a client's training or out of it.

Which records are canaries, and under which wrong label, is drawn from the public seed; the coins are secret. Canaries
are the clients' own records, so none of them is a test row or a transfer row. Out of training, a record still counts
in the number of examples, which is public to the example-level guarantee.

A mislabelled record stands out and bounds the mechanism; a natural one measures what an ordinary record risks. With a
coin for each, one run carries a lower bound on ε (Steinke, Nasr and Jagielski 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from securekd.data import Examples
from securekd.errors import DataError
from securekd.randomness import Csprng

CanaryKind = Literal["mislabelled", "natural"]


@dataclass(frozen=True, eq=False)
class Canaries:
    """All canaries of a run, as arrays of equal length M.

    Attributes:
        kinds: str (M,).
        clients: int (M,), whose record it is.
        rows: int (M,), its row among the client's examples.
        labels: int (M,), the label that it is trained under.
        included: bool (M,), how its coin fell; None before the coins are tossed.
    """

    kinds: np.ndarray
    clients: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    included: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def toss(self, randomness: Csprng) -> np.ndarray:
        """A fair coin for each canary: bool (M,)."""
        return randomness.words(len(self)) >= np.uint64(1 << 63)

    def coins(self) -> np.ndarray:
        """How the coins fell.

        Raises:
            DataError: if they have not been tossed.
        """
        if self.included is None:
            raise DataError("the canaries' coins have not been tossed; plant them first")
        return self.included

    def of(self, client: int, examples: Examples, chosen: np.ndarray) -> Examples:
        """Some of one client's canaries as examples, under the labels that they are trained under.

        Args:
            client: its number.
            examples: the client's examples before anything was planted.
            chosen: bool (M,).
        """
        mine = chosen & (self.clients == client)
        taken = examples.take(self.rows[mine])
        return Examples(taken.modality, taken.inputs, self.labels[mine], taken.ids)

    def ordinary(self, client: int, examples: Examples) -> Examples:
        """One client's examples that are no canaries."""
        return examples.take(np.setdiff1d(np.arange(len(examples)), self.rows[self.clients == client]))

    def planted(self, client: int, examples: Examples) -> Examples:
        """What one client trains on: canaries under their labels, and without those whose coin kept them out."""
        coins, mine = self.coins(), self.clients == client
        labels = np.array(examples.labels)
        labels[self.rows[mine]] = self.labels[mine]
        changed = Examples(examples.modality, examples.inputs, labels, examples.ids)
        return changed.take(np.setdiff1d(np.arange(len(examples)), self.rows[mine & ~coins]))

    def tossed(self, included: np.ndarray) -> "Canaries":
        """These canaries, with coins that fell so."""
        return replace(self, included=included)


def choose_canaries(
    clients: Sequence[Examples], kinds: Sequence[CanaryKind], number: int, classes: int, rng: np.random.Generator
) -> Canaries:
    """Choose `number` records of each kind, from each client in proportion to what it holds.

    Args:
        clients: each one's private examples.
        kinds: what canaries there are.
        number: of each kind.
        classes: C, at least 2.
        rng: public.

    Raises:
        DataError: if they would be more than half of a client's records.
    """
    held = np.array([len(c) for c in clients])
    total = number * len(kinds)
    if total > (held // 2).sum():
        raise DataError(
            f"audit.canaries = {number} of {len(kinds)} kinds are more than half of the {held.sum()} private records; "
            f"take {int((held // 2).sum()) // len(kinds)} or fewer, or give more data"
        )
    owners = np.repeat(np.arange(len(clients)), _quotas(held, total))
    rows = np.concatenate([rng.permutation(len(c))[: (owners == i).sum()] for i, c in enumerate(clients)])
    order = rng.permutation(total)
    owners, rows = owners[order], rows[order]
    named = np.repeat(np.array(kinds), number)
    true = np.array([clients[int(c)].take([r]).labels for c, r in zip(owners, rows, strict=True)], np.int64).reshape(-1)
    wrong = (true + rng.integers(1, classes, size=total)) % classes
    return Canaries(named, owners, rows, np.where(named == "mislabelled", wrong, true))


def _quotas(held: np.ndarray, total: int) -> np.ndarray:
    """Canaries of each client: in proportion, rounded down, then one more each while some are left; at most half."""
    quotas = np.minimum(total * held // held.sum(), held // 2)
    while (left := total - quotas.sum()) > 0:
        room = np.flatnonzero(quotas < held // 2)
        quotas[room[np.argsort(-held[room], kind="stable")][:left]] += 1
    return np.asarray(quotas)
