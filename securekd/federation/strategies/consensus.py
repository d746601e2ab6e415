"""From noisy sums of scores to what a student learns: mean scores, memory of earlier rounds, consensus.

All of it is post-processing: it sees sums that were released, and public inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securekd.federation.aggregation.seam import Aggregate
from securekd.knowledge.questions import Question
from securekd.knowledge.soft_labels import consensus_log_probabilities
from securekd.learning.smoothing.denoising import denoise
from securekd.learning.smoothing.smoother import Basis
from securekd.settings.experiment import Experiment


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of transfer rows.

    Attributes:
        scores: mean scores (m, C); NaN where a row was never answered.
        variance: of the noise in an entry of each row (m,); NaN likewise.
    """

    scores: np.ndarray
    variance: np.ndarray


def mean_of(question: Question, aggregate: Aggregate) -> Known:
    """Mean scores of the rows that a question was about, and their noise."""
    survivors = len(aggregate.survivors)
    scores = question.mean(aggregate.total, survivors)
    return Known(scores, np.full(len(scores), question.mean_variance(survivors)))


def remembered(now: Known, rows: np.ndarray, before: Known | None, total: int, memory: float) -> Known:
    """What is known of all `total` rows: those answered now, averaged with what was known before.

    Args:
        now: of `rows`.
        rows: indices of the rows that were answered.
        before: of all rows; None in the first round.
        total: m.
        memory: weight of what was known before. It was released already, and costs nothing more.
    """
    scores, variance = np.full((total, now.scores.shape[1]), np.nan), np.full(total, np.nan)
    scores[rows], variance[rows] = now.scores, now.variance
    if before is None:
        return Known(scores, variance)
    return Known(
        _averaged(scores, before.scores, 1.0 - memory, memory),
        _averaged(variance, before.variance, (1.0 - memory) ** 2, memory**2),
    )


def _averaged(new: np.ndarray, old: np.ndarray, new_weight: float, old_weight: float) -> np.ndarray:
    """A weighted sum where both are known, and else whichever is."""
    both = new_weight * new + old_weight * old
    return np.where(np.isnan(both), np.where(np.isnan(new), old, new), both)


def denoised(known: Known, rows: np.ndarray, features: np.ndarray, bases: Sequence[Basis]) -> np.ndarray:
    """Log-probabilities (rows, C) of some rows that are known, smoothed over rows that are alike.

    Args:
        known: of all rows.
        rows: indices.
        features: public features of these rows (rows, p).
        bases: of the same.
    """
    variance = float(known.variance[rows].mean())
    return denoise(features, known.scores[rows], variance, bases=tuple(bases)).log_probabilities


def scores_to_consensus(experiment: Experiment, mean: np.ndarray) -> np.ndarray:
    """Mean scores to log-probabilities; entropy-reduced where the configuration says so."""
    student = experiment.student
    sharpness = student.sharpness if student.consensus == "entropy_reduced" else 1.0
    return consensus_log_probabilities(mean, scores=experiment.release.scores, sharpness=sharpness)


def winners(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities (m, C) that give each row's winner 99%: labels, smoothed so that losses stay finite."""
    others = 0.01 / (scores.shape[1] - 1)
    consensus = np.full(scores.shape, np.log(others))
    consensus[np.arange(len(scores)), scores.argmax(axis=1)] = np.log(0.99)
    return consensus
