"""What clients are asked in a round: shapes, bounds and noise of their answers, from an experiment's settings."""

import math
from dataclasses import dataclass

import numpy as np

from securekd.errors import RunError, SettingError
from securekd.knowledge.bounded import Knowledge
from securekd.knowledge.soft_labels import Clip, SoftLabelShape
from securekd.knowledge.weights import WeightUpdateShape, trainable_weights
from securekd.models.shape import InputShape
from securekd.privacy.mechanisms import Mechanism, mechanism_named
from securekd.privacy.release import Exposure, ReleasePlan, calibrated
from securekd.settings.experiment import Experiment


@dataclass(frozen=True, eq=False)
class Question:
    """What clients are asked at a time, and how their answers are noised.

    Attributes:
        knowledge: shape and bounds of each client's answer.
        release: what is added to it, and what the ledger is told.
    """

    knowledge: Knowledge
    release: ReleasePlan

    @property
    def labels(self) -> SoftLabelShape:
        """The shape of scores on transfer rows, where that is what is asked."""
        if not isinstance(self.knowledge, SoftLabelShape):
            raise RunError("this strategy asks for scores on transfer rows, and the clients send something else")
        return self.knowledge

    @property
    def weights(self) -> WeightUpdateShape:
        """The shape of weight updates, where that is what is asked."""
        if not isinstance(self.knowledge, WeightUpdateShape):
            raise RunError("this strategy asks for weight updates, and the clients send something else")
        return self.knowledge

    def mean(self, total: np.ndarray, survivors: int) -> np.ndarray:
        """Mean knowledge from a sum of integers; under client sampling, of the clients expected to be in it."""
        expected = survivors * self.release.exposure.sampling_rate
        return self.knowledge.mean(total * self.release.mechanism.step, expected)

    def mean_variance(self, survivors: int) -> float:
        """Variance of the noise in an entry of the mean, where clients weigh the same."""
        rate = self.release.exposure.sampling_rate
        return self.release.mechanism.sigma**2 / (survivors * (self.knowledge.unit * rate) ** 2)


def questions(
    experiment: Experiment, transfer: int, shape: InputShape, exposure: Exposure
) -> tuple[Question, Question | None]:
    """What clients answer in a round, and the votes that confident GNMax counts before it (or None).

    Args:
        experiment: what was asked for.
        transfer: rows of the transfer set.
        shape: of inputs and classes.
        exposure: whose noise is unknown to whom.

    Raises:
        SettingError: for settings that contradict each other.
        BudgetError: for a client-level target that cannot be met.
    """
    release, pate, privacy = experiment.release, experiment.pate, experiment.privacy
    _refuse_pairs(experiment)
    shapes = _asked(experiment, transfer, shape)
    noise = experiment.fedavg.noise if experiment.strategy == "fedavg" else release.noise
    shares = (1 - pate.threshold_budget, pate.threshold_budget) if len(shapes) == 2 else (1.0,)

    def mechanisms(multiplier: float) -> list[Mechanism]:
        return [
            mechanism_named(
                release.mechanism, s.bounds, sigma=multiplier * s.bounds.l2 / math.sqrt(share), step=release.step
            )
            for s, share in zip(shapes, shares, strict=True)
        ]

    if privacy.client_epsilon is None:
        noisy = [mechanism_named(release.mechanism, s.bounds, sigma=noise * s.unit, step=release.step) for s in shapes]
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
    return asked[0], asked[1] if len(asked) == 2 else None


def _asked(experiment: Experiment, transfer: int, shape: InputShape) -> tuple[Knowledge, ...]:
    """What is asked in a round; for confident GNMax, also the votes that come first."""
    if experiment.strategy == "fedavg":
        return (_weights(experiment, shape),)
    pate, voting = experiment.pate, experiment.strategy == "pate"
    limit, name = (pate.answers, "pate.answers") if voting else (experiment.release.rows, "release.rows")
    rows = limit or transfer
    if rows > transfer:
        raise SettingError(f"{name} = {rows} is more than the {transfer} rows of the transfer set; lower it")
    confident = voting and pate.threshold is not None
    return tuple(_labels(experiment, count, shape.classes) for count in ((rows, transfer) if confident else (rows,)))


def _weights(experiment: Experiment, shape: InputShape) -> WeightUpdateShape:
    from securekd.models.registry import build

    return WeightUpdateShape(
        size=len(trainable_weights(build(experiment.student.model, shape, seed=0))),
        clip=experiment.fedavg.clip,
        weight_cap=experiment.release.weight_cap if experiment.student.consensus == "weighted" else None,
    )


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
    smooth = experiment.strategy not in ("pate", "fedavg") and experiment.student.consensus != "weighted"
    if experiment.student.denoise and not smooth:
        raise SettingError(
            "student.denoise smooths means whose noise variance is known; set strategy = 'distil', and another "
            "student.consensus than 'weighted'"
        )
    if experiment.strategy == "pate" and release.scores != "votes":
        raise SettingError("strategy = 'pate' counts votes; set release.scores = 'votes'")
    if experiment.strategy == "fedavg" and release.rows is not None:
        raise SettingError(f"strategy = 'fedavg' asks about no transfer rows; leave release.rows = {release.rows} out")
