"""The blind baseline: a classifier that never sees the model. What it finds is a difference of the records alone.

Where it tells members from non-members, both come from different distributions, and an attack may do no more than it
does: no leakage may be claimed from its scores (the point of Meeus et al. 2024 and Das, Zhang and Tramèr 2024).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from securekd_attacks.attacks.logistic import Logistic
from securekd_attacks.errors import BadSetting, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import FloatArray, check_confidence, finite_matrix
from securekd_attacks.metrics import Auc, auc

FOLDS = 5


@dataclass(frozen=True)
class BlindBaseline:
    """How well records alone tell members from non-members.

    Attributes:
        auc: of the cross-fitted classifier, with its interval.
        distribution_shift: whether the interval leaves out 0.5: then no attack's figure is evidence of leakage.
        features: how many the classifier saw.
        folds: in how many parts the records were cut; each is scored by a classifier of the others.
        seed: of the cut.
    """

    auc: Auc
    distribution_shift: bool
    features: int
    folds: int
    seed: int


def blind_baseline(
    members: ArrayLike,
    nonmembers: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    ridge: float | None = None,
    folds: int = FOLDS,
) -> BlindBaseline:
    """Fit ridge logistic regressions on features of the records, score each record by one that did not see it.

    Every classifier's scores become ranks among the records of its own fold, so that folds are comparable. Cross-fitted
    scores are no independent ones: without a shift, the AUC of a linear classifier varies by twice the variance that
    they would give, because any two records meet twice, each once in training and once held out. The interval is
    wider by √2 for that.

    Args:
        members: shape (m, D), features that come from no model, finite; m at least 2 · folds.
        nonmembers: shape (n, D), finite; n at least 2 · folds.
        seed: of the cut into folds.
        confidence: in (0, 1), of the interval, two-sided: without a shift the flag is raised in 1 − confidence.
        ridge: above 0; by default as strong as there are features.
        folds: at least 2.

    Raises:
        ShapeMismatch, NotFiniteScores, TooFewRecords: unfit features.
        BadSetting: a setting out of range.
    """
    check_confidence(confidence)
    inside, outside = finite_matrix(members, "members' features"), finite_matrix(nonmembers, "non-members' features")
    if inside.shape[1] != outside.shape[1]:
        raise ShapeMismatch("sides differ in features", value=(inside.shape, outside.shape), remedy="pass the same")
    if folds < 2:
        raise BadSetting("folds out of range", value=folds, remedy="choose at least two")
    fewest = min(len(inside), len(outside))
    if fewest < 2 * folds:
        raise TooFewRecords("too few records to cross-fit", value=fewest, remedy=f"give {2 * folds} a side, or more")
    features = np.concatenate([inside, outside]).astype(np.float64)
    labels = np.repeat([1.0, 0.0], [len(inside), len(outside)])
    rng = np.random.default_rng(seed)
    part = np.concatenate([rng.permutation(np.arange(size) % folds) for size in (len(inside), len(outside))])
    scores = np.empty(len(labels))
    strength = float(features.shape[1]) if ridge is None else ridge
    for fold in range(folds):
        held = part == fold
        scores[held] = _ranks(Logistic.fit(features[~held], labels[~held], strength).logits(features[held]))
    # A normal quantile √2 times as large, by the confidence that belongs to it.
    widened = 1.0 - 2.0 * float(special.ndtr(math.sqrt(2.0) * special.ndtri((1.0 - confidence) / 2.0)))
    area = replace(auc(scores[labels == 1.0], scores[labels == 0.0], widened), confidence=confidence)
    return BlindBaseline(
        auc=area,
        distribution_shift=area.low > 0.5 or area.high < 0.5,
        features=features.shape[1],
        folds=folds,
        seed=seed,
    )


def _ranks(scores: FloatArray) -> FloatArray:
    """Mid-ranks as shares, in [0, 1]."""
    ascending = np.sort(scores)
    twice = np.searchsorted(ascending, scores, side="left") + np.searchsorted(ascending, scores, side="right")
    result: FloatArray = twice / (2.0 * scores.size)
    return result
