"""From the ledger to ε: the only place where a privacy loss is computed.

DP-SGD is composed by privacy loss distributions on a grid that follows the problem, or by Rényi divergences where those
give less, and checked against a saddle-point integral; Gaussian releases by their exact curve; integer noise, and
mixtures, by Rényi divergences. Clients hold disjoint records, so an example's
ε is the largest over clients, not their sum; a client's ε is its own too.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from scipy.optimize import brentq

from securekd.errors import BudgetError, RunError
from securekd.privacy.events import (
    UNITS,
    VIEWS,
    DpSgdEvent,
    Entry,
    GaussianEvent,
    IntegerNoiseEvent,
    Neighbours,
    ReleaseEvent,
    Unit,
    UnprotectedEvent,
    View,
)
from securekd.privacy.gaussian import gaussian_epsilon
from securekd.privacy.ledger import LedgerFile
from securekd.privacy.loss_distribution import LEAST_NOISE, loss_epsilon
from securekd.privacy.renyi import epsilon_of
from securekd.privacy.saddle_point import Cumulants, saddle_at, saddle_delta
from securekd.privacy.sampled_gaussian import DIRECTIONS, Pair, Steps

# What DP-SGD trains with where even less would do.
LEAST_NOISE_MULTIPLIER = 0.05
MOST_NOISE_MULTIPLIER = 1e6

# Share of δ that is set aside for what a drawn integer differs from its law.
SAMPLER_SHARE = 1e-6

Event = DpSgdEvent | ReleaseEvent | UnprotectedEvent


class UnprovableError(RunError):
    """A composition for which no ε can be given; the message says why."""


@dataclass(frozen=True)
class Guarantee:
    """An ε with all that it takes to mean something.

    Attributes:
        view: against whom.
        unit: what is protected.
        neighbours: the neighbouring relation; None where no guarantee is given.
        epsilon: the bound; None where none is given.
        delta: the δ that goes with it.
        events: number of ledger entries behind it, over all clients.
        why: the reason why none is given.
    """

    view: View
    unit: Unit
    neighbours: Neighbours | None
    epsilon: float | None
    delta: float
    events: int
    why: str | None


def guarantees(ledger: LedgerFile) -> tuple[Guarantee, ...]:
    """What the ledger proves, for each unit and view."""
    return tuple(guarantee(ledger, unit, view) for unit in UNITS for view in VIEWS)


def guarantee(ledger: LedgerFile, unit: Unit, view: View) -> Guarantee:
    """What the ledger proves for one unit in one view."""
    seen = [e for e in ledger.entries if view in e.views]
    if unit == "client" and any(e.unit == "example" and e.phase != "train" for e in seen):
        why = "what clients release protects single examples, and no whole client"
        return Guarantee(view, unit, None, None, ledger.delta[unit], len(seen), why)
    return _guarantee([e for e in seen if e.unit == unit], unit, view, ledger)


def example_epsilon(ledger: LedgerFile) -> float | None:
    """The ε for one example that holds wherever an adversary stands, or None."""
    found = [guarantee(ledger, "example", view).epsilon for view in VIEWS]
    known = [epsilon for epsilon in found if epsilon is not None]
    return max(known) if len(known) == len(found) else None


def compose_epsilon(events: Iterable[Event], neighbours: Neighbours, delta: float) -> float:
    """ε of one client's events together.

    Raises:
        UnprovableError: for a composition that this accountant does not know, or whose ε no sampler could carry.
    """
    counted = Counter(events)
    releases: dict[ReleaseEvent, int] = {
        e: n for e, n in counted.items() if isinstance(e, GaussianEvent | IntegerNoiseEvent)
    }
    if len(releases) == len(counted) and neighbours in ("zero_out", "replace_one"):
        return _release_epsilon(releases, neighbours, delta)
    steps = {e: n for e, n in counted.items() if isinstance(e, DpSgdEvent)}
    if len(steps) == len(counted):
        return _checked(tuple(sorted(steps.items(), key=repr)), neighbours, delta)
    raise UnprovableError(f"no accountant composes {sorted({e.kind for e in counted})} under {neighbours}")


def _release_epsilon(releases: dict[ReleaseEvent, int], neighbours: Neighbours, delta: float) -> float:
    if any(e.sampling_rate < 1 for e in releases) and neighbours != "zero_out":
        raise UnprovableError("client sampling is accounted for under zero_out only")
    if all(isinstance(e, GaussianEvent) and e.sampling_rate == 1 for e in releases):
        square = sum(n / e.noise_multiplier**2 for e, n in releases.items() if isinstance(e, GaussianEvent))
        return gaussian_epsilon(square**0.5, delta)
    epsilon = epsilon_of(releases, delta * (1 - SAMPLER_SHARE))
    # Noise within total variation v of its law turns (ε, δ) into (ε, δ + (1 + e^ε)·v).
    distance = sum(
        n * e.shares * e.dimension * e.total_variation for e, n in releases.items() if isinstance(e, IntegerNoiseEvent)
    )
    if distance and epsilon > math.log(SAMPLER_SHARE * delta / distance) - 1:
        raise UnprovableError(f"the noise hides nothing: ε would be {epsilon:.2g}, more than drawn noise can stand for")
    return epsilon


ALLOWANCE = 1 + 1e-5
"""What the exact curve, too, is rounded up by."""

NEXT_TO_ONE = 1e-6
"""Sampling rates nearer to 1 than this count as 1."""


def calibrate_dp_sgd(sampling_rate: float, steps: int, epsilon: float, delta: float, neighbours: Neighbours) -> float:
    """The smallest noise multiplier (to 0.01%) with which `steps` steps of DP-SGD stay within (ε, δ).

    Never below `LEAST_NOISE_MULTIPLIER`, which is all where `needs_no_noise`.

    Raises:
        BudgetError: if no noise up to 10⁶ would, or if δ alone, at or above ε, would be the larger leak.
    """

    def cost(noise_multiplier: float) -> float:
        event = DpSgdEvent(sampling_rate=sampling_rate, noise_multiplier=noise_multiplier, steps=steps)
        return _dp_sgd_epsilon(((event, 1),), neighbours, delta)

    def likely(noise_multiplier: float) -> float:
        pair = Pair(sampling_rate, noise_multiplier, DIRECTIONS[neighbours][0])
        return saddle_at([Cumulants.of(Steps(pair, steps), math.log(delta / steps) - 14)], delta).epsilon

    least, most = LEAST_NOISE_MULTIPLIER, MOST_NOISE_MULTIPLIER
    if needs_no_noise(sampling_rate, steps, delta) or cost(least) <= epsilon:
        return least
    if epsilon <= delta:
        raise BudgetError(
            f"ε = {epsilon:g} cannot be met in earnest at δ = {delta:g}, which would be the larger leak: "
            "raise privacy.epsilon, or lower privacy.delta below it"
        )
    guess = smallest_within(likely, epsilon, low=least, high=1.0, highest=most, ratio=1.01) or most
    low, high = max(guess / 1.01, least), guess * 1.01
    while cost(low) <= epsilon:
        low, high = max(low / 1.1, least), low
    while cost(high) > epsilon:
        low, high = high, 1.1 * high
        if high > most:
            raise BudgetError(
                f"ε = {epsilon} at δ = {delta} cannot be met with sampling rate {sampling_rate} and {steps} steps; "
                "raise privacy.epsilon, or lower training.sampling_rate or training.epochs"
            )
    found = math.exp(
        brentq(lambda s: min(cost(math.exp(s)) / epsilon, 10.0) - 1, math.log(low), math.log(high), xtol=5e-5)
    )
    while cost(found) > epsilon:
        found *= 1.0001
    return found


def needs_no_noise(sampling_rate: float, steps: int, delta: float) -> bool:
    """Whether an example is so rarely sampled, in all steps together, that δ covers giving it away."""
    return _ever_sampled({(sampling_rate, 1.0): steps}) <= delta


def smallest_within(
    cost: Callable[[float], float], target: float, *, low: float, high: float, highest: float, ratio: float
) -> float | None:
    """The smallest noise multiplier, to a factor of `ratio`, whose cost is at most `target`.

    Args:
        cost: ε by noise multiplier; it must not rise.
        target: the ε to stay within.
        low: taken to be too small.
        high: where the search begins; doubled until it is enough.
        highest: beyond it nothing is tried, and None is given.
        ratio: above 1.
    """
    while cost(high) > target:
        low, high = high, 2 * high
        if high > highest:
            return None
    while high / low > ratio:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if cost(middle) <= target else (middle, high)
    return high


@cache
def _dp_sgd_epsilon(events: tuple[tuple[DpSgdEvent, int], ...], neighbours: Neighbours, delta: float) -> float:
    merged = _merged(events)
    if _ever_sampled(merged) <= delta:
        return 0.0
    # Sampling only helps: laws that are mixed with one another are no easier to tell apart.
    distance = 2.0 if neighbours == "replace_one" else 1.0
    unsampled = distance * math.sqrt(sum(n / noise**2 for (_, noise), n in merged.items()))
    if all(rate == 1.0 for rate, _ in merged):
        return gaussian_epsilon(unsampled, delta) * ALLOWANCE
    by_losses = 0.0
    for steps in _directions(merged, neighbours):
        highest = sum(s.count * s.pair.highest_loss for s in steps)
        if highest > by_losses:
            by_losses = max(by_losses, min(highest, loss_epsilon(steps, delta)))
    if math.isfinite(by_losses):
        return min(by_losses, math.inf if neighbours == "replace_one" else _renyi_epsilon(merged, delta))
    return gaussian_epsilon(unsampled, delta)


def _checked(events: tuple[tuple[DpSgdEvent, int], ...], neighbours: Neighbours, delta: float) -> float:
    """ε, beside a second accountant's δ at it: one that errs on neither side. A larger ε is no disagreement."""
    epsilon, merged = _dp_sgd_epsilon(events, neighbours, delta), _merged(events)
    if epsilon > 0 and min(noise for _, noise in merged) >= LEAST_NOISE:
        lower = saddle_delta(_directions(merged, neighbours)[0], epsilon)
        if lower is not None and lower > delta * (1 + 1e-3):
            raise UnprovableError(f"two accountants disagree: δ = {lower:.4g} at ε = {epsilon:.4g}, not {delta:.4g}")
    return epsilon


