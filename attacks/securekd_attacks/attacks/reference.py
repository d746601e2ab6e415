"""Attacks that compare a record with others: with records of its class, or with reference models that never saw it.

An attack that has to learn something first is made by `fit`, from signals that are not scored later; what was learned
stands in its fields, and `score` looks at each record alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from securekd_attacks.attacks import lira, rmia
from securekd_attacks.errors import BadSetting, TooFewRecords
from securekd_attacks.inputs import FloatArray
from securekd_attacks.references.inclusion import BoolArray, check_references
from securekd_attacks.signals import classes as compute
from securekd_attacks.signals.access import Access, Signals, required

CALIBRATED = frozenset({Access.LOG_PROBS, Access.LABELS, Access.REFERENCES, Access.INCLUSION})


@dataclass(frozen=True, eq=False)
class PopulationAttack:
    """A low loss counts for as much as it is rare among non-members of the same class (Ye et al. 2022, attack P).

    The score is minus log of the p-value (1 + records of the class with no higher loss)/(1 + records of the class).

    Attributes:
        losses: ascending losses of the population, for each class an array of its own.
    """

    losses: tuple[FloatArray, ...]

    @classmethod
    def fit(cls, population: Signals) -> "PopulationAttack":
        """Sort the losses of records that the target was not trained with. Errors as in `score`."""
        log_probs, labels = population.require_log_probs("population"), population.require_labels("population")
        losses = compute.cross_entropy_loss(log_probs, labels)
        return cls(tuple(np.sort(losses[np.asarray(labels) == label]) for label in range(log_probs.shape[1])))

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "population"

    @property
    def needs(self) -> frozenset[Access]:
        """Log-probabilities and true labels."""
        return frozenset({Access.LOG_PROBS, Access.LABELS})

    def score(self, signals: Signals) -> FloatArray:
        """Give minus the logarithm of each record's p-value, shape (n,), at least 0.

        Raises:
            TooFewRecords: the population has no record of a class that is scored.
            MissingAccess, BadProbabilities, BadLabels, ShapeMismatch: as for the loss attack.
        """
        labels = signals.require_labels(self.name)
        losses = compute.cross_entropy_loss(signals.require_log_probs(self.name), labels)
        scores = np.empty_like(losses)
        for label in np.unique(labels):
            others = self.losses[label] if label < len(self.losses) else np.empty(0)
            if not others.size:
                raise TooFewRecords(
                    f"the population has no record of class {label}", value=0, remedy="fit it on every class"
                )
            rows = np.asarray(labels) == label
            no_higher = np.searchsorted(others, losses[rows], side="right")
            scores[rows] = -np.log((1.0 + no_higher) / (1.0 + others.size))
        return scores


@dataclass(frozen=True)
class ReferenceAttack:
    """How much surer the target is than models that never saw the record (Watson et al. 2022, difficulty calibration).

    The score is the record's scaled logit minus its mean over the reference models that were trained without it.
    """

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "reference"

    @property
    def needs(self) -> frozenset[Access]:
        """Log-probabilities, true labels, reference models' scaled logits and who was trained with what."""
        return CALIBRATED

    def score(self, signals: Signals) -> FloatArray:
        """Give the calibrated logit, shape (n,). Errors as in `lira.scores`, and MissingAccess."""
        target = _scaled_logit(signals, self.name)
        references, inclusion = _references(signals, self.name)
        own, matrix, included = check_references(target, references, inclusion)
        result: FloatArray = own - lira.side(matrix, included, 0.0, inside=False).mean
        return result


