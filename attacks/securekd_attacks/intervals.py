"""Confidence limits for a proportion, as arrays or single counts.

The inverse of the incomplete beta function gives Clopper and Pearson's limits directly. It comes from `scipy.special`
alone, because `scipy.stats` would triple the time that importing this package takes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from securekd_attacks.inputs import FloatArray, check_confidence, check_counts


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval, both ends in [0, 1]."""

    low: float
    high: float


def binomial_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Clopper and Pearson's exact two-sided interval for a proportion (Clopper and Pearson 1934).

    Args:
        successes: 0 to `trials`.
        trials: at least 1.
        confidence: in (0, 1); each tail gets half of what remains.

    Raises:
        BadCounts: the counts are impossible.
        BadSetting: the confidence is out of range.
    """
    tail = (1.0 - check_confidence(confidence)) / 2.0
    successes, trials = check_counts("successes", successes, trials)
    return Interval(
        low=float(binomial_lower(successes, trials, tail)), high=float(binomial_upper(successes, trials, tail))
    )


def binomial_lower(successes: ArrayLike, trials: ArrayLike, tail: float) -> FloatArray:
    """Exact one-sided lower limit: the truth lies below it with probability at most `tail`.

    Args:
        successes: any shape, each 0 to `trials`; not checked again here.
        trials: broadcast against `successes`.
        tail: in (0, 1).
    """
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    # At k = 0 the beta distribution does not exist; the limit is zero.
    return np.where(k == 0, 0.0, special.betaincinv(np.maximum(k, 1.0), n - k + 1.0, tail))


def binomial_upper(successes: ArrayLike, trials: ArrayLike, tail: float) -> FloatArray:
    """Exact one-sided upper limit: the truth lies above it with probability at most `tail`.

    Computed from the complementary function, so that it stays positive and accurate where it is tiny.

    Args:
        successes: any shape, each 0 to `trials`; not checked again here.
        trials: broadcast against `successes`.
        tail: in (0, 1).
    """
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    return np.where(k == n, 1.0, special.betainccinv(k + 1.0, np.maximum(n - k, 1.0), tail))
