"""Federated averaging (McMahan et al. 2017): clients of one architecture send what training changed in their weights.

Example-level privacy comes from DP-SGD in each client's training, client-level privacy from the noise on its clipped
update (McMahan et al. 2018): the same mechanisms, sums and ledger as for scores on a transfer set.
"""

from dataclasses import dataclass

import numpy as np

from securekd.checkpoint import Arrays, Saved
from securekd.federation.rounds import (
    RoundOutcome,
    Workshop,
    ask,
    finish_round,
    private_task,
    public_lessons,
    student_task,
    train_clients,
)
from securekd.knowledge.bounded import Bounded, weighted
from securekd.knowledge.weights import (
    WeightUpdateShape,
    model_digest,
    set_trainable_weights,
    trainable_weights,
    weight_update,
)
from securekd.laboratory.plan import Plan, PlannedClient
from securekd.learning.tasks import TrainTask, network_of, state_of


@dataclass(frozen=True, eq=False)
class GlobalModel:
    """The global model that a round made.

    Attributes:
        before: weights that the round's updates start from.
        size: trainable weights, which are what is sent.
    """

    before: Arrays
    size: int

    name = "model"

    def surrogate(self, plan: Plan, total: np.ndarray, survivors: int, *name: str | int) -> TrainTask:
        """Add a sum's mean, or one client's own update, to the model that it started from."""
        state = moved(plan, self.before, plan.question.mean(total, survivors))
        return student_task(plan, *name, state=state)

    def answered(self, plan: Plan, client: PlannedClient, state: Arrays, *, clipped: bool) -> np.ndarray:
        """A client's update of the model that the round started from, before noise."""
        shape = plan.question.weights
        if clipped:
            return update(plan, shape, self.before, client, state).vector
        raw = update(plan, shape.unclipped, self.before, client, state).vector
        return raw if shape.weight_cap is None else weighted(raw, shape.clip, client.size, shape.weight_cap)


class FedAvg:
    """Every client starts from the global model, trains, and sends its clipped and noised update."""

    def play(self, workshop: Workshop, number: int, previous: RoundOutcome | None) -> RoundOutcome:
        """Train, release updates, add their mean to the global model."""
        plan, question = workshop.plan, workshop.plan.question
        before = first_model(workshop) if previous is None else previous.student
        trained = train_clients(
            workshop,
            number,
            lambda client: private_task(plan, ("client", client.name, number), client, state=before, lessons=()),
        )

        def bounded(client: PlannedClient) -> Bounded:
            return update(plan, question.weights, before, client, trained[client.name].arrays)

        answer = ask(workshop, number, "release", question, model_digest(before), bounded)
        mean = question.mean(answer.aggregate.total, len(answer.aggregate.survivors))
        student = workshop.store.phase(f"average.{number}", lambda: Saved(arrays=moved(plan, before, mean)))
        return finish_round(number, trained, answer, GlobalModel(before, question.weights.size), student.arrays)


def update(plan: Plan, shape: WeightUpdateShape, before: Arrays, client: PlannedClient, after: Arrays) -> Bounded:
    """One client's bounded update, from the global model to its own."""
    return weight_update(
        trainable_weights(network_of(plan.experiment.student.model, plan.shape, 0, before)),
        trainable_weights(network_of(client.model, plan.shape, 0, after)),
        shape,
        examples=client.size,
        nonfinite=plan.experiment.release.nonfinite,
    )


def first_model(workshop: Workshop) -> Arrays:
    """The first global model: initial weights of a public seed, pre-trained where the transfer set has labels."""
    plan = workshop.plan
    lessons = public_lessons(plan)
    task = student_task(plan, "first", lessons=lessons)
    if not lessons:
        return state_of(network_of(task.model, task.shape, task.init_seed, None))
    return workshop.store.phase("pretrain.0", lambda: next(workshop.perform([task]))).arrays


def moved(plan: Plan, before: Arrays, mean: np.ndarray) -> Arrays:
    """A global model with a mean update (d,) added to its trainable weights."""
    network = network_of(plan.experiment.student.model, plan.shape, 0, before)
    set_trainable_weights(network, trainable_weights(network) + mean)
    return state_of(network)
