"""What clients are asked in a round: shapes, bounds and noise of their answers, from an experiment's settings."""

import math
from dataclasses import dataclass

import numpy as np

from securekd.errors import SettingError
from securekd.experiment import Experiment
from securekd.knowledge import Clip, SoftLabelShape, mean_scores
from securekd.privacy.mechanisms import Mechanism, mechanism_named
from securekd.privacy.release import Exposure, ReleasePlan, calibrated


@dataclass(frozen=True, eq=False)
class Question:
    """What clients are asked at a time: scores on so many transfer rows, noised.

    Attributes:
        labels: shape and bounds of each client's answer.
        release: what is added to it, and what the ledger is told.
    """

    labels: SoftLabelShape
    release: ReleasePlan

    def mean(self, total: np.ndarray, survivors: int) -> np.ndarray:
        """Mean scores (m, C) from a sum of integers; under client sampling, of the clients expected to be in it."""
        expected = survivors * self.release.exposure.sampling_rate
        return mean_scores(total * self.release.mechanism.step, self.labels, expected)

    def mean_variance(self, survivors: int) -> float:
        """Variance of the noise in an entry of the mean scores, where clients weigh the same."""
        unit = self.labels.classes if self.labels.scores == "votes" else 1
        rate = self.release.exposure.sampling_rate
        return self.release.mechanism.sigma**2 / (survivors * (unit * rate) ** 2)


def questions(
    experiment: Experiment, transfer: int, classes: int, exposure: Exposure
) -> tuple[Question, Question | None]:
    """What clients answer in a round, and the votes that confident GNMax counts before it (or None).

    Args:
        experiment: what was asked for.
        transfer: rows of the transfer set.
        classes: C.
        exposure: whose noise is unknown to whom.

    Raises:
        SettingError: for settings that contradict each other.
        BudgetError: for a client-level target that cannot be met.
    """
    release, pate, privacy = experiment.release, experiment.pate, experiment.privacy
    voting = experiment.strategy == "pate"
    _refuse_pairs(experiment)
    limit, name = (pate.answers, "pate.answers") if voting else (release.rows, "release.rows")
    rows = limit or transfer
    if rows > transfer:
        raise SettingError(f"{name} = {rows} is more than the {transfer} rows of the transfer set; lower it")
    confident = voting and pate.threshold is not None
    shares = (1 - pate.threshold_budget, pate.threshold_budget) if confident else (1.0,)
    shapes = [_labels(experiment, count, classes) for count in (rows, transfer)][: len(shares)]
    unit = classes if release.scores == "votes" else 1

    def mechanisms(multiplier: float) -> list[Mechanism]:
        return [
            mechanism_named(
                release.mechanism, s.bounds, sigma=multiplier * s.bounds.l2 / math.sqrt(share), step=release.step
            )
            for s, share in zip(shapes, shares, strict=True)
        ]

    if privacy.client_epsilon is None:
        noisy = [
            mechanism_named(release.mechanism, s.bounds, sigma=release.noise * unit, step=release.step) for s in shapes
        ]
    else:
        noisy = mechanisms(
            calibrated(
                mechanisms,
                exposure,
                lowest=1e-3,
                epsilon=privacy.client_epsilon,
                delta=privacy.client_delta,
                rounds=experiment.rounds,
            )
        )
    asked = [Question(s, ReleasePlan(m, exposure)) for s, m in zip(shapes, noisy, strict=True)]
    return asked[0], asked[1] if confident else None


def _labels(experiment: Experiment, rows: int, classes: int) -> SoftLabelShape:
    release = experiment.release
    weighted = experiment.student.consensus == "weighted"
    return SoftLabelShape(
        rows=rows,
        classes=classes,
        scores=release.scores,
        clip=Clip(release.clip, release.clip_norm, release.clip_unit),
        weight_cap=release.weight_cap if weighted else None,
    )


def _refuse_pairs(experiment: Experiment) -> None:
    """Refuse settings that are each allowed and cannot go together."""
    release, privacy = experiment.release, experiment.privacy
    if experiment.student.consensus == "weighted":
        if release.scores == "votes":
            raise SettingError("votes are counted alike: set another student.consensus, or other release.scores")
        if privacy.dp_sgd and privacy.neighbours == "add_remove":
            raise SettingError(
                "student.consensus = 'weighted' tells how many examples clients hold, and an add/remove ε does not pay "
                "for it; set privacy.neighbours = 'zero_out' (that number is public then) or 'replace_one'"
            )
    if experiment.cohort.sampling_rate < 1 and privacy.client_neighbours != "zero_out":
        raise SettingError(
            "cohort.sampling_rate below 1 is accounted for under privacy.client_neighbours = 'zero_out' only; set that"
        )
    if experiment.student.denoise and (experiment.student.consensus == "weighted" or experiment.strategy == "pate"):
        raise SettingError(
            "student.denoise smooths means whose noise variance is known; set strategy = 'distil', and another "
            "student.consensus than 'weighted'"
        )
    if experiment.strategy == "pate" and release.scores != "votes":
        raise SettingError("strategy = 'pate' counts votes; set release.scores = 'votes'")
