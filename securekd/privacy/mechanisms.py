"""Release mechanisms: a bounded vector in, noisy integers on the encoding grid out, and the event of what was done.

All stand behind `Mechanism`. The integer mechanisms round first, conditionally, so that the rounded vector's norm has
a bound that always holds, and then add integer noise. The Gaussian is there for comparison: it is drawn in floating
point, whose low bits can give a value away (Mironov 2012), and is rounded afterwards.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np

from securekd.errors import RunError, SettingError
from securekd.plugins import is_plugin, load_plugin
from securekd.privacy.events import DiscreteGaussianEvent, GaussianEvent, ReleaseEvent, SkellamEvent
from securekd.privacy.noise import Law, NoiseTable, noise_table, total_variation
from securekd.randomness import Csprng
from securekd_protocols import FixedPoint, ProtocolError

MechanismName = Literal["skellam", "discrete_gaussian", "gaussian"]

# Rounding is tried anew until the norm is below a bound that it exceeds with at most this probability. Kairouz, Liu
# and Steinke 2021 (section 2.2) take the same: two or three tries, for a bound close to the vector's own norm.
ROUNDING_FAILURE = math.exp(-0.5)

# In floating point the encoding has room for this tail; values beyond it (probability 4e-33) are clamped.
TAIL_DEVIATIONS = 12.0


@dataclass(frozen=True)
class Bounds:
    """What bounds one client's vector, in the data's own unit; also its distance from a client that sends zeros.

    Attributes:
        l2: L2 norm at most.
        l1: L1 norm at most.
        entry: absolute value of an entry at most.
        dimension: number of entries.
        whole: whether entries are whole multiples of the encoding step, so that nothing is rounded.
    """

    l2: float
    l1: float
    entry: float
    dimension: int
    whole: bool = False


class Mechanism(Protocol):
    """Adds noise to one client's vector."""

    @property
    def bounds(self) -> Bounds:
        """What bounds the vector."""

    @property
    def sigma(self) -> float:
        """Standard deviation of an entry's noise, in the data's unit; 0 without noise. Rounding is not counted."""

    @property
    def step(self) -> float:
        """The encoding step: what one integer stands for."""

    @property
    def magnitude(self) -> int:
        """Largest absolute integer that `release` can give, the noise's tail included."""

    def release(self, vector: np.ndarray, randomness: Csprng) -> np.ndarray:
        """Integers (int64, in steps) for a bounded float64 vector (d,).

        Raises:
            RunError: if the vector is not bounded as agreed, or not finite; nothing is released then.
        """

    def event(self, shares: int, factor: float = 1.0, sampling_rate: float = 1.0) -> ReleaseEvent | None:
        """What one release is, for a view that does not know the noise of `shares` clients; None without noise.

        Args:
            shares: at least 1.
            factor: largest distance between neighbours' vectors, over the bound: 1 for zero-out, 2 for replace-one.
            sampling_rate: see `GaussianEvent`.
        """


@dataclass(frozen=True)
class IntegerMechanism:
    """Conditional rounding, then integer noise."""

    law: Law
    bounds: Bounds
    sigma: float
    step: float

    @property
    def _table(self) -> NoiseTable | None:
        return noise_table(self.law, self.sigma / self.step) if self.sigma else None

    @property
    def magnitude(self) -> int:
        """The largest rounded entry and the largest noise."""
        table = self._table
        return math.ceil(self.bounds.entry / self.step) + (0 if table is None else table.reach)

    def release(self, vector: np.ndarray, randomness: Csprng) -> np.ndarray:
        """Round until the norm's bound holds, and add the noise."""
        refuse_unbounded(vector, self.bounds)
        integers = rounded(vector / self.step, self.l2, whole=self.bounds.whole, randomness=randomness)
        table = self._table
        return integers if table is None else integers + table.draw(len(integers), randomness)

    @property
    def l2(self) -> float:
        """L2 bound of the rounded vector, in steps."""
        return rounded_l2(self.bounds, self.step)

    def event(self, shares: int, factor: float = 1.0, sampling_rate: float = 1.0) -> ReleaseEvent | None:
        """Sensitivities are those of the rounded vector; an integer vector's L1 norm is at most its squared L2 norm."""
        if not self.sigma:
            return None
        rounding = 0.0 if self.bounds.whole else self.bounds.dimension
        l2 = factor * self.l2
        l1 = min(
            factor * (self.bounds.l1 / self.step + rounding), l2 * math.sqrt(self.bounds.dimension), factor * self.l2**2
        )
        kind = SkellamEvent if self.law == "skellam" else DiscreteGaussianEvent
        return kind(
            sigma=self.sigma / self.step,
            shares=shares,
            l2=l2,
            l1=max(l1, l2),
            dimension=self.bounds.dimension,
            total_variation=total_variation(self.sigma / self.step),
            sampling_rate=sampling_rate,
        )


