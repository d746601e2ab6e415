"""Bounds: what ε a measured attack refutes, and what an attack may reach under a given ε.

Every lower bound carries its assumptions as sentences, to be printed beside it. A low lower bound is not safety: it
says what this attack could show with these records, and a better attack may show more.

`clopper_pearson` and `bayesian` hold for any mechanism, given a rule fixed in advance; `one_run` for any mechanism,
given canaries included by fair coins; `gdp` and `one_run_fdp` only if the mechanism's trade-off is Gaussian.
"""

from securekd_attacks.bounds.counts import CountsBound, auc_ceiling, ceiling, clopper_pearson, refuted_epsilon
from securekd_attacks.bounds.credible import BayesianBound, bayesian
from securekd_attacks.bounds.gaussian import GaussianBound, gaussian_epsilon, gaussian_tpr, gdp
from securekd_attacks.bounds.single_run import OneRunBound, OneRunFdpBound, one_run, one_run_fdp, one_run_p_value

__all__ = [
    "BayesianBound",
    "CountsBound",
    "GaussianBound",
    "OneRunBound",
    "OneRunFdpBound",
    "auc_ceiling",
    "bayesian",
    "ceiling",
    "clopper_pearson",
    "gaussian_epsilon",
    "gaussian_tpr",
    "gdp",
    "one_run",
    "one_run_fdp",
    "one_run_p_value",
    "refuted_epsilon",
]
