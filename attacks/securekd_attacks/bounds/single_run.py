"""Lower bounds on ε from a single training run, in which many canaries were each put in or left out by a fair coin."""

import math
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from scipy import special

from securekd_attacks.bounds.assumptions import (
    ASSUMES_BERNOULLI_INCLUSION,
    ASSUMES_BLIND_GUESSES,
    ASSUMES_GAUSSIAN,
    ASSUMES_PURE_HYPOTHESIS,
    NOT_SAFETY,
    assumes_delta,
)
from securekd_attacks.bounds.gaussian import check_positive_delta, gaussian_epsilon
from securekd_attacks.bounds.search import last_refuted
from securekd_attacks.inputs import FloatArray, check_confidence, check_counts, check_delta, check_epsilon

DELTA_COST_TO_WARN = 0.1
"""The share of the bound, taken at δ = 0, which δ may cost before the result says so."""


@dataclass(frozen=True)
class OneRunBound:
    """A lower bound on ε from the guesses of one run.

    Attributes:
        epsilon_lower: at least 0, finite; with the stated confidence, the mechanism's ε at this δ is no smaller.
        epsilon_lower_pure: the same at δ = 0: what the guesses would show if δ cost nothing.
        delta: the δ it belongs to.
        confidence: one-sided.
        canaries: how many a coin was thrown for.
        guesses: for how many of them the adversary did not abstain.
        correct: how many guesses were right.
        assumptions: what must hold for the bound to hold, one sentence each.
        warnings: what keeps this bound from saying more, one sentence each; may be empty.
    """

    epsilon_lower: float
    epsilon_lower_pure: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class OneRunFdpBound:
    """A lower bound on μ, and so on ε, from one run of a mechanism whose trade-off is taken to be Gaussian.

    Attributes:
        epsilon_lower: at least 0, finite: the ε of a Gaussian mechanism with `mu_lower` at this δ.
        mu_lower: at least 0, finite; with the stated confidence, a Gaussian mechanism's μ is no smaller.
        delta: the δ that `epsilon_lower` belongs to.
        confidence: one-sided.
        canaries: how many a coin was thrown for.
        guesses: for how many of them the adversary did not abstain.
        correct: how many guesses were right.
        assumptions: what must hold for the bound to hold, one sentence each.
    """

    epsilon_lower: float
    mu_lower: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    assumptions: tuple[str, ...]


def one_run(
    canaries: SupportsIndex, guesses: SupportsIndex, correct: SupportsIndex, delta: float, confidence: float = 0.95
) -> OneRunBound:
    """Lower bound on ε from one training run (Steinke, Nasr and Jagielski 2023, theorem 5.2).

    The largest ε found that `one_run_p_value` refutes at 1 − confidence. O(guesses), 0.2 s at 100,000.

    Args:
        canaries: at least 1, each included by a fair coin.
        guesses: 1 to `canaries`; an adversary may abstain from the rest.
        correct: 0 to `guesses`.
        delta: in [0, 1). The penalty grows with 2 · canaries · δ; see `epsilon_lower_pure`.
        confidence: in (0, 1), one-sided.

    Raises:
        BadCounts: the counts are impossible.
        BadSetting: δ or the confidence is out of range.
    """
    delta, confidence = check_delta(delta), check_confidence(confidence)
    canaries, guesses, correct = _check_guesses(canaries, guesses, correct)
    pure = _one_run_epsilon(canaries, guesses, correct, 0.0, confidence)
    found = pure if delta == 0.0 else _one_run_epsilon(canaries, guesses, correct, delta, confidence)
    costly = found < (1.0 - DELTA_COST_TO_WARN) * pure
    return OneRunBound(
        epsilon_lower=found,
        epsilon_lower_pure=pure,
        delta=delta,
        confidence=confidence,
        canaries=canaries,
        guesses=guesses,
        correct=correct,
        assumptions=(
            ASSUMES_BERNOULLI_INCLUSION,
            ASSUMES_BLIND_GUESSES,
            ASSUMES_PURE_HYPOTHESIS,
            assumes_delta(delta),
            NOT_SAFETY,
        ),
        warnings=(
            f"δ costs this bound {pure - found:.3g} of {pure:.3g}: its penalty grows with 2mδ = "
            f"{2 * canaries * delta:.3g}. A smaller δ, or fewer canaries, would show more.",
        )
        if costly
        else (),
    )


