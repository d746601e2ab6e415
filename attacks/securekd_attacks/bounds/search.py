"""The one numerical search of this package: how far a refutation reaches."""

from collections.abc import Callable

STEPS = 60
"""Halvings of the bracket: its width falls below the rounding of what it holds."""


def last_refuted(refuted: Callable[[float], bool]) -> float:
    """A value up to which a hypothesis is refuted: 0 where already 0 stands, else `refuted` there and not just above.

    The lower end of the bracket is given, so that rounding never adds to a lower bound. `refuted` must end somewhere.
    """
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2.0 * high
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        if not low < middle < high:
            break
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