@dataclass(frozen=True)
class GaussianMechanism:
    """Gaussian noise in float64, then unbiased rounding, which is post-processing of one release.

    Its ε holds for real numbers. Floating-point noise has a coarse grid and ends near nine deviations, and a sum of
    rounded releases is only nearly a rounded sum: it is credited with the sum of their noises where the noise is well
    above the grid. For comparison, not for use.
    """

    bounds: Bounds
    sigma: float
    step: float

    def __post_init__(self) -> None:
        if 0 < self.sigma < 2 * self.step:
            raise SettingError(
                f"a release noise of {self.sigma:.3g} is below two encoding steps of {self.step:.3g}: rounding would "
                f"undo what a sum of noises is credited for; lower release.step to {self.sigma / 2:.2g} or less"
            )

    @property
    def _grid(self) -> FixedPoint:
        return FixedPoint(clip_range=self.bounds.entry + TAIL_DEVIATIONS * self.sigma + self.step, step=self.step)

    @property
    def magnitude(self) -> int:
        """The largest entry with twelve deviations of noise."""
        return self._grid.magnitude

    def release(self, vector: np.ndarray, randomness: Csprng) -> np.ndarray:
        """Add the noise, clamp its tail, and round."""
        refuse_unbounded(vector, self.bounds)
        grid = self._grid
        noisy = vector + self.sigma * randomness.normal(len(vector)) if self.sigma else vector
        return grid.encode(np.clip(noisy, -grid.clip_range, grid.clip_range), randomness.read)

    def event(self, shares: int, factor: float = 1.0, sampling_rate: float = 1.0) -> ReleaseEvent | None:
        """The real-valued bound counts, since rounding comes after the noise."""
        if not self.sigma:
            return None
        multiplier = self.sigma * math.sqrt(shares) / (factor * self.bounds.l2)
        return GaussianEvent(noise_multiplier=multiplier, sampling_rate=sampling_rate)


class MakeMechanism(Protocol):
    """Makes a mechanism: what `release.mechanism = "module:attribute"` names."""

    def __call__(self, bounds: Bounds, sigma: float, step: float) -> Mechanism:
        """A mechanism for vectors within `bounds`, with noise of standard deviation `sigma`, in the data's unit."""


MECHANISMS: dict[MechanismName, MakeMechanism] = {
    "skellam": partial(IntegerMechanism, "skellam"),
    "discrete_gaussian": partial(IntegerMechanism, "discrete_gaussian"),
    "gaussian": GaussianMechanism,
}


def mechanism_named(name: str, bounds: Bounds, *, sigma: float, step: float | None = None) -> Mechanism:
    """The mechanism that a configuration names, with noise of standard deviation `sigma` in the data's unit.

    Without a step, whole vectors get 1, and others one so fine that rounding costs next to nothing. Nobody but its
    author can say that a mechanism of an own kind does what its event says; `audit.replays` measures it.

    Raises:
        SettingError: if there is no such mechanism.
    """
    make = load_plugin(name) if is_plugin(name) else MECHANISMS.get(name)  # type: ignore[call-overload]
    if make is None:
        raise SettingError(f"no mechanism is called {name!r}; take {', '.join(MECHANISMS)}, or module:attribute")
    chosen = 1.0 if bounds.whole else step or fine_step(bounds, sigma)
    mechanism: Mechanism = make(bounds, sigma, chosen)
    return mechanism


