"""What clients are asked in a round: shapes, bounds and noise of their answers, from an experiment's settings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securekd.errors import RunError, SettingError
from securekd.knowledge.bounded import Knowledge
from securekd.knowledge.soft_labels import Clip, SoftLabelShape
from securekd.knowledge.weights import WeightUpdateShape
from securekd.privacy.events import Unit
from securekd.privacy.mechanisms import Mechanism, mechanism_named
from securekd.privacy.release import Exposure, ReleasePhase, ReleasePlan, calibrated
from securekd.settings.experiment import Experiment


@dataclass(frozen=True, eq=False)
class Question:
    """What clients are asked at a time, and how their answers are noised.

    Attributes:
        knowledge: shape and bounds of each client's answer.
        release: what is added to it, and what the ledger is told.
        phase: of the round.
        exchanges: how often it is asked in a round.
    """

    knowledge: Knowledge
    release: ReleasePlan
    phase: ReleasePhase = "release"
    exchanges: int = 1

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


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a strategy wants to ask in a round, before its noise is settled.

    Attributes:
        phase: of the round.
        knowledge: shape and bounds of each client's answer.
        noise: standard deviation of each client's noise in the mean's unit, where no client-level ε sets it.
        share: of the round's privacy loss (of 1/σ²), where one does.
        exchanges: how often it is asked in a round.
        unit: whose share of a vector has the bounds: a client's, which is all of it, or an example's.
    """

    phase: ReleasePhase
    knowledge: Knowledge
    noise: float
    share: float = 1.0
    exchanges: int = 1
    unit: Unit = "client"


def questions(experiment: Experiment, wanted: Sequence[Wanted], exposure: Exposure) -> tuple[Question, ...]:
    """What is wanted, with its noise.

    Args:
        experiment: what was asked for.
        wanted: what its strategy asks in a round.
        exposure: whose noise is unknown to whom.

    Raises:
        BudgetError: for a client-level target that cannot be met.
        SettingError: for what protects whole clients, where a release protects examples.
    """
    release, privacy = experiment.release, experiment.privacy
    if any(one.unit == "example" for one in wanted):
        _refuse_whole_clients(experiment)

    def mechanisms(multiplier: float) -> list[Mechanism]:
        return [
            mechanism_named(
                release.mechanism,
                one.knowledge.bounds,
                sigma=multiplier * one.knowledge.bounds.l2 / math.sqrt(one.share),
                step=release.step,
            )
            for one in wanted
        ]

    if privacy.client_epsilon is None:
        noisy = [
            mechanism_named(
                release.mechanism,
                one.knowledge.bounds,
                sigma=one.noise * one.knowledge.unit,
                step=release.step,
            )
            for one in wanted
        ]
    else:
        noisy = mechanisms(
            calibrated(
                lambda multiplier: [
                    mechanism
                    for mechanism, one in zip(mechanisms(multiplier), wanted, strict=True)
                    for _ in range(one.exchanges)
                ],
                exposure,
                lowest=1e-3,
                epsilon=privacy.client_epsilon,
                delta=privacy.client_delta,
                rounds=experiment.rounds,
            )
        )
    return tuple(
        Question(one.knowledge, ReleasePlan(mechanism, exposure, one.unit), one.phase, one.exchanges)
        for one, mechanism in zip(wanted, noisy, strict=True)
    )


def _refuse_whole_clients(experiment: Experiment) -> None:
    if experiment.privacy.client_epsilon is not None:
        raise SettingError(
            f"privacy.client_epsilon = {experiment.privacy.client_epsilon} is for whole clients, and strategy "
            f"{experiment.strategy!r} releases what protects examples alone; leave it out"
        )
    if experiment.cohort.sampling_rate < 1:
        raise SettingError(
            f"cohort.sampling_rate = {experiment.cohort.sampling_rate} is accounted for whole clients, and strategy "
            f"{experiment.strategy!r} releases what protects examples; leave it out"
        )


def label_shape(experiment: Experiment, rows: int, classes: int) -> SoftLabelShape:
    """Shape and bounds of scores on so many transfer rows, as the settings have them."""
    release = experiment.release
    return SoftLabelShape(
        rows=rows,
        classes=classes,
        scores=release.scores,
        clip=Clip(release.clip, release.clip_norm, release.clip_unit),
        weight_cap=release.weight_cap if experiment.student.consensus == "weighted" else None,
    )


def answered_rows(limit: int | None, transfer: int, name: str) -> int:
    """How many of the transfer rows are asked about: all, or as many as the setting `name` says."""
    rows = limit or transfer
    if rows > transfer:
        raise SettingError(f"{name} = {rows} is more than the {transfer} rows of the transfer set; lower it")
    return rows


def refuse_pairs(experiment: Experiment) -> None:
    """Refuse settings that are each allowed and cannot go together, whatever the strategy."""
    release, privacy = experiment.release, experiment.privacy
    if experiment.student.consensus == "weighted":
        if release.scores == "votes":
            raise SettingError("votes are counted alike: set another student.consensus, or other release.scores")
        if privacy.dp_sgd and privacy.neighbours == "add_remove":
            raise SettingError(
                "student.consensus = 'weighted' tells how many examples clients hold, and an add/remove ε does not pay "
                "for it; set privacy.neighbours = 'zero_out' (that number is public then) or 'replace_one'"
            )
        refuse_denoise(experiment)
    if experiment.cohort.sampling_rate < 1 and privacy.client_neighbours != "zero_out":
        raise SettingError(
            "cohort.sampling_rate below 1 is accounted for under privacy.client_neighbours = 'zero_out' only; set that"
        )


def refuse_denoise(experiment: Experiment) -> None:
    """Refuse to smooth means whose noise is not the same in each entry, or that are none."""
    if experiment.student.denoise:
        raise SettingError(
            "student.denoise smooths means whose noise variance is known; set strategy = 'distil', and another "
            "student.consensus than 'weighted'"
        )


def refuse_settle(experiment: Experiment) -> None:
    """Refuse to settle rows by their neighbours where the strategy has no scores of every row."""
    if experiment.student.settle:
        raise SettingError(
            f"student.settle is for mean scores of transfer rows, and strategy {experiment.strategy!r} has none; set "
            "strategy = 'distil', or leave it out"
        )
