"""The robust membership-inference attack (Zarifzadeh, Liu and Shokri 2024): a record's ratio against a population's.

Signals are log-probabilities of the true label, log p(y | x). The mean over reference models is taken over exactly
those that were not trained with a record (and, online, those that were): no matrix is filled up with zeros.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securekd_attacks.errors import BadProbabilities, BadSetting
from securekd_attacks.inputs import LOG_ZERO, FloatArray
from securekd_attacks.references.inclusion import BoolArray, blocks, check_inclusion, check_references, require_counts

Mode = Literal["online", "offline"]
"""`online`: references with the record and without. `offline`: those without it alone."""

ABOVE_ONE = 1e-4
"""How far rounding may put a log-probability above zero."""


def scores(
    target: ArrayLike,
    references: ArrayLike,
    inclusion: ArrayLike,
    population: ArrayLike,
    population_references: ArrayLike,
    population_inclusion: ArrayLike | None = None,
    *,
    mode: Mode,
    gamma: float = 2.0,
    offline_a: float = 0.3,
) -> FloatArray:
    """RMIA scores: the share of population records that a record dominates; higher = more likely a member.

    Record x dominates z where ratio(x)/ratio(z) ≥ γ, with ratio(x) = p(x|θ)/p(x) (their equations 2 and 3). The
    population's ratios are sorted once, so that all n records take O((n + k) log k), not O(nk).

    Args:
        target: shape (n,), the target's log-probabilities of the true labels, finite, at or below 0.
        references: shape (R, n), the same from each reference model; may be memory-mapped.
        inclusion: shape (R, n), booleans: whether reference r was trained with record i.
        population: shape (k,), the target's log-probabilities for records that it was not trained with.
        population_references: shape (R, k), from the same references.
        population_inclusion: shape (R, k), booleans; None where no reference was trained with any of them.
        mode: `online`: p(x) is the mean of the IN and OUT means. `offline`: p(x) = ((1 + a) p_out + 1 − a)/2
            (their appendix B.2). Population records always take the offline form: nobody is expected to hold them.
        gamma: at least 1; the paper uses 2.
        offline_a: in [0, 1]; the paper uses 0.3 for CIFAR-10.

    Returns:
        Shape (n,), in [0, 1]: multiples of 1/k. Records that the population cannot tell apart tie; see `log_ratios`.

    Raises:
        ShapeMismatch, NotFiniteScores: the input is unfit.
        BadProbabilities: a log-probability above 0.
        TooFewRecords: a record has no reference without it (or, online, none with it).
        BadSetting: γ, a or the mode is out of range.
    """
    check_gamma(gamma)
    ratios = log_ratios(target, references, inclusion, mode=mode, offline_a=offline_a)
    if population_inclusion is None:
        population_inclusion = np.broadcast_to(np.False_, np.shape(population_references))
    against = log_ratios(population, population_references, population_inclusion, mode="offline", offline_a=offline_a)
    return dominated(ratios, np.sort(against), gamma)


def dominated(ratios: FloatArray, population: FloatArray, gamma: float) -> FloatArray:
    """The share of the population's ascending log-ratios that each record's log-ratio exceeds by log γ."""
    result: FloatArray = np.searchsorted(population, ratios - np.log(gamma), side="right") / population.size
    return result


def check_gamma(gamma: float) -> float:
    """Give back a finite γ at or above 1, or raise BadSetting."""
    if not 1.0 <= gamma < np.inf:
        raise BadSetting("gamma out of range", value=gamma, remedy="choose a finite one at or above 1")
    return float(gamma)


def log_ratios(
    target: ArrayLike, references: ArrayLike, inclusion: ArrayLike, *, mode: Mode, offline_a: float = 0.3
) -> FloatArray:
    """log p(x|θ) − log p(x), of which `scores` is a rising step function: the same order, without its ties.

    Args:
        target: shape (n,), as for `scores`.
        references: shape (R, n), as for `scores`.
        inclusion: shape (R, n), as for `scores`.
        mode: as for `scores`.
        offline_a: as for `scores`.

    Raises:
        ShapeMismatch, NotFiniteScores, BadProbabilities, TooFewRecords, BadSetting: as for `scores`.
    """
    if mode not in ("online", "offline"):
        raise BadSetting("unknown mode", value=mode, remedy="choose online or offline")
    if not 0.0 <= offline_a <= 1.0:
        raise BadSetting("offline_a out of range", value=offline_a, remedy="choose one in [0, 1]")
    own, matrix, included = check_references(target, references, check_inclusion(inclusion, np.shape(references)))
    if own.max() > ABOVE_ONE:
        raise BadProbabilities(
            "a log-probability above zero", value=float(own.max()), remedy="pass log p of the true label"
        )
    models = len(matrix)
    held = included.sum(axis=0, dtype=np.int32)
    remedy = "keep the records that `references.covered` names, or train more references"
    require_counts(models - held, 1, "out of", models, remedy)
    if mode == "online":
        require_counts(held, 1, "in", models, remedy)
    result = np.empty(own.size)
    for part in blocks(*matrix.shape):
        marginal = _marginal(matrix[:, part], included[:, part], None if mode == "online" else offline_a)
        result[part] = np.maximum(own[part], LOG_ZERO) - np.log(np.maximum(marginal, np.nextafter(0.0, 1.0)))
    return result


def _marginal(block: NDArray[np.floating], held: BoolArray, offline_a: float | None) -> FloatArray:
    """p(x) by the means over exactly the references without each record and, where `offline_a` is None, with it."""
    values = block.astype(np.float64)
    if values.max() > ABOVE_ONE:
        raise BadProbabilities(
            "a log-probability above zero", value=float(values.max()), remedy="pass log p of the true label"
        )
    np.exp(np.maximum(values, LOG_ZERO, out=values), out=values)
    inside = held.sum(axis=0)
    mean_out: FloatArray = np.einsum("rn,rn->n", values, ~held) / (len(block) - inside)
    if offline_a is not None:
        return ((1.0 + offline_a) * mean_out + 1.0 - offline_a) / 2.0
    mean_in: FloatArray = np.einsum("rn,rn->n", values, held) / inside
    return (mean_out + mean_in) / 2.0
