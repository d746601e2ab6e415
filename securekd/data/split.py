"""Rows dealt to splits that never overlap.

Splits cut from one source never share a row. For images and texts they share no content either: a row with the same
content as one in an earlier split (transfer set first, then test set) is passed over, so that no copy of a
public row is taken for private. Two rows of a table may be equal and still be two people, so tables are kept whole.

Splits from different sources are compared by content, and an overlap is refused; in tables, only where it is more than
chance explains.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from securekd.data.examples import Array
from securekd.errors import DataError

CHANCE = 1e-3
"""Probability below which an overlap of two tables is no longer taken for chance."""


@dataclass(frozen=True, eq=False)
class Content:
    """Rows of one source: their numbers (N,), their inputs (N, ...), and the key of each one's content."""

    rows: Array
    inputs: Array
    keys: list[bytes]

    def without(self, avoid: Collection[bytes]) -> "Content":
        """The rows whose content is not to be avoided."""
        kept = np.array([key not in avoid for key in self.keys], dtype=bool)
        if kept.all():
            return self
        keys = [key for key, keep in zip(self.keys, kept, strict=True) if keep]
        return Content(self.rows[kept], self.inputs[kept], keys)


class Pool:
    """The rows of one source in a seeded order, each handed out once."""

    def __init__(self, rows: int, rng: np.random.Generator) -> None:
        self._order = rng.permutation(rows)
        self._used = 0

    def __len__(self) -> int:
        return len(self._order) - self._used

    def next(self, count: int) -> Array:
        """Up to `count` rows that were not handed out before, int64."""
        rows = self._order[self._used : self._used + count]
        self._used += len(rows)
        return rows


def fill(
    pool: Pool, count: int | None, read: Callable[[Array], Content], avoid: Collection[bytes], split: str
) -> Content:
    """Take rows whose content is not to be avoided.

    Args:
        pool: where rows come from.
        count: how many; None takes all that is left.
        read: from row numbers to content.
        avoid: keys of content that is passed over.
        split: the name of the split, for errors.

    Raises:
        DataError: if too few rows are left.
    """
    wanted = len(pool) if count is None else count
    taken: list[Content] = []
    missing = wanted
    while missing and len(pool):
        found = read(pool.next(missing)).without(avoid)
        taken.append(found)
        missing -= len(found.rows)
    if missing == wanted or (missing and count is not None):
        raise DataError(
            f"{wanted - missing} rows are left for the {split} set, which takes {count or 'at least 1'} "
            f"(copies of rows in other splits do not count): lower data.{split} or give more data"
        )
    return taken[0] if len(taken) == 1 else joined(taken)


def joined(parts: Sequence[Content]) -> Content:
    """Content of several draws from one source, in their order."""
    return Content(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.inputs for part in parts]),
        [key for part in parts for key in part.keys],
    )


def refuse_overlap(one: Collection[bytes], other: Collection[bytes], names: tuple[str, str], chance: bool) -> None:
    """Refuse two splits from different sources that share content.

    Args:
        one: keys of the one split, such as the transfer set.
        other: keys of the other, such as all private rows.
        names: what the two are called.
        chance: allow as many equal rows as chance explains (tables): a fresh row has a twin in the other split as
            often as that split's rows have one among themselves.

    Raises:
        DataError: with the number of rows shared.
    """
    counts = Counter(other)
    shared = sum(key in counts for key in one)
    if not shared:
        return
    if chance:
        from scipy.stats import binom

        twins = sum(n for n in counts.values() if n > 1) / len(other)
        if binom.sf(shared - 1, len(one), twins) >= CHANCE:
            return
    raise DataError(
        f"{shared} of {len(one)} {names[0]} rows are {names[1]} rows too: remove them from one of the two sources, "
        "or cut both sets from one source"
    )
