"""Attacks: from what an adversary sees to one score per record, turned so that higher = more likely a member."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from securekd_attacks import signals as compute
from securekd_attacks.access import Access, Signals, check_disjoint
from securekd_attacks.errors import BadSetting, MissingAccess, ShapeMismatch
from securekd_attacks.inputs import FloatArray, finite_scores


@runtime_checkable
class Attack(Protocol):
    """What every attack is. Write a class with these three members to add one of your own."""

    @property
    def name(self) -> str:
        """The name in tables and records."""

    @property
    def needs(self) -> frozenset[Access]:
        """The access without which `score` raises MissingAccess; what is not named here is not used."""

    def score(self, signals: Signals) -> FloatArray:
        """Give shape (n,): a finite score per record, from that record alone; higher = more likely a member."""


@dataclass(frozen=True)
class LossAttack:
    """Members have a lower loss (Yeom et al. 2018). The score is minus the cross-entropy, in nats."""

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "loss"

    @property
    def needs(self) -> frozenset[Access]:
        """Log-probabilities and true labels."""
        return frozenset({Access.LOG_PROBS, Access.LABELS})

    def score(self, signals: Signals) -> FloatArray:
        """Give minus the loss, shape (n,). Errors as in `signals.cross_entropy_loss`, and MissingAccess."""
        return -compute.cross_entropy_loss(signals.require_log_probs(self.name), signals.require_labels(self.name))


@dataclass(frozen=True)
class EntropyAttack:
    """Members get surer predictions (Song and Mittal 2021). The score is minus the entropy, in nats.

    One threshold holds for all classes, where the paper also tries one for each class.

    Attributes:
        modified: take the modified entropy, which needs the labels and tells sure and right from sure and wrong.
    """

    modified: bool = False

    @property
    def name(self) -> str:
        """The name in tables and records: `entropy` or `modified_entropy`."""
        return "modified_entropy" if self.modified else "entropy"

    @property
    def needs(self) -> frozenset[Access]:
        """Log-probabilities; the modified entropy also true labels."""
        return frozenset({Access.LOG_PROBS, Access.LABELS} if self.modified else {Access.LOG_PROBS})

    def score(self, signals: Signals) -> FloatArray:
        """Give minus the (modified) entropy, shape (n,). Errors as in `signals.entropy`, and MissingAccess."""
        log_probs = signals.require_log_probs(self.name)
        if self.modified:
            return -compute.modified_entropy(log_probs, signals.require_labels(self.name))
        return -compute.entropy(log_probs)


@dataclass(frozen=True)
class Provenance:
    """Where scores come from: what must be known to repeat them, and to know which bounds they can carry.

    Attributes:
        inclusion: how it was decided which records the target was trained with: `bernoulli` (a coin for each, as
            one-run bounds need it) or `split` (a fixed number drawn at once, or whatever was found).
        probability: of the coin; None for a split.
        seed: of the inclusion; None where it is unknown.
        split: which records were scored, such as `test` or `held-out half`.
        hashes: pairs of a name (`members`, `model`, `signals`, ...) and a hexadecimal SHA-256.
    """

    inclusion: Literal["bernoulli", "split"]
    probability: float | None = None
    seed: int | None = None
    split: str = ""
    hashes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.inclusion not in ("bernoulli", "split"):
            raise BadSetting("unknown inclusion", value=self.inclusion, remedy="say bernoulli or split")
        if self.inclusion == "bernoulli" and not (self.probability is not None and 0.0 < self.probability < 1.0):
            raise BadSetting("a coin needs a probability", value=self.probability, remedy="give it, in (0, 1)")


@dataclass(frozen=True, eq=False)
class MembershipScores:
    """The scores of both sides under one attack: what metrics and bounds take.

    Attributes:
        attack: the attack's name.
        members: shape (m,), finite, in the order of the records.
        nonmembers: shape (n,), finite, in the order of the records.
        provenance: where they come from; None where nobody said, and then no bound is given that depends on it.
    """

    attack: str
    members: FloatArray
    nonmembers: FloatArray
    provenance: Provenance | None = None


def membership_scores(
    attack: Attack, members: Signals, nonmembers: Signals, provenance: Provenance | None = None
) -> MembershipScores:
    """Run an attack on both sides; what is known of their origin goes along.

    Raises:
        MissingAccess: a side lacks something that the attack declares to need.
        OverlappingRecords: a record's id is on both sides.
        ShapeMismatch: the sides have different numbers of classes, or the attack gave another number of scores.
        TooFewRecords: a side has fewer than two records.
        NotFiniteScores: the attack gave NaN or an infinity.
    """
    check_disjoint(members, nonmembers)
    if members.log_probs is not None and nonmembers.log_probs is not None:
        classes = members.log_probs.shape[1:], nonmembers.log_probs.shape[1:]
        if classes[0] != classes[1]:
            raise ShapeMismatch("the sides differ in classes", value=classes, remedy="score both with the same target")
    return MembershipScores(
        attack=attack.name,
        members=_one_side(attack, members, "members"),
        nonmembers=_one_side(attack, nonmembers, "nonmembers"),
        provenance=provenance,
    )


def scores_by_membership(
    attack: str, scores: ArrayLike, membership: ArrayLike, provenance: Provenance | None = None
) -> MembershipScores:
    """Part scores of all records, as `lira.scores` gives them, into the two sides.

    Args:
        attack: the attack's name.
        scores: shape (n,), finite; higher = more likely a member.
        membership: shape (n,), booleans.
        provenance: where they come from.

    Raises:
        ShapeMismatch: the membership is not one boolean per score.
        TooFewRecords, NotFiniteScores: as for `membership_scores`.
    """
    values, mask = np.asarray(scores), np.asarray(membership)
    if mask.dtype != np.bool_ or mask.shape != values.shape:
        raise ShapeMismatch(
            "membership must be one boolean per score",
            value=(mask.shape, str(mask.dtype), values.shape),
            remedy="pass True for members",
        )
    return MembershipScores(
        attack=attack,
        members=finite_scores(values[mask], "members"),
        nonmembers=finite_scores(values[~mask], "nonmembers"),
        provenance=provenance,
    )


def _one_side(attack: Attack, signals: Signals, side: str) -> FloatArray:
    lacking = sorted(attack.needs - signals.available)
    if lacking:
        raise MissingAccess(
            f"the attack '{attack.name}' needs {' and '.join(lacking)} of the {side}",
            value="none",
            remedy="give it, or choose an attack without this need",
        )
    scores = finite_scores(attack.score(signals), side)
    if scores.size != signals.records:
        raise ShapeMismatch(
            f"the attack '{attack.name}' gave another number of scores than {side}",
            value=(scores.size, signals.records),
            remedy="give one per record",
        )
    return scores
