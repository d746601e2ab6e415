"""Signals: one number per record, computed from a model's log-probabilities. They keep the sign of their papers.

A log-probability of −∞ is legal: the model gave the class a probability of zero. Logarithms are cut off at
`LOG_ZERO`, the logarithm of the smallest positive float64, because anything below is a probability that float64
cannot tell from zero. So every signal is finite, and depends on nothing but its own record.

Signals of texts (`min_k`, `min_k_plus_plus`, `zlib_ratio`, `mean_loss`) take one text's token log-probabilities.
"""

from securekd_attacks.inputs import LOG_ZERO
from securekd_attacks.signals.classes import (
    ROW_SUM_TOLERANCE,
    check_labels,
    check_log_probs,
    cross_entropy_loss,
    entropy,
    modified_entropy,
    scaled_logit,
)
from securekd_attacks.signals.tokens import mean_loss, min_k, min_k_plus_plus, zlib_ratio

__all__ = [
    "LOG_ZERO",
    "ROW_SUM_TOLERANCE",
    "check_labels",
    "check_log_probs",
    "cross_entropy_loss",
    "entropy",
    "mean_loss",
    "min_k",
    "min_k_plus_plus",
    "modified_entropy",
    "scaled_logit",
    "zlib_ratio",
]