def _merged(events: Iterable[tuple[DpSgdEvent, int]]) -> Counter[tuple[float, float]]:
    """Number of steps by sampling rate and noise multiplier."""
    merged: Counter[tuple[float, float]] = Counter()
    for event, times in events:
        # A larger rate is never more private (joint convexity), and next to 1 its distance from 1 has no digits left.
        rate = 1.0 if event.sampling_rate > 1 - NEXT_TO_ONE else event.sampling_rate
        merged[rate, event.noise_multiplier] += times * event.steps
    return merged


def _directions(merged: Mapping[tuple[float, float], int], neighbours: Neighbours) -> list[list[Steps]]:
    return [
        [Steps(Pair(rate, noise, direction), n) for (rate, noise), n in sorted(merged.items())]
        for direction in DIRECTIONS[neighbours]
    ]


def _ever_sampled(merged: Mapping[tuple[float, float], int]) -> float:
    """1 − Π(1 − rate)^number: the probability that an example is in any step."""
    if any(rate == 1 for rate, _ in merged):
        return 1.0
    return -math.expm1(sum(n * math.log1p(-rate) for (rate, _), n in merged.items()))


def _renyi_epsilon(merged: Mapping[tuple[float, float], int], delta: float) -> float:
    import dp_accounting as dpa

    renyi: Any = dpa.rdp.RdpAccountant(orders=range(2, 129))
    for (rate, noise), count in merged.items():
        gaussian = dpa.GaussianDpEvent(noise)
        renyi.compose(dpa.PoissonSampledDpEvent(rate, gaussian) if rate < 1 else gaussian, count)
    # Each divergence is a logarithm near 0, rounded to 1e-15 or so, and a sum of them that is rounded to 0 would count
    # as nothing at all: one more Gaussian, of divergence α/2 · 1e-14 for each step, covers what rounding took.
    renyi.compose(dpa.GaussianDpEvent(1e7 / math.sqrt(sum(merged.values()))))
    return float(renyi.get_epsilon(delta))


