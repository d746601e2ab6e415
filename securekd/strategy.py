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

from securekd.aggregation import Aggregate
from securekd.checkpoint import Arrays, PhaseStore, Saved
from securekd.experiment import Experiment
from securekd.knowledge import consensus_log_probabilities, mean_scores, soft_labels
from securekd.parallel import Perform
from securekd.plan import Plan, PlannedClient
from securekd.plugins import named
from securekd.privacy.ledger import Ledger
from securekd.privacy.release import noised_integers
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
        releases: each client's released integers, by name.
        aggregate: what the server got.
        scores: mean scores (m, C), with what is remembered of the rounds before.
        consensus: log-probabilities (m, C) made of them, which the student learnt.
        student: the student's weights.
        clipped_rows: share of released rows that the clip shortened.
        zeroed_rows: released rows that were not finite.
        zeroed_gradients: per-example gradients that were not finite.
        gradients: how many clients' clipped gradients were computed in which way.
    """

    number: int
    clients: dict[str, Arrays]
    releases: dict[str, np.ndarray]
    aggregate: Aggregate
    scores: np.ndarray
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
        plan, store = workshop.plan, workshop.store
        trained = self._train(workshop, number, previous)
        released = {
            client.name: store.phase(
                f"release.{number}.{client.key}", partial(release, plan, client, trained[client.name].arrays, number)
            )
            for client in plan.clients
        }
        workshop.ledger.append(entry for c in plan.clients for entry in plan.noise.entries(c.name, number))
        integers = {name: saved.arrays["integers"] for name, saved in released.items()}
        summed = store.phase(f"aggregate.{number}", lambda: _aggregate(plan, integers, number))
        aggregate = _read_aggregate(summed)
        scores = remembered_scores(plan, aggregate, previous)
        consensus = scores_to_consensus(plan.experiment, scores)
        student = store.phase(
            f"distil.{number}", lambda: next(workshop.perform([student_task(plan, consensus, number)]))
        )
        rows = len(plan.clients) * plan.labels.rows
        return RoundOutcome(
            number=number,
            clients={name: saved.arrays for name, saved in trained.items()},
            releases=integers,
            aggregate=aggregate,
            scores=scores,
            consensus=consensus,
            student=student.arrays,
            clipped_rows=sum(s.info["clipped"] for s in released.values()) / rows,
            zeroed_rows=sum(s.info["zeroed"] for s in released.values()),
            zeroed_gradients=sum(s.info["zeroed"] for s in trained.values()),
            gradients=Counter(s.info["gradients"] for s in trained.values() if s.info.get("gradients")),
        )

    def _train(self, workshop: Workshop, number: int, previous: RoundOutcome | None) -> dict[str, Saved]:
        plan, store = workshop.plan, workshop.store
        names = {c.name: f"train.{number}.{c.key}" for c in plan.clients}
        todo = [c for c in plan.clients if not store.has(names[c.name])]
        results = workshop.perform([client_task(plan, c, number, previous) for c in todo])
        for client, saved in zip(todo, results, strict=True):
            store.put(names[client.name], saved)
        workshop.ledger.append(plan.training_entry(c.name, number) for c in plan.clients)
        return {c.name: store.get(names[c.name]) for c in plan.clients}


STRATEGIES: dict[str, Callable[[], Strategy]] = {"distil": Distil}


def strategy_named(name: str) -> Strategy:
    """The strategy that a configuration names."""
    return named("strategy", name, STRATEGIES)


def client_task(plan: Plan, client: PlannedClient, number: int, previous: RoundOutcome | None) -> TrainTask:
    """What a client does before its release: learn what is public, then train on what is private."""
    lessons = public_lessons(plan) if previous is None else (digest(plan, previous.consensus),)
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


def digest(plan: Plan, consensus: np.ndarray) -> Lesson:
    """A client's lesson in the consensus of the round before (FedMD's digest)."""
    training, student = plan.experiment.training, plan.experiment.student
    return Lesson(
        inputs=plan.data.transfer.inputs,
        soft_labels=consensus,
        labels=None,
        epochs=training.digest_epochs,
        batch_size=student.batch_size,
        learning_rate=training.digest_learning_rate,
        loss=student.loss,
        temperature=student.temperature,
    )


def student_task(plan: Plan, consensus: np.ndarray, *name: str | int) -> TrainTask:
    """A student, from its initial weights, that learns `consensus`; the adversary's surrogate is made likewise."""
    student, runtime = plan.experiment.student, plan.experiment.runtime
    lesson = Lesson(
        inputs=plan.data.transfer.inputs,
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


def release(plan: Plan, client: PlannedClient, state: Arrays, number: int) -> Saved:
    """One client's release: predict on the transfer set, bound, add noise, encode."""
    settings, runtime = plan.experiment.release, plan.experiment.runtime
    network = network_of(client.model, plan.shape, 0, state)
    logits = predict(network, plan.data.transfer.inputs, micro_batch=runtime.micro_batch, device=runtime.device)
    bounded = soft_labels(
        logits,
        plan.labels,
        scores=settings.scores,
        temperature=settings.temperature,
        examples=len(client.examples),
    )
    integers = noised_integers(
        bounded.vector,
        sigma=plan.noise.sigma,
        grid=plan.grid,
        randomness=plan.randomness.secret("release", client.name, number),
    )
    info = {"clipped": bounded.clipped_rows, "zeroed": bounded.zeroed_rows}
    return Saved(arrays={"integers": integers}, info=info)


def remembered_scores(plan: Plan, aggregate: Aggregate, previous: RoundOutcome | None) -> np.ndarray:
    """Mean scores (m, C) of this round, averaged with those before: what was released already costs nothing more."""
    scores = mean_of(plan, aggregate.total, len(aggregate.survivors))
    if previous is None:
        return scores
    memory = plan.experiment.student.memory
    return memory * previous.scores + (1.0 - memory) * scores


def mean_of(plan: Plan, total: np.ndarray, survivors: int) -> np.ndarray:
    """Mean scores (m, C) from a sum of integers."""
    return mean_scores(plan.grid.decode(total), plan.labels, survivors)


def scores_to_consensus(experiment: Experiment, mean: np.ndarray) -> np.ndarray:
    """Mean scores to log-probabilities; entropy-reduced where the configuration says so."""
    student = experiment.student
    sharpness = student.sharpness if student.consensus == "entropy_reduced" else 1.0
    return consensus_log_probabilities(mean, scores=experiment.release.scores, sharpness=sharpness)


def _aggregate(plan: Plan, integers: dict[str, np.ndarray], number: int) -> Saved:
    done = plan.aggregator.aggregate(integers, plan.terms(number))
    info = {
        "survivors": list(done.survivors),
        "upload": {phase: dict(by) for phase, by in done.upload.items()},
        "download": {phase: dict(by) for phase, by in done.download.items()},
    }
    return Saved(arrays={"total": done.total}, info=info)


def _read_aggregate(saved: Saved) -> Aggregate:
    info = saved.info
    return Aggregate(saved.arrays["total"], tuple(info["survivors"]), info["upload"], info["download"])
