"""One step of DP-SGD as a pair of laws on the line: the Poisson-subsampled Gaussian, for each neighbouring relation.

With g(x) = log(1 − q + q·exp((2x − 1)/2σ²)), the log-ratio of (1 − q)N(0, σ²) + qN(1, σ²) to N(0, σ²), the privacy loss
log P/Q of the dominating pair P, Q (Zhu, Dong and Wang 2022, theorem 11, and dp-accounting's for replace-one) is
    remove   g(x) where x has the mixture's law,
    add      −g(−x) where x has the law N(0, σ²),
    replace  g(x) − g(−x) where x has the mixture's law.
Each grows with x.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri_exp

from securekd.privacy.events import Neighbours

Direction = Literal["remove", "add", "replace"]

# A blanked-out example leaves the number of examples, which divides each step, as it is: else it is add/remove.
DIRECTIONS: dict[Neighbours, tuple[Direction, ...]] = {
    "add_remove": ("remove", "add"),
    "zero_out": ("remove", "add"),
    "replace_one": ("replace",),
}


@dataclass(frozen=True)
class Pair:
    """The two laws that one step makes of neighbouring data sets.

    Attributes:
        rate: sampling rate q, in (0, 1].
        noise: noise multiplier σ.
        direction: which of the two has the example.
    """

    rate: float
    noise: float
    direction: Direction

    @property
    def highest_loss(self) -> float:
        """What no loss exceeds: an example that was added was perhaps not sampled, whatever is seen."""
        return -math.log1p(-self.rate) if self.direction == "add" and self.rate < 1 else math.inf

    def loss(self, x: np.ndarray) -> np.ndarray:
        """Privacy loss log P/Q at x."""
        if self.direction == "remove":
            return self._ratio(x)
        if self.direction == "add":
            return -self._ratio(-x)
        return np.asarray(self._ratio(x) - self._ratio(-x))

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Logarithm of P's density at x."""
        normal: np.ndarray = -0.5 * (x / self.noise) ** 2 - math.log(self.noise * math.sqrt(2 * math.pi))
        return normal if self.direction == "add" else np.asarray(normal + self._ratio(x))

    def place(self, loss: np.ndarray) -> np.ndarray:
        """The x at which the loss is `loss`; infinite beyond the losses that occur."""
        if self.direction == "remove":
            return self._place(loss)
        if self.direction == "add":
            return -self._place(-loss)
        if self.rate == 1:
            return np.asarray(self.noise**2 * loss / 2)
        # sinh(loss/2)·(1 − q)·exp(1/2σ²)/q is sinh(x/σ² − loss/2); both in logarithms, for large ones.
        half = np.abs(loss) / 2
        with np.errstate(divide="ignore"):
            log_sinh = half + np.log(-np.expm1(-2 * half)) - math.log(2)
        log_y = log_sinh + math.log1p(-self.rate) - math.log(self.rate) + 0.5 / self.noise**2
        asinh = np.logaddexp(log_y, 0.5 * np.logaddexp(0.0, 2 * log_y))
        placed: np.ndarray = np.sign(loss) * self.noise**2 * (half + np.where(half > 0, asinh, 0.0))
        return placed

    def ends(self, log_tail: float) -> tuple[float, float]:
        """x beyond which, on each side, lies at most e^log_tail of P."""
        reach = -self.noise * float(ndtri_exp(log_tail))
        return -reach, reach + (0.0 if self.direction == "add" else 1.0)

    def _ratio(self, x: np.ndarray) -> np.ndarray:
        exponent: np.ndarray = (2 * x - 1) / (2 * self.noise**2)
        if self.rate == 1:
            return exponent
        small = np.log1p(self.rate * np.expm1(np.minimum(exponent, 1.0)))  # exact where the ratio is near 1
        large = np.logaddexp(math.log1p(-self.rate), math.log(self.rate) + exponent)
        return np.where(exponent < 1.0, small, large)

    def _place(self, ratio: np.ndarray) -> np.ndarray:
        if self.rate == 1:
            return np.asarray(self.noise**2 * ratio + 0.5)
        with np.errstate(divide="ignore", invalid="ignore"):
            small = np.log1p(np.maximum(np.expm1(np.minimum(ratio, 1.0)) / self.rate, -1.0))
            large = ratio - math.log(self.rate) + np.log1p(-(1 - self.rate) * np.exp(-np.maximum(ratio, 1.0)))
        return np.asarray(self.noise**2 * np.where(ratio < 1.0, small, large) + 0.5)


@dataclass(frozen=True)
class Steps:
    """So many steps of one pair."""

    pair: Pair
    count: int