def _guarantee(entries: Sequence[Entry], unit: Unit, view: View, ledger: LedgerFile) -> Guarantee:
    delta = ledger.delta[unit]

    def none(why: str) -> Guarantee:
        return Guarantee(view, unit, None, None, delta, len(entries), why)

    if not entries:
        return none("nothing in the ledger protects this unit in this view")
    for entry in entries:
        if isinstance(entry.event, UnprotectedEvent):
            return none(entry.event.why)
    relations = {e.neighbours for e in entries}
    if len(relations) != 1:
        return none(f"the ledger mixes neighbouring relations: {sorted(relations)}")
    relation = relations.pop()
    clients = {e.client for e in entries}
    distinct = {tuple(sorted((e.event for e in entries if e.client == c), key=repr)) for c in clients}
    try:
        epsilon = max(compose_epsilon(events, relation, delta) for events in distinct)
        otherwise = f"ε = {epsilon:.4g}"
    except UnprovableError as error:
        if ledger.noise == "os":
            return none(str(error))
        otherwise = f"none either, since {error}"
    if ledger.noise == "seeded":
        return none(
            f"the noise is seeded: whoever knows the seed can take it away (with privacy.noise = 'os': {otherwise})"
        )
    return Guarantee(view, unit, relation, epsilon, delta, len(entries), None)