def fine_step(bounds: Bounds, sigma: float) -> float:
    """A power of two so fine that rounding adds at most 0.1% to the sensitivity, and small against the noise.

    With an entry's root mean square r = l2/√d and y = step/r, `rounded_l2` is at most l2/step times
    √(1 + y²(1/4 + 1/(2√d)) + y/√d), whatever the dimension d; y is where that root is 1.001. Noise of more than 2^14
    steps would make its tables long: against such noise, of more than 2^13 steps, a step may be coarser, and rounding
    add more.

    Raises:
        SettingError: for noise that is too small to be seen in 32 bits beside the vector.
    """
    root = math.sqrt(bounds.dimension)
    usual = bounds.l2 / root
    if not sigma:
        return _power_of_two(usual / 2**12)
    if sigma / 8 < usual / 2**31:
        raise SettingError(
            f"a release noise of {sigma:.3g} hides nothing of vectors of norm {bounds.l2:.3g}, and is too small to be "
            "drawn beside them; raise it, or take 0 for none"
        )
    share = 1.001**2 - 1
    square = 1 / 4 + 1 / (2 * root)
    finest = 2 * share / (1 / root + math.sqrt(1 / root**2 + 4 * square * share))
    return _power_of_two(max(min(usual * min(finest, 1 / 16), sigma / 8), sigma / 2**14))


def _power_of_two(largest: float) -> float:
    return float(2.0 ** math.floor(math.log2(largest)))


def refuse_unreachable(mechanism: Mechanism, clients: int, ring_bits: int = 32) -> None:
    """Prove that the sum over all clients, tails included, stays in half of the ring.

    Raises:
        SettingError: if it might not.
        BudgetError: if the noise is out of what its tables hold.
    """
    try:
        magnitude = mechanism.magnitude
    except ProtocolError as error:
        raise SettingError(f"release.step = {mechanism.step:.3g}: {error}") from error
    reach, half = magnitude * clients, 2 ** (ring_bits - 1)
    if reach >= half:
        raise SettingError(
            f"{clients} releases of up to {magnitude} steps of {mechanism.step:.3g} add up to {reach}, "
            f"beyond {ring_bits} bits; raise release.step to {mechanism.step * reach / half * 1.01:.2g} or more"
        )


def refuse_unbounded(vector: np.ndarray, bounds: Bounds) -> None:
    """Refuse a vector that is longer, in any of its norms, than what its noise was made for.

    Raises:
        RunError: with the norm that is too large.
    """
    if vector.shape != (bounds.dimension,):
        raise RunError(f"a vector of shape {vector.shape} is not bounded as agreed: ({bounds.dimension},) is")
    for order, bound in ((2, bounds.l2), (1, bounds.l1), (np.inf, bounds.entry)):
        norm = float(np.linalg.norm(vector, ord=order))
        if not norm <= bound * (1 + 1e-12):
            raise RunError(f"a vector of L{order} norm {norm:.6g} is not bounded by {bound:.6g}; nothing is released")


def rounded_l2(bounds: Bounds, step: float) -> float:
    """L2 norm of a conditionally rounded vector at most, in steps (Kairouz, Liu and Steinke 2021, equation 7)."""
    norm, root = bounds.l2 / step, math.sqrt(bounds.dimension)
    if bounds.whole:
        return norm
    likely = norm**2 + bounds.dimension / 4 + math.sqrt(2 * math.log(1 / ROUNDING_FAILURE)) * (norm + root / 2)
    return min(math.sqrt(likely), norm + root)


def rounded(steps: np.ndarray, l2: float, *, whole: bool, randomness: Csprng) -> np.ndarray:
    """Round a vector to integers, each entry up with probability equal to its fraction, until its norm is at most `l2`.

    The condition makes the result a little biased, and bounds it always (Kairouz, Liu and Steinke 2021, proposition
    22).

    Args:
        steps: float64 (d,), in steps.
        l2: the bound, from `rounded_l2`.
        whole: whether the entries are integers already.
        randomness: secret stream.

    Raises:
        RunError: if they are not although they should be.
    """
    if whole:
        integers = np.rint(steps)
        if np.abs(integers - steps).max(initial=0.0) > 1e-6 or np.linalg.norm(integers) > l2 * (1 + 1e-12):
            raise RunError("votes that are not whole numbers of steps; nothing is released")
        return np.asarray(integers, np.int64)
    floor = np.floor(steps)
    fraction = steps - floor
    while True:
        integers = floor + (randomness.uniform(len(steps)) < fraction)
        if float(np.linalg.norm(integers)) <= l2:
            return np.asarray(integers, np.int64)
