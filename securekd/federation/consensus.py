"""From noisy sums to what a student learns: mean scores, memory of earlier rounds, consensus.

All of it is post-processing: it sees sums that were released, and public inputs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securekd.checkpoint import Saved
from securekd.federation.aggregation import Aggregate
from securekd.kept import Kept, digest_of
from securekd.knowledge.questions import Question
from securekd.knowledge.soft_labels import consensus_log_probabilities
from securekd.laboratory.plan import Plan
from securekd.learning.smoothing.denoising import denoise
from securekd.learning.smoothing.smoother import Basis, public_bases
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


def consensus_of(plan: Plan, known: Known, rows: np.ndarray) -> np.ndarray:
    """Log-probabilities (rows, C) that the student learns of some rows that are known."""
    scores = known.scores[rows]
    if not plan.experiment.student.denoise:
        return scores_to_consensus(plan.experiment, scores)
    features = plan.transfer_features[rows]
    bases = shared_bases(plan.shared, features)
    return denoise(features, scores, float(known.variance[rows].mean()), bases=bases).log_probabilities


def shared_bases(shared: Path | None, features: np.ndarray) -> tuple[Basis, ...]:
    """Bases of public rows (`public_bases`), which another run may have computed.

    Args:
        shared: folder in which runs keep them; None: they are computed here.
        features: of the rows (m, p).
    """
    if shared is None:
        return public_bases(features)
    key = digest_of("bases", features)
    found = Kept(shared / "bases").get(key, lambda: _saved(public_bases(features)))
    return tuple(
        Basis(name, found.arrays[f"{name}.vectors"], found.arrays[f"{name}.roughness"], tuple(powers))
        for name, powers in found.info["powers"]
    )


def _saved(bases: tuple[Basis, ...]) -> Saved:
    arrays = {f"{basis.name}.{part}": getattr(basis, part) for basis in bases for part in ("vectors", "roughness")}
    return Saved(arrays, info={"powers": [(basis.name, basis.powers) for basis in bases]})


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
