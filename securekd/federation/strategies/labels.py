"""What strategies have in common that ask for scores on transfer rows: the client's half, and lessons for both."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from securekd.checkpoint import Arrays
from securekd.errors import RunError, SettingError
from securekd.federation.agreement import Member
from securekd.federation.messages import Instruction, Taught
from securekd.federation.strategies.consensus import scores_to_consensus
from securekd.federation.strategies.seam import ClientSide, Played, ServerSide, Side
from securekd.knowledge.bounded import Bounded, Knowledge
from securekd.knowledge.soft_labels import SoftLabelShape, soft_labels
from securekd.learning.plain import batch_sizes
from securekd.learning.tasks import Lesson, TrainTask
from securekd.models.frozen import split_linear
from securekd.models.logits import draw
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.settings.experiment import Experiment


class LabelClient:
    """Learns the consensus (or, at first, what is public), trains on its own records, and scores transfer rows."""

    def train(self, client: ClientSide, told: Instruction) -> TrainTask:
        """Go on from its own weights, after the consensus of the round before (FedMD's digest)."""
        if told.arrays:
            lessons: tuple[Lesson, ...] = (_digest(client, told.arrays),)
        else:
            lessons = client.public_lessons()
        before = client.weights(told)
        return client.private_task("client", client.member.name, *told.labels, state=before, lessons=lessons)

    def answer(self, client: ClientSide, asked: Instruction, knowledge: Knowledge) -> Bounded:
        """Its bounded scores on the transfer rows that are asked about."""
        if not isinstance(knowledge, SoftLabelShape):
            raise RunError("this strategy asks for scores on transfer rows, and the clients send something else")
        settings = client.agreement.settings.release
        return soft_labels(
            client.logits(asked, client.transfer.inputs[asked.arrays["rows"]]),
            knowledge,
            temperature=settings.temperature,
            examples=client.member.examples,
            top_k=settings.top_k,
            nonfinite=settings.nonfinite,
            share=client.agreement.share(client.member) if client.member.model.loss == "background" else None,
        )


class LabelServer:
    """What a server does with scores, whatever it makes of them."""

    def surrogate(
        self, server: ServerSide, played: Played, total: np.ndarray, survivors: int, *name: str | int
    ) -> TrainTask:
        """Distil a model of one's own from the mean scores of the rows that were answered."""
        asked, _ = played.sums[-1]
        consensus = scores_to_consensus(server.agreement.settings, server.question("release").mean(total, survivors))
        return server.public_task(*name, lessons=(lesson(server, asked.arrays["rows"], consensus),))


class LabelStrategy:
    """What both sides know where scores on transfer rows are asked for."""

    client = LabelClient()

    def about(self, side: Side, asked: Instruction) -> bytes:
        """SHA-256 of the rows that are asked about, and of the class map."""
        return side.agreement.rows_digest(side.transfer, asked.arrays["rows"])

    def refuse_unfit(self, experiment: Experiment, members: Sequence[Member], shape: InputShape, transfer: int) -> None:
        """Refuse a student that cannot learn the transfer set in the batches that are asked for."""
        student, batch = build(experiment.student.model, shape, seed=0), experiment.student.batch_size
        if experiment.student.loss == "least_squares":
            split_linear(student.train())
        if experiment.release.scores != "probabilities" and any(m.model.loss == "background" for m in members):
            raise SettingError(
                f"release.scores = {experiment.release.scores!r} say nothing of how much is background, for which "
                "clients with loss = 'background' are there; set release.scores = 'probabilities'"
            )
        batch_sizes(student.train(), draw(shape, min(batch + 1, transfer)), transfer, batch)


def consensus(rows: np.ndarray, log_probabilities: np.ndarray) -> Taught:
    """What clients learn before they train again: log-probabilities (rows, C) of transfer rows."""
    return Taught("consensus", log_probabilities.size, arrays={"rows": rows, "log_probabilities": log_probabilities})


def lesson(side: Side, rows: np.ndarray, log_probabilities: np.ndarray) -> Lesson:
    """The student's lesson: log-probabilities (rows, C) of transfer rows."""
    student = side.agreement.settings.student
    return Lesson(
        inputs=side.transfer.inputs[rows],
        soft_labels=log_probabilities,
        labels=None,
        epochs=student.epochs,
        batch_size=student.batch_size,
        learning_rate=student.learning_rate,
        loss=student.loss,
        temperature=student.temperature,
    )


def _digest(side: Side, taught: Arrays) -> Lesson:
    settings = side.agreement.settings
    return replace(
        lesson(side, taught["rows"], taught["log_probabilities"]),
        loss="forward_kl" if settings.student.loss == "least_squares" else settings.student.loss,
        epochs=settings.training.digest_epochs,
        learning_rate=settings.training.digest_learning_rate,
    )
