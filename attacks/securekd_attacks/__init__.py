"""Membership-inference audits: from what a model shows to figures with intervals, counts and assumptions.

What an adversary sees is a `Signals`; an `Attack` turns it into scores, higher = more likely a member; metrics and
bounds turn scores and counts into figures. Nothing here imports torch. Bad input raises an `AttackInputError`.
"""

from securekd_attacks.access import Access, Signals, check_disjoint
from securekd_attacks.attacks import Attack, EntropyAttack, LossAttack, MembershipScores, membership_scores
from securekd_attacks.bounds import CountsBound, auc_ceiling, ceiling, clopper_pearson
from securekd_attacks.errors import (
    AttackInputError,
    BadCounts,
    BadLabels,
    BadProbabilities,
    BadSetting,
    MissingAccess,
    NotFiniteScores,
    OverlappingRecords,
    ShapeMismatch,
    TooFewRecords,
)
from securekd_attacks.intervals import Interval, binomial_interval
from securekd_attacks.metrics import Auc, Roc, TprAtFpr, auc, nonmembers_to_resolve, roc, tpr_at_fpr
from securekd_attacks.signals import cross_entropy_loss, entropy, modified_entropy, scaled_logit
from securekd_attacks.split import SplitBound, split_bound

__all__ = [
    "Access",
    "Attack",
    "AttackInputError",
    "Auc",
    "BadCounts",
    "BadLabels",
    "BadProbabilities",
    "BadSetting",
    "CountsBound",
    "EntropyAttack",
    "Interval",
    "LossAttack",
    "MembershipScores",
    "MissingAccess",
    "NotFiniteScores",
    "OverlappingRecords",
    "Roc",
    "ShapeMismatch",
    "Signals",
    "SplitBound",
    "TooFewRecords",
    "TprAtFpr",
    "auc",
    "auc_ceiling",
    "binomial_interval",
    "ceiling",
    "check_disjoint",
    "clopper_pearson",
    "cross_entropy_loss",
    "entropy",
    "membership_scores",
    "modified_entropy",
    "nonmembers_to_resolve",
    "roc",
    "scaled_logit",
    "split_bound",
    "tpr_at_fpr",
]
