"""Who teaches whom in a round.

`Distil` is federated distillation: clients train on private data, release bounded and noised scores on the transfer
set, the server distils their mean into the student, and clients learn it before they train again. A strategy of an own
kind is plugged in as `strategy = "module:attribute"`: an object with `play`.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from securekd.aggregation import Aggregate, Terms
from securekd.checkpoint import Arrays, PhaseStore, Saved
from securekd.consensus import Known, consensus_of, mean_of, remembered, winners
from securekd.errors import RunError
from securekd.knowledge import soft_labels
from securekd.parallel import Perform
from securekd.plan import Plan, PlannedClient
from securekd.plugins import named
from securekd.privacy.ledger import Ledger
from securekd.privacy.release import ReleasePhase
from securekd.questions import Question
from securekd.training.dp_sgd import Gradients, predict
from securekd.training.tasks import Lesson, TrainTask, network_of


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


@dataclass(frozen=True, eq=False)
class RoundOutcome:
    """What one round leaves behind.

    Attributes:
        number: of the round, from 1.
        clients: each client's weights after its training, by name.
        rows: the transfer rows that were answered.
        releases: each client's released integers, by name.
        aggregate: what the server got.
        known: mean scores of all transfer rows, with what is remembered of the rounds before.
        learnt: the transfer rows that the student learnt.
        consensus: log-probabilities (learnt, C) made of their scores.
        student: the student's weights.
        clipped_rows: share of released rows that the clip shortened.
        zeroed_rows: released rows that were not finite.
        zeroed_gradients: per-example gradients that were not finite.
        gradients: how many clients' clipped gradients were computed in which way.
    """

    number: int
    clients: dict[str, Arrays]
    rows: np.ndarray
    releases: dict[str, np.ndarray]
    aggregate: Aggregate
    known: Known
    learnt: np.ndarray
    consensus: np.ndarray
    student: Arrays
    clipped_rows: float
    zeroed_rows: int
    zeroed_gradients: int
    gradients: Mapping[Gradients, int] = field(default_factory=dict)


class Strategy(Protocol):
    """Plays a round."""

    def play(self, workshop: Workshop, number: int, previous: RoundOutcome | None) -> RoundOutcome:
        """Carry out round `number`, of which finished phases are found in the store.

        Raises:
            RunError: if the round cannot end, for instance with too few survivors.
        """


class Distil:
    """Federated distillation over a shared transfer set (FedMD, Li and Wang 2019; FedDF, Lin et al. 2020)."""

    def play(self, workshop: Workshop, number: int, previous: RoundOutcome | None) -> RoundOutcome:
        """Train, release, aggregate, distil."""
        plan = workshop.plan
        trained = train_clients(workshop, number, previous)
        rows = plan.rows(number)
        answer = ask(workshop, number, "release", plan.question, rows, trained)
        before = None if previous is None else previous.known
        memory = plan.experiment.student.memory
        known = remembered(mean_of(plan.question, answer.aggregate), rows, before, len(plan.data.transfer), memory)
        learnt = np.flatnonzero(np.isfinite(known.scores).all(axis=1))
        consensus = consensus_of(plan, known, learnt)
        return finish_round(workshop, number, trained, answer, known, learnt, consensus)


class Pate:
    """Noisy votes on transfer rows, and a student that learns each row's winner (GNMax, Papernot et al. 2018).

    With `pate.threshold`, a first noisy count finds rows with a clear winner (confident GNMax, section 4.1 there);
    these are answered first, and only they are learnt. Counts are secure sums: the server sees all of a noisy count,
    not its winner alone, and the ledger charges for all of it, whatever the votes were.
    """

    def play(self, workshop: Workshop, number: int, previous: RoundOutcome | None) -> RoundOutcome:
        """Train, count votes, distil winners."""
        plan = workshop.plan
        trained = train_clients(workshop, number, previous)
        rows, clear = plan.rows(number), None
        if plan.check is not None:
            rows, clear = self._clear_rows(workshop, number, plan.check, trained)
        answer = ask(workshop, number, "release", plan.question, rows, trained)
        known = remembered(mean_of(plan.question, answer.aggregate), rows, None, len(plan.data.transfer), 0.0)
        learnt = rows if clear is None else clear
        return finish_round(workshop, number, trained, answer, known, learnt, winners(known.scores[learnt]))

    def _clear_rows(
        self, workshop: Workshop, number: int, check: Question, trained: dict[str, Saved]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows to be answered, as many as the ledger is charged for, and those of them that have a clear winner."""
        plan = workshop.plan
        every = np.arange(check.labels.rows)
        counted = ask(workshop, number, "threshold", check, every, trained)
        shares = check.mean(counted.aggregate.total, len(counted.aggregate.survivors)) + 1 / check.labels.classes
        clear = shares.max(axis=1) >= (plan.experiment.pate.threshold or 0.0)
        order = plan.randomness.public("rows", number).permutation(len(every))
        chosen = np.sort(np.concatenate([order[clear[order]], order[~clear[order]]])[: plan.question.labels.rows])
        if not clear.any():
            raise RunError(
                f"no transfer row has a noisy winner with {plan.experiment.pate.threshold:.0%} of the votes; "
                "lower pate.threshold in a new run"
            )
        return chosen, chosen[clear[chosen]]


