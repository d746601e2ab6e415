"""Private rows dealt to clients: every row once, and to each client at least `minimum`."""

from collections.abc import Callable, Sequence

import numpy as np

from securekd.data.cells import refuse_alike
from securekd.data.examples import Array
from securekd.errors import DataError
from securekd.settings.data import Partition

TRIES = 1000
"""Draws before a partition with enough rows for each client is given up."""


def partition(
    labels: Array,
    column_values: Sequence[str | None] | None,
    clients: int | None,
    settings: Partition,
    rng: np.random.Generator,
) -> tuple[Array, ...]:
    """Deal rows to clients.

    Args:
        labels: int64 (N,), the class of each private row.
        column_values: for `column`, the institution of each row; otherwise None.
        clients: how many; None, for `column`, is one for each institution.
        settings: the kind, and its parameters: `iid`; `dirichlet`, each class shared out in proportions drawn from a
            symmetric Dirichlet law (Hsu, Qi, Brown 2019); `quantity`, sizes in such proportions, classes alike;
            `column`, one client for each value, in the order of the values.
        rng: source of the draws.

    Returns:
        For each client the indices of its rows, ascending. A client may hold one class only.

    Raises:
        DataError: if there are too few rows, if no draw gives each client its minimum, or if a column does not fit.
    """
    if settings.kind == "column":
        return _by_column(institutions(column_values, settings.column), column_values or (), clients, settings.minimum)
    if clients is None:
        raise DataError(f"a partition of kind {settings.kind!r} needs a number of clients: set clients.count")
    if len(labels) < clients * settings.minimum:
        raise DataError(
            f"{len(labels)} private rows are too few for {clients} clients with {settings.minimum} each: "
            "lower clients.count or data.partition.minimum, or give more data"
        )
    if settings.kind == "iid":
        return tuple(np.sort(part) for part in np.array_split(rng.permutation(len(labels)), clients))
    if settings.kind == "quantity":
        groups = [rng.permutation(len(labels))]
    else:
        groups = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return _redrawn(groups, clients, settings, lambda: rng.dirichlet(np.full(clients, settings.alpha), len(groups)))


def institutions(column_values: Sequence[str | None] | None, column: str | None) -> tuple[str, ...]:
    """The values of the partition column, sorted: one client each.

    Raises:
        DataError: if a value is missing, or if two institutions have names that people would take for one.
    """
    if column_values is None:
        raise DataError("a partition by column needs the values of that column")
    missing = sum(value is None for value in column_values)
    if missing:
        raise DataError(f"{missing} private rows have no value in the partition column {column!r}: fill or remove them")
    found = sorted({str(value) for value in column_values})
    refuse_alike(found, f"the partition column {column!r}")
    return tuple(found)


def _by_column(
    names: tuple[str, ...], values: Sequence[str | None], clients: int | None, minimum: int
) -> tuple[Array, ...]:
    if clients is not None and clients != len(names):
        raise DataError(
            f"{clients} clients are asked for, and the partition column has {len(names)} values: "
            "unset clients.count, or merge values"
        )
    index = {name: i for i, name in enumerate(names)}
    owner = np.array([index[str(value)] for value in values])
    parts = tuple(np.flatnonzero(owner == i) for i in range(len(names)))
    for name, part in zip(names, parts, strict=True):
        if len(part) < minimum:
            raise DataError(
                f"institution {name!r} has {len(part)} private rows, and data.partition.minimum is {minimum}: "
                "lower it, or merge institutions"
            )
    return parts


def _redrawn(groups: list[Array], clients: int, settings: Partition, draw: Callable[[], Array]) -> tuple[Array, ...]:
    """Cut each group of rows at drawn proportions; draw again until each client has its minimum."""
    sizes = np.array([len(group) for group in groups])
    for _ in range(TRIES):
        cuts = np.rint(np.cumsum(draw(), axis=1)[:, :-1] * sizes[:, None]).astype(np.int64)
        counts = np.diff(cuts, axis=1, prepend=0, append=sizes[:, None]).sum(axis=0)
        if counts.min() >= settings.minimum:
            pieces = [np.split(group, cut) for group, cut in zip(groups, cuts, strict=True)]
            return tuple(np.sort(np.concatenate(own)) for own in zip(*pieces, strict=True))
    raise DataError(
        f"no {settings.kind} partition in {TRIES} draws with alpha = {settings.alpha:g} gave each of {clients} clients "
        f"{settings.minimum} of {sizes.sum()} rows: raise data.partition.alpha, or lower clients.count or "
        "data.partition.minimum"
    )