def one_run_p_value(
    canaries: SupportsIndex, guesses: SupportsIndex, correct: SupportsIndex, epsilon: float, delta: float
) -> float:
    """The largest chance of so many correct guesses under (ε, δ)-DP (Steinke et al. 2023, theorem 5.2).

    It is β + 2mδα with W ~ Binomial(guesses, e^ε/(1 + e^ε)), β = P[W ≥ v] and α = max_i P[v > W ≥ v − i]/i, for v
    correct guesses among m canaries.

    Args:
        canaries: at least 1, each included by a fair coin.
        guesses: 1 to `canaries`.
        correct: 0 to `guesses`.
        epsilon: the hypothesis, at or above 0; infinity allows everything.
        delta: the hypothesis, in [0, 1).

    Returns:
        In [0, 1].

    Raises:
        BadCounts: the counts are impossible.
        BadSetting: ε or δ is out of range.
    """
    epsilon, delta = check_epsilon(epsilon), check_delta(delta)
    canaries, guesses, correct = _check_guesses(canaries, guesses, correct)
    return _p_value(canaries, guesses, correct, epsilon, delta, _log_choices(guesses, correct))


def one_run_fdp(
    canaries: SupportsIndex, guesses: SupportsIndex, correct: SupportsIndex, delta: float, confidence: float = 0.95
) -> OneRunFdpBound:
    """Lower bound on μ from one run, if the trade-off is Gaussian (Mahloujifar, Melis and Chaudhuri 2024).

    For an f-DP mechanism let h_i and r_i be the expected share of canaries, guessed wrong and right, over the outcomes
    with i correct guesses or more. Then r_{i+1} ≤ 1 − f(h_i), so that P[correct guesses ≥ c] = 1 − confidence would
    force more outcomes into being, step by step from c down, and a total beyond guesses/canaries refutes f (their
    algorithm 3). Here f is the trade-off of N(0, 1) against N(μ, 1).

    Args:
        canaries: at least 1, each included by a fair coin.
        guesses: 1 to `canaries`.
        correct: 0 to `guesses`.
        delta: in (0, 1): a Gaussian mechanism has no finite ε at 0.
        confidence: in (0, 1), one-sided.

    Raises:
        BadCounts: the counts are impossible.
        BadSetting: δ or the confidence is out of range.
    """
    delta, confidence = check_positive_delta(delta), check_confidence(confidence)
    canaries, guesses, correct = _check_guesses(canaries, guesses, correct)
    error = 1.0 - confidence
    mu = last_refuted(lambda mu: _refutes_gaussian(mu, guesses / canaries, guesses, correct, error))
    return OneRunFdpBound(
        epsilon_lower=gaussian_epsilon(mu, delta),
        mu_lower=mu,
        delta=delta,
        confidence=confidence,
        canaries=canaries,
        guesses=guesses,
        correct=correct,
        assumptions=(
            ASSUMES_GAUSSIAN,
            ASSUMES_BERNOULLI_INCLUSION,
            ASSUMES_BLIND_GUESSES,
            assumes_delta(delta),
            NOT_SAFETY,
        ),
    )


def _check_guesses(canaries: SupportsIndex, guesses: SupportsIndex, correct: SupportsIndex) -> tuple[int, int, int]:
    made, planted = check_counts("guesses of canaries", guesses, canaries)
    right, made = check_counts("correct guesses", correct, made)
    return planted, made, right


def _one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    choices = _log_choices(guesses, correct)
    error = 1.0 - confidence
    return last_refuted(lambda epsilon: _p_value(canaries, guesses, correct, epsilon, delta, choices) <= error)


def _p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float, choices: FloatArray) -> float:
    if correct == 0:
        return 1.0
    right = float(special.expit(epsilon))
    beta = float(special.betainc(correct, guesses - correct + 1.0, right))
    if delta == 0.0 or beta >= 1.0 or math.isinf(epsilon):
        return min(beta, 1.0)
    below = np.arange(correct - 1, -1, -1)
    log_right, log_wrong = special.log_expit(epsilon), special.log_expit(-epsilon)
    masses = np.exp(choices + below * log_right + (guesses - below) * log_wrong)
    alpha = float((np.cumsum(masses) / np.arange(1, correct + 1)).max())
    return min(1.0, beta + 2.0 * canaries * delta * alpha)


def _log_choices(guesses: int, correct: int) -> FloatArray:
    """The logarithm of guesses over k, for k from correct − 1 down to 0."""
    below = np.arange(correct - 1, -1, -1.0)
    result: FloatArray = (
        special.gammaln(guesses + 1.0) - special.gammaln(below + 1.0) - special.gammaln(guesses - below + 1.0)
    )
    return result


def _refutes_gaussian(mu: float, share: float, guesses: int, correct: int, error: float) -> bool:
    """Whether outcomes that the trade-off of μ forces into being exceed what there is.

    Once a step forces nothing, no later one does; so the loop ends after about as many steps as the number of correct
    guesses spreads, not after all of them.
    """
    right = share * error * correct / guesses
    wrong = share * error * (guesses - correct) / guesses
    for i in range(correct - 1, -1, -1):
        # 1 − f(x) = Φ(μ + Φ⁻¹(x)) has the inverse Φ(Φ⁻¹(x) − μ).
        forced = float(special.ndtr(special.ndtri(right) - mu)) - wrong
        if forced <= 0.0:
            break
        wrong += forced
        right += i / (guesses - i) * forced
        if right + wrong > share:
            return True
    return False
