"""Observation points: which models an adversary holds at each of them after a round, and of whose records.

Where a point shows scores on the transfer set, or weight updates, and no model, the adversary makes a model of them,
exactly as the server does. What a client has before its clip, and before its noise, only its own process sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securekd.checkpoint import Arrays
from securekd.errors import RunError
from securekd.federation.rounds import RoundOutcome, Watched
from securekd.laboratory.plan import Plan, PlannedClient
from securekd.learning.tasks import Perform, TrainTask
from securekd.records.record import ALL_POINTS, POINTS, Point
from securekd.settings.models import Model


@dataclass(frozen=True, eq=False)
class Held:
    """One model that an adversary holds.

    Attributes:
        model: what to build.
        state: its weights.
        clients: numbers of the clients whose records it may give away.
    """

    model: Model
    state: Arrays
    clients: tuple[int, ...]


def points_of(plan: Plan) -> tuple[Point, ...]:
    """The points that a run observes."""
    if plan.experiment.audit.points == "final":
        return POINTS
    return tuple(p for p in ALL_POINTS if p != "aggregate_minus_colluders" or plan.experiment.cohort.colluders)


def observed(plan: Plan, outcome: RoundOutcome, perform: Perform) -> dict[Point, tuple[Held, ...]]:
    """The models at every point after a round.

    Args:
        plan: the run's plan.
        outcome: of the round.
        perform: carries out the adversary's own distillations.

    Raises:
        RunError: if the strategy does not say what clients answered before noise, where that is to be observed.
    """
    points = points_of(plan)
    everyone = tuple(range(len(plan.clients)))
    summed = tuple(i for i, c in enumerate(plan.clients) if c.name in outcome.answer.aggregate.survivors)
    student = plan.experiment.student.model
    made = [(point, clients, task) for point in points for clients, task in _made(plan, outcome, point, summed)]
    held: dict[Point, tuple[Held, ...]] = {
        "client_model": tuple(Held(c.model, outcome.clients[c.name], (i,)) for i, c in enumerate(plan.clients)),
        "student": (Held(student, outcome.student, everyone if outcome.number > 1 else summed),),
    }
    for (point, clients, _), saved in zip(made, perform([task for _, _, task in made]), strict=True):
        held[point] = (*held.get(point, ()), Held(student, saved.arrays, clients))
    return {point: held[point] for point in points if point in held}


def honest(plan: Plan, summed: Sequence[int]) -> tuple[int, ...]:
    """Of the clients in a sum, those that do not collude: the last ones of the sum are taken to."""
    return tuple(summed[: max(0, len(summed) - plan.experiment.cohort.colluders)])


def seen_by(plan: Plan, point: Point) -> str:
    """Who stands at a point in this run."""
    colluders = plan.experiment.cohort.colluders
    return {
        "client_model": "the client itself, and whoever takes its model",
        "raw_release": "the client’s own process: its scores or its update before the clip",
        "clipped_release": "the client’s own process: what it would send without noise",
        "client_release": "the client alone: the server gets sums" if plan.aggregator.sums_only else "the server",
        "aggregate": "the server, and in the next round the clients",
        "aggregate_minus_colluders": f"the server, told by {colluders} client{'s' * (colluders > 1)} what they sent",
        "student": "everybody to whom the student is given",
    }[point]


def _made(
    plan: Plan, outcome: RoundOutcome, point: Point, summed: tuple[int, ...]
) -> list[tuple[tuple[int, ...], TrainTask]]:
    """What an adversary makes at a point: of whose records, and by which task; nothing where it holds a model."""
    answer, taught, clients = outcome.answer, outcome.taught, plan.clients

    def of(total: np.ndarray, survivors: int, name: str) -> TrainTask:
        return taught.surrogate(plan, total, survivors, "surrogate", name)

    if point in ("raw_release", "clipped_release"):
        clipped = point == "clipped_release"
        return [((i,), of(_unnoised(plan, outcome, c, clipped), 1, c.name)) for i, c in enumerate(clients)]
    if point == "client_release":
        return [((i,), of(answer.releases[c.name], 1, c.name)) for i, c in enumerate(clients)]
    if point == "aggregate":
        return [(summed, of(answer.aggregate.total, len(summed), "aggregate"))]
    left = honest(plan, summed)
    if point == "aggregate_minus_colluders" and left:
        known = sum(answer.releases[clients[i].name] for i in summed if i not in left)
        return [(left, of(answer.aggregate.total - known, len(left), point))]
    return []


def _unnoised(plan: Plan, outcome: RoundOutcome, client: PlannedClient, clipped: bool) -> np.ndarray:
    """A client's answer without noise, in steps; not rounded, and scaled as one that its coin may have left out."""
    if not isinstance(outcome.taught, Watched):
        raise RunError(
            f"the strategy {plan.experiment.strategy!r} does not say what clients answered before noise (a method "
            "`answered` of what a round taught); set audit.points = 'final'"
        )
    vector = outcome.taught.answered(plan, client, outcome.clients[client.name], clipped=clipped)
    release = plan.question.release
    return vector * release.exposure.sampling_rate / release.mechanism.step
