"""One client's release in a run: the mechanism, whose noise each view does not know, and the ledger's entries.

The events state the noise that each view does *not* know: one client's own alone where the server sees single releases,
and that of the fewest honest survivors where it sees sums.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securekd.errors import BudgetError
from securekd.privacy.accountant import UnprovableError, compose_epsilon, smallest_within
from securekd.privacy.events import Entry, ReleaseEvent, Unit, UnprotectedEvent, View
from securekd.privacy.mechanisms import Mechanism
from securekd.randomness import Csprng

ClientNeighbours = Literal["zero_out", "replace_one"]
ReleasePhase = Literal["threshold", "release"]

HIGHEST_MULTIPLIER = 1e6
# The largest distance between two clients' vectors, over the bound of one.
DISTANCE: dict[ClientNeighbours, float] = {"zero_out": 1.0, "replace_one": 2.0}


@dataclass(frozen=True)
class Exposure:
    """Under which relation a release counts, and for each view how much of its noise that view does not know.

    Attributes:
        neighbours: the neighbouring relation of clients.
        unknown_shares: clients' noises, in what a view sees, that it does not know; 0 where all may be known.
        sampling_rate: probability with which a client sends its vector in a round, and not zeros. It tosses the coin
            itself and sends noise either way, so no view sees how it fell.
    """

    neighbours: ClientNeighbours
    unknown_shares: dict[View, int]
    sampling_rate: float = 1.0


@dataclass(frozen=True)
class ReleasePlan:
    """What each client does to its vector, and what the ledger is told of it.

    Attributes:
        mechanism: adds the noise.
        exposure: under which relation it counts, and whose noise is unknown to whom.
        unit: whose vectors are a neighbour's: a client's, or an example's where the bounds are those of one.
    """

    mechanism: Mechanism
    exposure: Exposure
    unit: Unit = "client"

    def draw(self, vector: np.ndarray, randomness: Csprng) -> np.ndarray:
        """What one client sends: integers (d,) of its bounded vector, or of zeros where its secret coin says so.

        Args:
            vector: float64 (d,), within the mechanism's bounds.
            randomness: secret stream, for the coin, the rounding and the noise.

        Raises:
            RunError: if the vector is not bounded as agreed; nothing is released then.
        """
        sampled = len(randomness.poisson_sample(1, self.exposure.sampling_rate))
        return self.mechanism.release(sampled * vector, randomness)

    def entries(
        self,
        client: str,
        round_number: int,
        transfer: str | None = None,
        phase: ReleasePhase = "release",
        exchange: int = 1,
    ) -> list[Entry]:
        """The ledger's entries for one release of one client, one for each view."""
        return [
            Entry(
                client=client,
                round=round_number,
                phase=phase,
                unit=self.unit,
                neighbours=self.exposure.neighbours,
                views=(view,),
                event=release_event(self.mechanism, self.exposure, view),
                transfer=transfer,
                exchange=exchange,
            )
            for view in self.exposure.unknown_shares
        ]


def release_event(mechanism: Mechanism, exposure: Exposure, view: View) -> ReleaseEvent | UnprotectedEvent:
    """What one release is for one view."""
    shares = exposure.unknown_shares[view]
    if shares == 0:
        return UnprotectedEvent(why="nobody's noise is unknown in this view: every other client may collude")
    event = mechanism.event(shares, DISTANCE[exposure.neighbours], exposure.sampling_rate)
    return event or UnprotectedEvent(
        why="the releases carry no noise (release.noise, or for weights fedavg.noise, is 0)"
    )


def unknown_shares(*, sums_only: bool, threshold: int, colluders: int) -> dict[View, int]:
    """How many clients' noises are unknown to each view, at worst: those of the fewest honest clients in a sum.

    Args:
        sums_only: whether the server sees only sums; else it sees every single release.
        threshold: fewest survivors in a sum.
        colluders: clients that may tell what noise they drew, or leave it out, which nobody can see; a participant
            counts as one itself.
    """
    honest = max(0, threshold - colluders)
    return {
        "server": honest if sums_only else 1,
        "clients": max(0, threshold - max(colluders, 1)),
        "public": honest,
    }


def calibrated(
    mechanisms: Callable[[float], Sequence[Mechanism]],
    exposure: Exposure,
    *,
    lowest: float,
    epsilon: float,
    delta: float,
    rounds: int,
) -> float:
    """The smallest noise multiplier (to 0.01%) with which `rounds` rounds are (ε, δ)-DP in the server's view.

    Args:
        mechanisms: what each client releases in one round, by noise multiplier.
        exposure: whose noise is unknown.
        lowest: the smallest multiplier that is tried.
        epsilon: the target.
        delta: its δ.
        rounds: how often.

    Raises:
        BudgetError: if no client's noise is unknown to the server, or the noise would be out of range.
    """
    if exposure.unknown_shares["server"] == 0:
        raise BudgetError("privacy.client_epsilon needs a survivor that does not collude; lower cohort.colluders")

    def cost(multiplier: float) -> float:
        events = [release_event(m, exposure, "server") for m in mechanisms(multiplier)]
        try:
            return compose_epsilon(events * rounds, exposure.neighbours, delta)
        except UnprovableError:
            return math.inf

    if cost(lowest) <= epsilon:
        return lowest
    found = smallest_within(cost, epsilon, low=lowest, high=2 * lowest, highest=HIGHEST_MULTIPLIER, ratio=1.0001)
    if found is None:
        raise BudgetError(
            f"privacy.client_epsilon = {epsilon} at δ = {delta} cannot be met in {rounds} rounds; raise it, lower "
            "rounds, or have more clients and a higher cohort.threshold"
        )
    return found
