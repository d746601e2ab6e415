"""What every strategy is made of: training tasks, releases and their sum, and what a round leaves behind."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from securekd.checkpoint import Arrays, PhaseStore, Saved
from securekd.federation.aggregation import Aggregate, Terms
from securekd.knowledge.bounded import Bounded
from securekd.knowledge.questions import Question
from securekd.laboratory.plan import Plan, PlannedClient
from securekd.learning.dp.dp_sgd import Gradients
from securekd.learning.tasks import Lesson, Perform, TrainTask
from securekd.privacy.ledger import Ledger
from securekd.privacy.release import ReleasePhase


@dataclass(frozen=True, eq=False)
class Workshop:
    """What a strategy works with.

    Attributes:
        plan: what was settled.
        store: phases that are done.
        ledger: where events go before what they pay for leaves.
        perform: carries tasks out, several at a time where there are cores.
    """

    plan: Plan
    store: PhaseStore
    ledger: Ledger
    perform: Perform


class Taught(Protocol):
    """What the server makes of a round's sum, and sends the clients before the next round."""

    @property
    def name(self) -> str:
        """In a word, which stands as a phase among the record's bytes."""

    @property
    def size(self) -> int:
        """Numbers in it, which are sent as float32."""

    def surrogate(self, plan: Plan, total: np.ndarray, survivors: int, *name: str | int) -> TrainTask:
        """The model that an adversary makes of this round's sum, or of one client's release alone, as the server would.

        Args:
            plan: the run's plan.
            total: integers (d,): a sum of releases, or one.
            survivors: how many are in it.
            name: labels of the task's randomness.
        """


@runtime_checkable
class Watched(Taught, Protocol):
    """What was taught by clients whose answers can be looked at before noise came to them, as `audit.points` asks."""

    def answered(self, plan: Plan, client: PlannedClient, state: Arrays, *, clipped: bool) -> np.ndarray:
        """A client's answer in this round without noise: (d,), in the data's unit.

        Args:
            plan: the run's plan.
            client: whose answer.
            state: its weights after its training in this round.
            clipped: after the clip; otherwise before it.
        """


@dataclass(frozen=True, eq=False)
class Answer:
    """What a question brought.

    Attributes:
        releases: each client's released integers, by name.
        aggregate: their sum.
        clipped: share of what was released, part by part (a row of scores, an update), that the clip shortened.
        zeroed: parts that were not finite.
    """

    releases: dict[str, np.ndarray]
    aggregate: Aggregate
    clipped: float
    zeroed: int


@dataclass(frozen=True, eq=False)
class RoundOutcome:
    """What one round leaves behind.

    Attributes:
        number: of the round, from 1.
        clients: each client's weights after its training, by name.
        answer: what the clients released, and its sum.
        taught: what the server made of the sum.
        student: the weights of the student, the global model.
        zeroed_gradients: per-example gradients that were not finite.
        gradients: how many clients' clipped gradients were computed in which way.
    """

    number: int
    clients: dict[str, Arrays]
    answer: Answer
    taught: Taught
    student: Arrays
    zeroed_gradients: int
    gradients: Mapping[Gradients, int] = field(default_factory=dict)


class Strategy(Protocol):
    """Plays a round."""

    def play(self, workshop: Workshop, number: int, previous: RoundOutcome | None) -> RoundOutcome:
        """Carry out round `number`, of which finished phases are found in the store.

        Raises:
            RunError: if the round cannot end, for instance with too few survivors.
        """


def ask(
    workshop: Workshop,
    number: int,
    phase: ReleasePhase,
    question: Question,
    context: bytes,
    bounded: Callable[[PlannedClient], Bounded],
) -> Answer:
    """Have every client answer a question, and add the answers up.

    The events are in the ledger before anything leaves a client.

    Args:
        workshop: what there is to work with.
        number: of the round.
        phase: of the release.
        question: what is asked, and with what noise it is answered.
        context: digest of what every client must have been asked about.
        bounded: a client's answer before rounding and noise.
    """
    plan, store = workshop.plan, workshop.store
    released = {
        c.name: store.phase(f"{phase}.{number}.{c.key}", partial(release, plan, c, question, phase, number, bounded))
        for c in plan.clients
    }
    workshop.ledger.append(
        entry for c in plan.clients for entry in question.release.entries(c.name, number, context.hex(), phase)
    )
    integers = {name: saved.arrays["integers"] for name, saved in released.items()}
    name = f"aggregate.{number}" if phase == "release" else f"aggregate.{number}.{phase}"
    summed = store.phase(name, lambda: _aggregate(plan, integers, plan.terms(number, question, context)))
    return Answer(
        releases=integers,
        aggregate=_read_aggregate(summed),
        clipped=sum(s.info["clipped"] for s in released.values()) / (len(plan.clients) * question.knowledge.parts),
        zeroed=sum(s.info["zeroed"] for s in released.values()),
    )


