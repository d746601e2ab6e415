"""The release: bounded vector → noise → integers on the encoding grid, and the events of what was done.

The Gaussian sits before the rounding, so for one release rounding and the final clamp are post-processing, and the
sensitivity that counts is the vector's own L2 bound. A sum of rounded releases is credited with the sum of their
noises only where the noise is well above the grid (it is refused otherwise), since rounding comes before the sum.
(Noise drawn in the integers will take the place of both behind the same function.) The events state the standard
deviation that each view does *not* know: one client's own alone where the server sees single releases, and that of
the fewest honest survivors where it sees sums.
"""

import math
from dataclasses import dataclass

import numpy as np

from securekd.errors import BudgetError, SettingError
from securekd.privacy.events import Entry, GaussianEvent, UnprotectedEvent, View
from securekd.privacy.gaussian import gaussian_mu
from securekd.randomness import Csprng
from securekd_protocols import FixedPoint, ProtocolError

# The encoding has room for this tail: values beyond it (probability 4e-33) are clamped, which costs nothing.
TAIL_DEVIATIONS = 12.0


@dataclass(frozen=True)
class NoisePlan:
    """How much noise each client adds, and how much of it each view does not know.

    Attributes:
        sensitivity: L2 bound of one client's vector, against a client that contributes zeros.
        sigma: standard deviation of each client's own noise, per entry.
        unknown_shares: for each view the number of clients' noises, in what it sees, that it does not know.
    """

    sensitivity: float
    sigma: float
    unknown_shares: dict[View, int]

    def entries(self, client: str, round_number: int) -> list[Entry]:
        """The ledger's entries for one release of one client; the neighbouring relation is zero-out."""
        return [
            Entry(
                client=client,
                round=round_number,
                phase="release",
                unit="client",
                neighbours="zero_out",
                views=(view,),
                event=self._event(shares),
            )
            for view, shares in self.unknown_shares.items()
        ]

    def _event(self, shares: int) -> GaussianEvent | UnprotectedEvent:
        if self.sigma == 0:
            return UnprotectedEvent(why="the releases carry no noise (release.noise = 0)")
        if shares == 0:
            return UnprotectedEvent(why="nobody's noise is unknown in this view: every other client may collude")
        return GaussianEvent(noise_multiplier=self.sigma * math.sqrt(shares) / self.sensitivity)


def unknown_shares(*, sums_only: bool, threshold: int, colluders: int) -> dict[View, int]:
    """How many clients' noises are unknown to each view, at worst.

    Args:
        sums_only: whether the server sees only sums; else it sees every single release.
        threshold: fewest survivors in a sum.
        colluders: clients that may tell what noise they drew; a participant counts as one itself.
    """
    return {
        "server": max(0, threshold - colluders) if sums_only else 1,
        "clients": max(0, threshold - max(colluders, 1)),
        "public": threshold,
    }


def calibrated_sigma(*, epsilon: float, delta: float, sensitivity: float, rounds: int, shares: int) -> float:
    """Each client's σ such that `rounds` releases are (ε, δ)-DP for a view that does not know `shares` noises.

    Raises:
        BudgetError: if no client's noise is unknown to that view.
    """
    if shares == 0:
        raise BudgetError("privacy.client_epsilon needs a survivor that does not collude; lower cohort.colluders")
    return sensitivity * math.sqrt(rounds / shares) / gaussian_mu(epsilon, delta)


def encoding(*, clip: float, sigma: float, step: float, clients: int) -> FixedPoint:
    """The grid that holds a noisy value with its tail.

    Raises:
        SettingError: if the sum over all clients could leave Z/2^32, or the noise is finer than the grid.
    """
    if 0 < sigma < 2 * step:
        raise SettingError(
            f"a release noise of {sigma:.3g} is below two encoding steps of {step:.3g}: rounding would undo "
            f"what a sum of noises is credited for; lower release.step to {sigma / 2:.2g} or less"
        )
    try:
        grid = FixedPoint(clip_range=clip + TAIL_DEVIATIONS * sigma + step, step=step)
    except ProtocolError as error:
        raise SettingError(f"release.step = {step:.3g} with release.clip = {clip:.3g}: {error}") from error
    if grid.magnitude * clients >= 2**31:
        raise SettingError(
            f"{clients} releases of up to {grid.clip_range:.4g} in steps of {step:.3g} do not fit 32 bits; "
            f"raise release.step to {grid.clip_range * clients / 2**30:.2g} or more"
        )
    return grid


def noised_integers(vector: np.ndarray, *, sigma: float, grid: FixedPoint, randomness: Csprng) -> np.ndarray:
    """Add the client's noise and round to the grid, without bias.

    Args:
        vector: float64 (d,), bounded.
        sigma: standard deviation of the noise.
        grid: the encoding.
        randomness: secret stream for noise and rounding.

    Returns:
        int64 (d,), in units of the grid's step.
    """
    noisy = vector + sigma * randomness.normal(len(vector)) if sigma else vector
    return grid.encode(np.clip(noisy, -grid.clip_range, grid.clip_range), randomness.read)
