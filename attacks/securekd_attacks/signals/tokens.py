"""Signals of one text under a language model, from its token log-probabilities. They keep the sign of their papers.

They stay finite and are never NaN: a token of probability zero counts as `LOG_ZERO`, and a text of one token has its
figures like any other. An empty text is refused, because it has none.
"""

import math
import zlib

import numpy as np
from numpy.typing import ArrayLike

from securekd_attacks.errors import BadProbabilities, BadSetting, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import LOG_ZERO, FloatArray

ABOVE_ONE = 1e-4
"""How far rounding may put a log-probability above zero."""

LEAST_DEVIATION = 1e-6
"""The least standard deviation that `min_k_plus_plus` divides by: a prediction that is all on one token has none."""


def mean_loss(token_log_probs: ArrayLike) -> float:
    """Mean loss of a text's tokens, the logarithm of its perplexity. Members tend to be low (Yeom et al. 2018).

    Args:
        token_log_probs: shape (T,), natural logarithms of the probability of each token given those before; T at
            least 1; −∞ allowed.

    Returns:
        In nats a token, in [0, 744.44].

    Raises:
        BadProbabilities: NaN, +∞ or above zero.
        ShapeMismatch: not one-dimensional.
        TooFewRecords: no token.
    """
    return -float(check_token_log_probs(token_log_probs).mean())


def min_k(token_log_probs: ArrayLike, k: float) -> float:
    """Mean log-probability of the least likely tokens, Min-K% Prob. Members tend to be *high* (Shi et al. 2024).

    Args:
        token_log_probs: shape (T,), as for `mean_loss`.
        k: fraction of the tokens, in (0, 1]; rounded down, but at least one token is taken.

    Returns:
        In nats, in [−744.44, 0].

    Raises:
        BadProbabilities, ShapeMismatch, TooFewRecords: as for `mean_loss`.
        BadSetting: k is out of range.
    """
    return _mean_of_least(check_token_log_probs(token_log_probs), k)


def min_k_plus_plus(token_log_probs: ArrayLike, means: ArrayLike, deviations: ArrayLike, k: float) -> float:
    """Mean of the least normalised token log-probabilities, Min-K%++. Members tend to be *high* (Zhang et al. 2025).

    A token's log-probability is compared to those of the other tokens that could have stood there:
    (log p(x_t) − μ_t)/σ_t, with mean and standard deviation of log p(z) over z ~ p at the same position.

    Args:
        token_log_probs: shape (T,), as for `mean_loss`.
        means: shape (T,), mean of the next token's log-probability under the model itself: minus the entropy.
        deviations: shape (T,), its standard deviation, at least 0; cut off below at 1e-6.
        k: fraction of the tokens, in (0, 1]; rounded down, but at least one token is taken.

    Returns:
        Finite.

    Raises:
        BadProbabilities: as for `mean_loss`, or means and deviations that are not finite or have the wrong sign.
        ShapeMismatch: lengths that differ.
        TooFewRecords: no token.
        BadSetting: k is out of range.
    """
    own = check_token_log_probs(token_log_probs)
    centre, spread = np.asarray(means, dtype=np.float64), np.asarray(deviations, dtype=np.float64)
    if centre.shape != own.shape or spread.shape != own.shape:
        raise ShapeMismatch(
            "token means and deviations must be one per token",
            value=(own.shape, centre.shape, spread.shape),
            remedy="pass three arrays of one length",
        )
    unfit = np.flatnonzero(~(np.isfinite(centre) & (centre <= ABOVE_ONE) & np.isfinite(spread) & (spread >= 0.0)))
    if unfit.size:
        raise BadProbabilities(
            f"moments of token {unfit[0]} are no moments of log-probabilities",
            value=(float(centre[unfit[0]]), float(spread[unfit[0]])),
            remedy="pass finite means at or below 0 and finite deviations at or above 0",
        )
    return _mean_of_least((own - centre) / np.maximum(spread, LEAST_DEVIATION), k)


def zlib_ratio(token_log_probs: ArrayLike, text: str) -> float:
    """Log-perplexity over the text's zlib entropy. Members tend to be low (Carlini et al. 2021, section 5.2).

    Args:
        token_log_probs: shape (T,), as for `mean_loss`.
        text: what was scored; compressed as UTF-8.

    Returns:
        In nats a token and a byte of the compressed text, at least 0.

    Raises:
        BadProbabilities, ShapeMismatch, TooFewRecords: as for `mean_loss`.
    """
    return mean_loss(token_log_probs) / len(zlib.compress(text.encode("utf-8", errors="surrogatepass")))


def check_token_log_probs(token_log_probs: ArrayLike) -> FloatArray:
    """Give back one text's token log-probabilities as float64 in [`LOG_ZERO`, 0], shape (T,), T at least 1.

    Raises:
        ShapeMismatch: not one-dimensional.
        TooFewRecords: no token.
        BadProbabilities: NaN, +∞, above zero, or no real numbers.
    """
    array = np.asarray(token_log_probs)
    if array.ndim != 1:
        raise ShapeMismatch(
            "token log-probabilities must be one-dimensional", value=array.shape, remedy="pass one text at a time"
        )
    if array.size == 0:
        raise TooFewRecords("a text without tokens", value=array.shape, remedy="leave empty texts out")
    if array.dtype.kind != "f":
        raise BadProbabilities("log-probabilities must be floats", value=array.dtype, remedy="pass float32 or float64")
    array = array.astype(np.float64)
    bad = np.flatnonzero(~(array <= ABOVE_ONE))
    if bad.size:
        raise BadProbabilities(
            f"token log-probability out of range at index {bad[0]}",
            value=float(array[bad[0]]),
            remedy="find out why the model gives it; -inf, a probability of zero, is allowed",
        )
    result: FloatArray = np.clip(array, LOG_ZERO, 0.0)
    return result


def _mean_of_least(values: FloatArray, k: float) -> float:
    if not 0.0 < k <= 1.0:
        raise BadSetting("k out of range", value=k, remedy="choose a fraction in (0, 1], such as 0.2")
    # 0.29 · 100 is rounded below 29; a tolerance of a few units in the last place takes the whole number meant.
    count = max(1, math.floor(k * values.size * (1.0 + 1e-12)))
    return float(np.partition(values, count - 1)[:count].mean())
