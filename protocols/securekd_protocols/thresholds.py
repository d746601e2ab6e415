"""How many clients must last in a complete graph, so that a server never holds both shares of anybody."""

from __future__ import annotations

from securekd_protocols.errors import ThresholdUnsafe, TooFewClients

FEWEST_CLIENTS = 3


def majority(clients: int, colluders: int) -> int:
    """The least threshold that two disjoint groups of honest clients, each with all colluders, do not both reach."""
    return max(FEWEST_CLIENTS, (clients + colluders) // 2 + 1)


def recommended_threshold(clients: int, colluders: int = 1) -> int:
    """The smallest safe threshold t, which tolerates the most dropouts: 2t > clients + colluders, and t ≥ 3.

    Two disjoint groups of honest clients, each with all colluders beside it, can then not both reach t, so that a
    server which tells them different things never holds both shares of one client (Bonawitz et al. 2017, section 6.2).

    Args:
        clients: How many are invited.
        colluders: How many of them may work with the server.

    Returns:
        The threshold.

    Raises:
        TooFewClients: Fewer than 3 clients.
        ThresholdUnsafe: No threshold up to `clients` is safe with so many colluders.
    """
    threshold = majority(clients, colluders)
    check_threshold(clients, threshold, colluders)
    return threshold


def check_threshold(clients: int, threshold: int, colluders: int) -> None:
    """Refuse a threshold that does not protect.

    Raises:
        TooFewClients: Fewer than 3 clients.
        ThresholdUnsafe: See `recommended_threshold`; also where fewer than two honest clients could be left in a sum.
    """
    check_survivors(clients, threshold, colluders)
    if 2 * threshold <= clients + colluders:
        raise ThresholdUnsafe(
            f"threshold {threshold} of {clients} clients with {colluders} colluders",
            f"raise the threshold to {majority(clients, colluders)} or invite more clients",
        )


def check_survivors(clients: int, threshold: int, colluders: int) -> None:
    """Refuse a threshold at which a sum could be of too few, whoever opens it.

    Raises:
        TooFewClients: Fewer than 3 clients.
        ThresholdUnsafe: Fewer than two honest clients could be left in a sum, or the threshold is out of range.
    """
    if clients < FEWEST_CLIENTS:
        raise TooFewClients(
            f"{clients} clients, and at least {FEWEST_CLIENTS} are needed",
            "invite more: of two clients, each learns the other's input from the sum",
        )
    stated = f"threshold {threshold} of {clients} clients with {colluders} colluders"
    if colluders < 0 or not FEWEST_CLIENTS <= threshold <= clients:
        raise ThresholdUnsafe(stated, f"choose a threshold from {FEWEST_CLIENTS} to {clients}, and colluders from 0 on")
    if threshold - colluders < 2:
        raise ThresholdUnsafe(stated, "leave at least two honest clients among the survivors: invite more clients")
