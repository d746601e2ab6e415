"""Observation points: which models an adversary holds at each of them after a round, and of whose records.

Where a point shows scores on the transfer set, or weight updates, and no model, the adversary makes a model of them,
exactly as the server does. What a client has before its clip, and before its noise, only its own process sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securekd.checkpoint import Arrays
from securekd.federation.client import Client
from securekd.knowledge.bounded import weighted
from securekd.laboratory.outcome import RoundOutcome
from securekd.laboratory.plan import Plan
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

    """
    points = points_of(plan)
    everyone = tuple(range(len(plan.clients)))
    summed = tuple(i for i, c in enumerate(plan.clients) if c.name in outcome.aggregate.survivors)
    trained = outcome.clients
    student = plan.experiment.student.model
    made = [(point, clients, task) for point in points for clients, task in _made(plan, outcome, point, summed)]
    held: dict[Point, tuple[Held, ...]] = {
        "client_model": tuple(Held(c.model, trained[c.name], (i,)) for i, c in enumerate(plan.clients)),
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
    server, clients = outcome.parties.server, outcome.parties.clients

    def of(total: np.ndarray, survivors: int, name: str) -> TrainTask:
        half = plan.strategy.server
        return half.surrogate(server, outcome.played, total, survivors, "surrogate", name)

    if point in ("raw_release", "clipped_release"):
        clipped = point == "clipped_release"
        return [((c.number,), of(_unnoised(outcome, c, clipped), 1, c.member.name)) for c in clients]
    if point == "client_release":
        return [((c.number,), of(c.released(outcome.asked), 1, c.member.name)) for c in clients]
    if point == "aggregate":
        return [(summed, of(outcome.aggregate.total, len(summed), "aggregate"))]
    left = honest(plan, summed)
    if point == "aggregate_minus_colluders" and left:
        known = sum(clients[i].released(outcome.asked) for i in summed if i not in left)
        return [(left, of(outcome.aggregate.total - known, len(left), point))]
    return []


def _unnoised(outcome: RoundOutcome, client: Client, clipped: bool) -> np.ndarray:
    """A client's answer without noise, in steps; not rounded, and scaled as one that its coin may have left out."""
    question = client.question(outcome.asked.release_phase)
    shape = question.knowledge
    vector = client.answer(outcome.asked, shape if clipped else shape.unclipped).vector
    if not clipped and shape.weight_cap is not None:
        vector = weighted(vector, shape.weight_bound, client.member.examples, shape.weight_cap)
    return vector * question.release.exposure.sampling_rate / question.release.mechanism.step