STRATEGIES: dict[str, Callable[[], Strategy]] = {"distil": Distil, "pate": Pate}


def strategy_named(name: str) -> Strategy:
    """The strategy that a configuration names."""
    return named("strategy", name, STRATEGIES)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a question brought.

    Attributes:
        rows: the transfer rows that it was about.
        releases: each client's released integers, by name.
        aggregate: their sum.
        clipped_rows: share of released rows that the clip shortened.
        zeroed_rows: released rows that were not finite.
    """

    rows: np.ndarray
    releases: dict[str, np.ndarray]
    aggregate: Aggregate
    clipped_rows: float
    zeroed_rows: int


def ask(
    workshop: Workshop,
    number: int,
    phase: ReleasePhase,
    question: Question,
    rows: np.ndarray,
    trained: dict[str, Saved],
) -> Answer:
    """Have every client answer a question about transfer rows, and add the answers up.

    The events are in the ledger before anything leaves a client.
    """
    plan, store = workshop.plan, workshop.store
    released = {
        c.name: store.phase(
            f"{phase}.{number}.{c.key}",
            partial(release, plan, c, trained[c.name].arrays, question, rows, phase, number),
        )
        for c in plan.clients
    }
    digest = plan.digest(rows).hex()
    workshop.ledger.append(
        entry for c in plan.clients for entry in question.release.entries(c.name, number, digest, phase)
    )
    integers = {name: saved.arrays["integers"] for name, saved in released.items()}
    name = f"aggregate.{number}" if phase == "release" else f"aggregate.{number}.{phase}"
    summed = store.phase(name, lambda: _aggregate(plan, integers, plan.terms(number, question, rows)))
    return Answer(
        rows=rows,
        releases=integers,
        aggregate=_read_aggregate(summed),
        clipped_rows=sum(s.info["clipped"] for s in released.values()) / (len(plan.clients) * len(rows)),
        zeroed_rows=sum(s.info["zeroed"] for s in released.values()),
    )


def finish_round(
    workshop: Workshop,
    number: int,
    trained: dict[str, Saved],
    answer: Answer,
    known: Known,
    learnt: np.ndarray,
    consensus: np.ndarray,
) -> RoundOutcome:
    """Distil the consensus into the student, and note what the round did."""
    plan = workshop.plan
    student = workshop.store.phase(
        f"distil.{number}", lambda: next(workshop.perform([student_task(plan, learnt, consensus, number)]))
    )
    return RoundOutcome(
        number=number,
        clients={name: saved.arrays for name, saved in trained.items()},
        rows=answer.rows,
        releases=answer.releases,
        aggregate=answer.aggregate,
        known=known,
        learnt=learnt,
        consensus=consensus,
        student=student.arrays,
        clipped_rows=answer.clipped_rows,
        zeroed_rows=answer.zeroed_rows,
        zeroed_gradients=sum(s.info["zeroed"] for s in trained.values()),
        gradients=Counter(s.info["gradients"] for s in trained.values() if s.info.get("gradients")),
    )


def train_clients(workshop: Workshop, number: int, previous: RoundOutcome | None) -> dict[str, Saved]:
    """Train every client on what is public and what is private; its events are in the ledger when this returns."""
    plan, store = workshop.plan, workshop.store
    names = {c.name: f"train.{number}.{c.key}" for c in plan.clients}
    todo = [c for c in plan.clients if not store.has(names[c.name])]
    results = workshop.perform([client_task(plan, c, number, previous) for c in todo])
    for client, saved in zip(todo, results, strict=True):
        store.put(names[client.name], saved)
    workshop.ledger.append(plan.training_entry(c.name, number) for c in plan.clients)
    return {c.name: store.get(names[c.name]) for c in plan.clients}


def client_task(plan: Plan, client: PlannedClient, number: int, previous: RoundOutcome | None) -> TrainTask:
    """What a client does before its release: learn what is public, then train on what is private."""
    lessons = public_lessons(plan) if previous is None else (digest(plan, previous.learnt, previous.consensus),)
    return private_task(
        plan,
        ("client", client.name, number),
        client,
        state=None if previous is None else previous.clients[client.name],
        lessons=lessons,
    )


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


def digest(plan: Plan, rows: np.ndarray, consensus: np.ndarray) -> Lesson:
    """A client's lesson in the consensus of the round before on transfer rows (FedMD's digest)."""
    training, student = plan.experiment.training, plan.experiment.student
    return Lesson(
        inputs=plan.data.transfer.inputs[rows],
        soft_labels=consensus,
        labels=None,
        epochs=training.digest_epochs,
        batch_size=student.batch_size,
        learning_rate=training.digest_learning_rate,
        loss=student.loss,
        temperature=student.temperature,
    )


def student_task(plan: Plan, rows: np.ndarray, consensus: np.ndarray, *name: str | int) -> TrainTask:
    """A student, from its initial weights, that learns transfer rows' consensus; an adversary's surrogate likewise."""
    student, runtime = plan.experiment.student, plan.experiment.runtime
    lesson = Lesson(
        inputs=plan.data.transfer.inputs[rows],
        soft_labels=consensus,
        labels=None,
        epochs=student.epochs,
        batch_size=student.batch_size,
        learning_rate=student.learning_rate,
        loss=student.loss,
        temperature=student.temperature,
    )
    return TrainTask(
        name=("student", *name),
        model=student.model,
        shape=plan.shape,
        init_seed=plan.randomness.public_seed("init", "student"),
        state=None,
        lessons=(lesson,),
        inputs=None,
        labels=None,
        dp=None,
        training=plan.experiment.training,
        learning_rate=student.learning_rate,
        randomness=plan.randomness,
        micro_batch=runtime.micro_batch,
        device=runtime.device,
    )


def release(
    plan: Plan,
    client: PlannedClient,
    state: Arrays,
    question: Question,
    rows: np.ndarray,
    phase: ReleasePhase,
    number: int,
) -> Saved:
    """One client's release: predict on transfer rows, bound, round, add noise."""
    settings, runtime = plan.experiment.release, plan.experiment.runtime
    network = network_of(client.model, plan.shape, 0, state)
    inputs = plan.data.transfer.inputs[rows]
    bounded = soft_labels(
        predict(network, inputs, micro_batch=runtime.micro_batch, device=runtime.device),
        question.labels,
        temperature=settings.temperature,
        examples=len(client.examples),
        top_k=settings.top_k,
        nonfinite=settings.nonfinite,
    )
    randomness = plan.randomness.secret(phase, client.name, number)
    sampled = len(randomness.poisson_sample(1, question.release.exposure.sampling_rate))
    integers = question.release.mechanism.release(sampled * bounded.vector, randomness)
    info = {"clipped": bounded.clipped_rows, "zeroed": bounded.zeroed_rows}
    return Saved(arrays={"integers": integers}, info=info)


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
