"""Federated averaging (McMahan et al. 2017): clients of one architecture send what training changed in their weights.

Example-level privacy comes from DP-SGD in each client's training, client-level privacy from the noise on its clipped
update (McMahan et al. 2018): the same mechanisms, sums and ledger as for scores on a transfer set.
"""

from collections.abc import Sequence

import numpy as np

from securekd.checkpoint import Arrays
from securekd.errors import RunError, SettingError
from securekd.federation.agreement import Agreement, Member
from securekd.federation.messages import Instruction, Taught
from securekd.federation.strategies.seam import ClientSide, Ended, Played, ServerSide, Side, Turn
from securekd.knowledge.bounded import Bounded, Knowledge
from securekd.knowledge.questions import Wanted, refuse_denoise, refuse_settle
from securekd.knowledge.weights import (
    WeightUpdateShape,
    model_digest,
    refuse_mixed,
    refuse_statistics,
    set_trainable_weights,
    trainable_weights,
    weight_update,
)
from securekd.learning.tasks import TrainTask, network_of, state_of
from securekd.models.registry import build, probe
from securekd.models.shape import InputShape
from securekd.settings.experiment import Experiment


class FedAvgClient:
    """Starts from the global model, trains, and sends its clipped and noised update."""

    def train(self, client: ClientSide, told: Instruction) -> TrainTask:
        """Go on from the global model."""
        return client.private_task("client", client.member.name, *told.labels, state=told.arrays)

    def answer(self, client: ClientSide, asked: Instruction, knowledge: Knowledge) -> Bounded:
        """Its bounded update, from the global model to its own."""
        if not isinstance(knowledge, WeightUpdateShape):
            raise RunError("this strategy asks for weight updates, and the clients send something else")
        agreement = client.agreement
        return weight_update(
            trainable_weights(network_of(agreement.settings.student.model, agreement.shape, 0, asked.arrays)),
            trainable_weights(network_of(client.member.model, agreement.shape, 0, client.weights(asked))),
            knowledge,
            examples=client.member.examples,
            nonfinite=agreement.settings.release.nonfinite,
        )


class FedAvgServer:
    """Adds the mean update to the global model."""

    def play(self, server: ServerSide, number: int, before: Played | None) -> Turn:
        """Have clients train and send updates; add their mean."""
        model = (yield from _first_model(server)) if before is None else before.ended.student
        question = server.question("release")
        yield from server.train(Taught("model", question.weights.size, model))
        summed = yield from server.ask("release", model)
        mean = question.mean(summed.total, len(summed.survivors))
        student = server.keep(f"average.{number}", lambda: _moved(server.agreement, model, mean))
        return Ended(Taught("model", question.weights.size, student), student)

    def surrogate(
        self, server: ServerSide, played: Played, total: np.ndarray, survivors: int, *name: str | int
    ) -> TrainTask:
        """Add a sum's mean, or one client's own update, to the model that it started from."""
        asked, _ = played.sums[-1]
        state = _moved(server.agreement, asked.arrays, server.question("release").mean(total, survivors))
        return server.public_task(*name, state=state)


class FedAvg:
    """Both halves."""

    client = FedAvgClient()
    server = FedAvgServer()

    def asks(self, experiment: Experiment, shape: InputShape, transfer: int) -> tuple[Wanted, ...]:
        """A weight update."""
        refuse_denoise(experiment)
        refuse_settle(experiment)
        if experiment.student.loss == "least_squares":
            raise SettingError(
                "student.loss = 'least_squares' is for scores on transfer rows, and strategy 'fedavg' has none; set "
                "strategy = 'distil', or leave it out"
            )
        if experiment.release.rows is not None:
            raise SettingError(
                f"strategy = 'fedavg' asks about no transfer rows; leave release.rows = {experiment.release.rows} out"
            )
        update = WeightUpdateShape(
            size=len(trainable_weights(build(experiment.student.model, shape, seed=0))),
            clip=experiment.fedavg.clip,
            weight_cap=experiment.release.weight_cap if experiment.student.consensus == "weighted" else None,
        )
        return (Wanted("release", update, experiment.fedavg.noise),)

    def about(self, side: Side, asked: Instruction) -> bytes:
        """SHA-256 of the model that updates start from."""
        return model_digest(asked.arrays)

    def refuse_unfit(self, experiment: Experiment, members: Sequence[Member], shape: InputShape, transfer: int) -> None:
        """Refuse models that are not all built alike, or that keep statistics of their batches."""
        if any(member.model.loss == "background" for member in members):
            raise SettingError(
                "loss = 'background' gives clients' models one class more than the student's, so their weights have no "
                "mean; set strategy = 'distil', or another loss"
            )
        refuse_mixed(experiment.student.model, [(member.name, member.model) for member in members])
        refuse_statistics(build(experiment.student.model, shape, seed=0), probe(shape, 3))


def _first_model(server: ServerSide) -> Turn:
    """The first global model: initial weights of a public seed, pre-trained where the transfer set has labels."""
    lessons = server.public_lessons()
    task = server.public_task("first", lessons=lessons)
    if not lessons:
        return state_of(network_of(task.model, task.shape, task.init_seed, None))
    return (yield from server.learn("pretrain.0", task))


def _moved(agreement: Agreement, before: Arrays, mean: np.ndarray) -> Arrays:
    """A global model with a mean update (d,) added to its trainable weights."""
    network = network_of(agreement.settings.student.model, agreement.shape, 0, before)
    set_trainable_weights(network, trainable_weights(network) + mean)
    return state_of(network)