@dataclass(frozen=True)
class LiraAttack:
    """The likelihood-ratio attack on scaled logits (Carlini et al. 2022); `lira.scores` has the formulas.

    Attributes:
        mode: `online` or `offline`.
        variance: `per_example`; `pooled` and `residual` take many records together, so `fit` finds them beforehand,
            and each record is scored by the same ones.
        inside: standard deviation with a record; None per example, and offline.
        outside: standard deviation without it; None per example.
    """

    mode: lira.Mode = "online"
    variance: lira.Variance = "per_example"
    inside: float | None = None
    outside: float | None = None

    @classmethod
    def fit(cls, signals: Signals, variance: lira.Variance, mode: lira.Mode) -> "LiraAttack":
        """Find the spread of reference signals over all these records; only references and inclusion are used.

        Nothing of the target is looked at, so the very records that are scored later, members and non-members
        together, may be given.

        Raises:
            BadSetting: `per_example`, which shares nothing.
            TooFewRecords, ShapeMismatch, NotFiniteScores, MissingAccess: as for `score`.
        """
        if variance == "per_example":
            raise BadSetting("nothing to fit", value=variance, remedy="make the attack without fit")
        references, inclusion = _references(signals, "lira")
        _, matrix, included = check_references(np.zeros(np.shape(references)[1]), references, inclusion)
        outside = lira.spread(matrix, included, variance, inside=False)
        inside = lira.spread(matrix, included, variance, inside=True) if mode == "online" else None
        return cls(mode=mode, variance=variance, inside=inside, outside=outside)

    @property
    def name(self) -> str:
        """The name in tables and records, such as `lira_online_residual`."""
        return f"lira_{self.mode}_{self.variance}"

    @property
    def needs(self) -> frozenset[Access]:
        """Log-probabilities, true labels, reference models' scaled logits and who was trained with what."""
        return CALIBRATED

    def score(self, signals: Signals) -> FloatArray:
        """Give the LiRA scores, shape (n,).

        Raises:
            BadSetting: a shared variance was asked for and not fitted.
            MissingAccess, TooFewRecords, ShapeMismatch, NotFiniteScores: as for `lira.scores`.
        """
        target = _scaled_logit(signals, self.name)
        references, inclusion = _references(signals, self.name)
        if self.variance == "per_example":
            return lira.scores(target, references, inclusion, self.variance, self.mode)
        if self.outside is None or (self.mode == "online" and self.inside is None):
            raise BadSetting(
                "a variance that many records share must be found first",
                value=self.variance,
                remedy="use LiraAttack.fit",
            )
        _, matrix, included = check_references(target, references, inclusion)
        outside = lira.side(matrix, included, self.outside, inside=False)
        if self.mode == "offline":
            return lira.offline(target, outside)
        return lira.online(target, lira.side(matrix, included, self.inside, inside=True), outside)


@dataclass(frozen=True, eq=False)
class RmiaAttack:
    """The robust attack (Zarifzadeh et al. 2024); `rmia.scores` has the formulas.

    Attributes:
        population: shape (k,), the log-ratios of the population, ascending.
        mode: `online` or `offline`.
        gamma: at least 1.
        offline_a: in [0, 1].
    """

    population: FloatArray
    mode: rmia.Mode
    gamma: float
    offline_a: float

    @classmethod
    def fit(
        cls, population: Signals, mode: rmia.Mode = "offline", gamma: float = 2.0, offline_a: float = 0.3
    ) -> "RmiaAttack":
        """Take the ratios of records that the target was not trained with. Errors as in `rmia.scores`."""
        against = rmia.log_ratios(*_true_label_log_probs(population, "rmia"), mode="offline", offline_a=offline_a)
        return cls(population=np.sort(against), mode=mode, gamma=rmia.check_gamma(gamma), offline_a=offline_a)

    @property
    def name(self) -> str:
        """The name in tables and records: `rmia_online` or `rmia_offline`."""
        return f"rmia_{self.mode}"

    @property
    def needs(self) -> frozenset[Access]:
        """Log-probabilities, true labels, reference models' scaled logits and who was trained with what."""
        return CALIBRATED

    def score(self, signals: Signals) -> FloatArray:
        """Give the share of the population that each record dominates, shape (n,). Errors as in `rmia.scores`."""
        given = _true_label_log_probs(signals, self.name)
        ratios = rmia.log_ratios(*given, mode=self.mode, offline_a=self.offline_a)
        return rmia.dominated(ratios, self.population, self.gamma)


def _scaled_logit(signals: Signals, by: str) -> FloatArray:
    return compute.scaled_logit(signals.require_log_probs(by), signals.require_labels(by))


def _references(signals: Signals, by: str) -> tuple[NDArray[np.floating], BoolArray]:
    return (
        required(signals.references, Access.REFERENCES, by),
        required(signals.inclusion, Access.INCLUSION, by),
    )


def _true_label_log_probs(signals: Signals, by: str) -> tuple[FloatArray, FloatArray, BoolArray]:
    """log p(y) under the target and, from their scaled logits, under the references."""
    target = -compute.cross_entropy_loss(signals.require_log_probs(by), signals.require_labels(by))
    references, inclusion = _references(signals, by)
    return target, special.log_expit(references), inclusion
