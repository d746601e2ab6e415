"""Attacks: from what an adversary sees to one score per record, turned so that higher = more likely a member."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from securekd_attacks.errors import MissingAccess, ShapeMismatch
from securekd_attacks.inputs import FloatArray, finite_scores
from securekd_attacks.scores import MembershipScores, Provenance
from securekd_attacks.signals import classes as compute
from securekd_attacks.signals.access import Access, Signals, check_disjoint


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