def finish_round(
    number: int, trained: dict[str, Saved], answer: Answer, taught: Taught, student: Arrays
) -> RoundOutcome:
    """Note what a round did."""
    return RoundOutcome(
        number=number,
        clients={name: saved.arrays for name, saved in trained.items()},
        answer=answer,
        taught=taught,
        student=student,
        zeroed_gradients=sum(s.info["zeroed"] for s in trained.values()),
        gradients=Counter(s.info["gradients"] for s in trained.values() if s.info.get("gradients")),
    )


def train_clients(workshop: Workshop, number: int, task: Callable[[PlannedClient], TrainTask]) -> dict[str, Saved]:
    """Carry out every client's task; its events are in the ledger when this returns."""
    plan, store = workshop.plan, workshop.store
    names = {c.name: f"train.{number}.{c.key}" for c in plan.clients}
    todo = [c for c in plan.clients if not store.has(names[c.name])]
    for client, saved in zip(todo, workshop.perform([task(c) for c in todo]), strict=True):
        store.put(names[client.name], saved)
    workshop.ledger.append(plan.training_entry(c.name, number) for c in plan.clients)
    return {c.name: store.get(names[c.name]) for c in plan.clients}


def private_task(
    plan: Plan, name: tuple[str | int, ...], client: PlannedClient, *, state: Arrays | None, lessons: tuple[Lesson, ...]
) -> TrainTask:
    """Training on one client's private data, with the run's DP-SGD if it has one."""
    training, runtime = plan.experiment.training, plan.experiment.runtime
    return TrainTask(
        name=name,
        model=client.model,
        shape=plan.shape,
        init_seed=plan.randomness.public_seed("init", client.name),
        state=state,
        lessons=lessons,
        inputs=client.examples.inputs,
        labels=client.examples.labels,
        dp=plan.dp,
        training=training,
        learning_rate=client.model.learning_rate or training.learning_rate,
        randomness=plan.randomness,
        micro_batch=runtime.micro_batch,
        device=runtime.device,
        shared=plan.shared,
        absent=client.absent,
    )


def public_lessons(plan: Plan) -> tuple[Lesson, ...]:
    """Pre-training on the transfer set, where its labels are public."""
    transfer, training = plan.data.transfer, plan.experiment.training
    if transfer.labels is None:
        return ()
    return (
        Lesson(
            inputs=transfer.inputs,
            soft_labels=None,
            labels=transfer.labels,
            epochs=training.pretrain_epochs,
            batch_size=plan.experiment.student.batch_size,
            learning_rate=training.digest_learning_rate,
        ),
    )


def student_task(
    plan: Plan, *name: str | int, state: Arrays | None = None, lessons: tuple[Lesson, ...] = ()
) -> TrainTask:
    """A model like the student, from its initial weights or those of `state`, that learns what is public alone."""
    student, runtime = plan.experiment.student, plan.experiment.runtime
    return TrainTask(
        name=("student", *name),
        model=student.model,
        shape=plan.shape,
        init_seed=plan.randomness.public_seed("init", "student"),
        state=state,
        lessons=lessons,
        inputs=None,
        labels=None,
        dp=None,
        training=plan.experiment.training,
        learning_rate=student.learning_rate,
        randomness=plan.randomness,
        micro_batch=runtime.micro_batch,
        device=runtime.device,
        shared=plan.shared,
    )


def release(
    plan: Plan,
    client: PlannedClient,
    question: Question,
    phase: ReleasePhase,
    number: int,
    bounded: Callable[[PlannedClient], Bounded],
) -> Saved:
    """One client's release: its bounded answer (zeros, where its coin says so), rounded, with noise."""
    answer = bounded(client)
    randomness = plan.randomness.secret(phase, client.name, number)
    integers = question.release.draw(answer.vector, randomness)
    return Saved(arrays={"integers": integers}, info={"clipped": answer.clipped, "zeroed": answer.zeroed})


def _aggregate(plan: Plan, integers: dict[str, np.ndarray], terms: Terms) -> Saved:
    done = plan.aggregator.aggregate(integers, terms)
    info = {
        "survivors": list(done.survivors),
        "upload": {phase: dict(by) for phase, by in done.upload.items()},
        "download": {phase: dict(by) for phase, by in done.download.items()},
        "decryptor": dict(done.decryptor),
    }
    return Saved(arrays={"total": done.total}, info=info)


def _read_aggregate(saved: Saved) -> Aggregate:
    info = saved.info
    return Aggregate(
        saved.arrays["total"], tuple(info["survivors"]), info["upload"], info["download"], info["decryptor"]
    )
