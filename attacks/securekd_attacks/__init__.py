"""Membership-inference audits: from what a model shows to figures with intervals, counts and assumptions.

What an adversary sees is a `Signals`; an `Attack` turns it into scores, higher = more likely a member; metrics and
bounds turn scores and counts into figures. Nothing here imports torch. Bad input raises an `AttackInputError`.
"""

from securekd_attacks import lira, rmia
from securekd_attacks.access import Access, Signals, check_disjoint
from securekd_attacks.attacks import Attack, EntropyAttack, LossAttack, MembershipScores, membership_scores
from securekd_attacks.bounds import (
    BayesianBound,
    CountsBound,
    GaussianBound,
    OneRunBound,
    OneRunFdpBound,
    auc_ceiling,
    bayesian,
    ceiling,
    clopper_pearson,
    gaussian_epsilon,
    gaussian_tpr,
    gdp,
    one_run,
    one_run_fdp,
    one_run_p_value,
)
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
from securekd_attacks.references import covered
from securekd_attacks.signals import (
    cross_entropy_loss,
    entropy,
    mean_loss,
    min_k,
    min_k_plus_plus,
    modified_entropy,
    scaled_logit,
    zlib_ratio,
)
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
    "BayesianBound",
    "CountsBound",
    "EntropyAttack",
    "GaussianBound",
    "Interval",
    "LossAttack",
    "MembershipScores",
    "MissingAccess",
    "NotFiniteScores",
    "OneRunBound",
    "OneRunFdpBound",
    "OverlappingRecords",
    "Roc",
    "ShapeMismatch",
    "Signals",
    "SplitBound",
    "TooFewRecords",
    "TprAtFpr",
    "auc",
    "auc_ceiling",
    "bayesian",
    "binomial_interval",
    "ceiling",
    "check_disjoint",
    "clopper_pearson",
    "covered",
    "cross_entropy_loss",
    "entropy",
    "gaussian_epsilon",
    "gaussian_tpr",
    "gdp",
    "lira",
    "mean_loss",
    "membership_scores",
    "min_k",
    "min_k_plus_plus",
    "modified_entropy",
    "nonmembers_to_resolve",
    "one_run",
    "one_run_fdp",
    "one_run_p_value",
    "rmia",
    "roc",
    "scaled_logit",
    "split_bound",
    "tpr_at_fpr",
    "zlib_ratio",
]
