"""Leakage as the page shows it: what was measured at each observation point, and what the proven ε would allow there.

A rate that the non-members cannot resolve is withheld here, so that no template can print it by mistake.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from securekd.privacy.events import View
from securekd.records.record import ALL_POINTS, Leakage, Point, Rate, Result
from securekd.report import numbers, wording
from securekd_attacks import auc_ceiling, ceiling

RATES: tuple[Literal["0.1", "0.01", "0.001"], ...] = ("0.1", "0.01", "0.001")

SUMS_ONLY = ("masking", "ckks", "bfv")
"""Aggregations that show the server sums; of any other the page assumes that each release is seen."""

RATE_NAMES = {"0.1": "10%", "0.01": "1%", "0.001": "0.1%"}


@dataclass(frozen=True)
class Ceiling:
    """The most that any attack can reach under a proven ε: the AUC, and the TPR at each rate of `RATES`."""

    epsilon: float
    auc: float
    rates: tuple[float, ...]


@dataclass(frozen=True)
class ShownRate:
    """A TPR with its interval, ready to print; both None where it is withheld."""

    value: str | None
    interval: str | None


@dataclass(frozen=True)
class AttackRow:
    """One attack at one point."""

    found: Leakage
    rates: tuple[ShownRate, ...]


@dataclass(frozen=True)
class PointOfRun:
    """One observation point: who stands there, what the attacks found, and the ceiling (None without a proven ε)."""

    point: Point
    name: str
    seen_by: str
    attacks: tuple[AttackRow, ...]
    ceiling: Ceiling | None


@dataclass(frozen=True)
class Course:
    """One attack at one point over the rounds: an AUC for each, in the order of `rounds_observed`."""

    name: str
    attack: str
    aucs: tuple[float | None, ...]


def points(result: Result) -> tuple[PointOfRun, ...]:
    """Every point that was attacked after the last round, in the order in which knowledge leaves a client."""
    # Seeded noise proves nothing, whatever ε the record holds.
    delta = example_delta(result) if result.environment.noise == "os" else None
    at_end = last_round(result)
    found = {point: tuple(x for x in at_end if x.point == point) for point in ALL_POINTS}
    return tuple(
        PointOfRun(
            point=point,
            name=wording.POINTS[point],
            seen_by=attacks[0].seen_by,
            attacks=tuple(AttackRow(x, tuple(_shown(x.tpr_at_fpr.get(rate)) for rate in RATES)) for x in attacks),
            ceiling=_ceiling(attacks, delta),
        )
        for point, attacks in found.items()
        if attacks
    )


def last_round(result: Result) -> tuple[Leakage, ...]:
    """What was measured after the last round."""
    last = max((x.round for x in result.leakage if x.round is not None), default=None)
    return tuple(x for x in result.leakage if x.round is None or x.round == last)


def rounds_observed(result: Result) -> tuple[int, ...]:
    """The rounds after which points were attacked."""
    return tuple(sorted({x.round for x in result.leakage if x.round is not None}))


def courses(result: Result) -> tuple[Course, ...]:
    """How the AUC went from round to round, where more than one was observed."""
    rounds = rounds_observed(result)
    if len(rounds) < 2:
        return ()
    found = {(x.point, x.attack, x.round): x.auc for x in result.leakage}
    attacks = list(dict.fromkeys(x.attack for x in result.leakage))
    return tuple(
        Course(wording.POINTS[point], attack, tuple(found.get((point, attack, n)) for n in rounds))
        for point in ALL_POINTS
        for attack in attacks
        if any((point, attack, n) in found for n in rounds)
    )


def common_ceiling(shown: tuple[PointOfRun, ...]) -> Ceiling | None:
    """The ceiling that holds at every point alike, or None."""
    ceilings = {point.ceiling for point in shown}
    return ceilings.pop() if len(ceilings) == 1 else None


def in_view(result: Result, view: View) -> Leakage | None:
    """The strongest attack on what a view consists of: the student, the sums, or without secure sums each release."""
    sums_only = result.experiment.get("aggregation") in SUMS_ONLY
    point = "student" if view == "public" else "client_release" if view == "server" and not sums_only else "aggregate"
    return max((x for x in last_round(result) if x.point == point), key=lambda x: x.auc, default=None)


def worst(result: Result) -> Leakage | None:
    """The attack with the largest AUC after the last round, wherever it stands; of several, the first."""
    return max(last_round(result), key=lambda x: x.auc, default=None)


def example_delta(result: Result) -> float | None:
    """The δ at which ε for examples is stated: the largest, should they differ, since it allows an attack most."""
    return max((g.delta for g in result.privacy.guarantees if g.unit == "example"), default=None)


def contradictions(result: Result) -> tuple[str, ...]:
    """Findings that cannot stand: a leak above the proven ε, and figures that contradict each other."""
    said = []
    for x in result.leakage:
        where = f"{x.attack}, {wording.POINTS[x.point].lower()}"
        if x.comparable and x.epsilon is not None and x.epsilon_lower > x.epsilon:
            said.append(
                f"More was found than was promised ({where}): the attack shows ε ≥ "
                f"{numbers.epsilon_lower(x.epsilon_lower)} with {x.confidence:.0%} confidence, above the promised "
                f"{numbers.epsilon(x.epsilon)}. Do not share the student before this is explained."
            )
        for fpr, rate in x.tpr_at_fpr.items():
            if x.auc < rate.value * (1 - float(fpr)) - 1e-9:
                said.append(
                    f"The record contradicts itself ({where}): an AUC of {numbers.area(x.auc)} cannot go with a "
                    f"true-positive rate of {numbers.percent(rate.value)} at {RATE_NAMES[fpr]} false positives."
                )
    return (*said, *_broken_promises(result))


def _broken_promises(result: Result) -> Iterator[str]:
    """Bounds of canaries and of replays that are above their ε."""
    found: list[tuple[str, Point, float, float | None, float]] = []
    if result.canaries is not None:
        found += [
            (f"{x.attack}, {x.kind} canaries", x.point, x.epsilon_lower, x.epsilon, x.confidence)
            for x in result.canaries.bounds
        ]
    for r in result.replays:
        for lower in (r.epsilon_lower, r.epsilon_lower_gaussian or 0.0):
            found.append(("replayed releases", r.point, lower, r.epsilon, r.confidence))
    for what, point, lower, epsilon, confidence in found:
        if epsilon is not None and lower > epsilon:
            yield (
                f"More was found than was promised ({what}, {wording.POINTS[point].lower()}): ε ≥ "
                f"{numbers.epsilon_lower(lower)} with {confidence:.0%} confidence, above the promised "
                f"{numbers.epsilon(epsilon)}. Do not share the student before this is explained."
            )


def _shown(rate: Rate | None) -> ShownRate:
    if rate is None or not rate.resolved:
        return ShownRate(None, None)
    return ShownRate(numbers.percent(rate.value), numbers.percent_range(rate.low, rate.high))


def _ceiling(attacks: tuple[Leakage, ...], delta: float | None) -> Ceiling | None:
    promised = [x.epsilon for x in attacks if x.epsilon is not None]
    if delta is None or len(promised) < len(attacks):
        return None
    epsilon = max(promised)
    return Ceiling(
        epsilon=epsilon,
        auc=auc_ceiling(epsilon, delta),
        rates=tuple(ceiling(epsilon, delta, float(rate)) for rate in RATES),
    )
