"""Who teaches whom in a round.

`Distil` is federated distillation: clients train on private data, release bounded and noised scores on the transfer
set, the server distils their mean into the student, and clients learn it before they train again. `Pate` counts votes
instead, and `FedAvg` (`averaging`) sends weights. A strategy of an own kind is plugged in as
`strategy = "module:attribute"`: an object with `play`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from securekd.checkpoint import Arrays, Saved
from securekd.errors import RunError
from securekd.federation.averaging import FedAvg
from securekd.federation.consensus import Known, consensus_of, mean_of, remembered, scores_to_consensus, winners
from securekd.federation.rounds import (
    Answer,
    RoundOutcome,
    Strategy,
    Workshop,
    ask,
    finish_round,
    private_task,
    public_lessons,
    student_task,
    train_clients,
)
from securekd.knowledge.bounded import Bounded, weighted
from securekd.knowledge.questions import Question
from securekd.knowledge.soft_labels import soft_labels
from securekd.laboratory.plan import Plan, PlannedClient
from securekd.learning.prediction import logits
from securekd.learning.tasks import Lesson, TrainTask
from securekd.plugins import named
from securekd.privacy.release import ReleasePhase


@dataclass(frozen=True, eq=False)
class Consensus:
    """What a student learns of transfer rows, and clients before they train again.

    Attributes:
        rows: the transfer rows that were answered.
        known: mean scores of all transfer rows, with what is remembered of the rounds before.
        learnt: the transfer rows that the student learnt.
        log_probabilities: (learnt, C), made of their scores.
    """

    rows: np.ndarray
    known: Known
    learnt: np.ndarray
    log_probabilities: np.ndarray

    name = "consensus"

    @property
    def size(self) -> int:
        """Log-probabilities in it."""
        return self.log_probabilities.size

    def surrogate(self, plan: Plan, total: np.ndarray, survivors: int, *name: str | int) -> TrainTask:
        """Distil a model of one's own from the mean scores of the rows that were answered."""
        consensus = scores_to_consensus(plan.experiment, plan.question.mean(total, survivors))
        return student_task(plan, *name, lessons=(lesson(plan, self.rows, consensus),))

    def answered(self, plan: Plan, client: PlannedClient, state: Arrays, *, clipped: bool) -> np.ndarray:
        """A client's scores on the rows that were answered, before noise."""
        question, trained = plan.question, {client.name: Saved(arrays=state)}
        if clipped:
            return scores(plan, question, self.rows, trained, client).vector
        shape = question.labels
        raw = scores(plan, replace(question, knowledge=shape.unclipped), self.rows, trained, client).vector
        return raw if shape.weight_cap is None else weighted(raw, shape.clip.bound, client.size, shape.weight_cap)


class Distil:
    """Federated distillation over a shared transfer set (FedMD, Li and Wang 2019; FedDF, Lin et al. 2020)."""

    def play(self, workshop: Workshop, number: int, previous: RoundOutcome | None) -> RoundOutcome:
        """Train, release, aggregate, distil."""
        plan = workshop.plan
        trained = train_on_consensus(workshop, number, previous)
        rows = plan.rows(number)
        answer = ask_scores(workshop, number, "release", plan.question, rows, trained)
        before = None if previous is None else consensus_in(previous).known
        memory = plan.experiment.student.memory
        known = remembered(mean_of(plan.question, answer.aggregate), rows, before, len(plan.data.transfer), memory)
        learnt = np.flatnonzero(np.isfinite(known.scores).all(axis=1))
        consensus = consensus_of(plan, known, learnt)
        return distil(workshop, number, trained, answer, Consensus(rows, known, learnt, consensus))


class Pate:
    """Noisy votes on transfer rows, and a student that learns each row's winner (GNMax, Papernot et al. 2018).

    With `pate.threshold`, a first noisy count finds rows with a clear winner (confident GNMax, section 4.1 there);
    these are answered first, and only they are learnt. Counts are secure sums: the server sees all of a noisy count,
    not its winner alone, and the ledger charges for all of it, whatever the votes were.
    """

    def play(self, workshop: Workshop, number: int, previous: RoundOutcome | None) -> RoundOutcome:
        """Train, count votes, distil winners."""
        plan = workshop.plan
        trained = train_on_consensus(workshop, number, previous)
        rows, clear = plan.rows(number), None
        if plan.check is not None:
            rows, clear = self._clear_rows(workshop, number, plan.check, trained)
        answer = ask_scores(workshop, number, "release", plan.question, rows, trained)
        known = remembered(mean_of(plan.question, answer.aggregate), rows, None, len(plan.data.transfer), 0.0)
        learnt = rows if clear is None else clear
        taught = Consensus(rows, known, learnt, winners(known.scores[learnt]))
        return distil(workshop, number, trained, answer, taught)

    def _clear_rows(
        self, workshop: Workshop, number: int, check: Question, trained: dict[str, Saved]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows to be answered, as many as the ledger is charged for, and those of them that have a clear winner."""
        plan = workshop.plan
        every = np.arange(check.labels.rows)
        counted = ask_scores(workshop, number, "threshold", check, every, trained)
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


STRATEGIES: dict[str, Callable[[], Strategy]] = {"distil": Distil, "pate": Pate, "fedavg": FedAvg}


def strategy_named(name: str) -> Strategy:
    """The strategy that a configuration names."""
    return named("strategy", name, STRATEGIES)


def ask_scores(
    workshop: Workshop,
    number: int,
    phase: ReleasePhase,
    question: Question,
    rows: np.ndarray,
    trained: dict[str, Saved],
) -> Answer:
    """Have every client score transfer rows."""
    plan = workshop.plan
    return ask(workshop, number, phase, question, plan.digest(rows), partial(scores, plan, question, rows, trained))


def scores(
    plan: Plan, question: Question, rows: np.ndarray, trained: dict[str, Saved], client: PlannedClient
) -> Bounded:
    """One client's bounded scores on transfer rows."""
    settings = plan.experiment.release
    return soft_labels(
        logits(plan, client.model, trained[client.name].arrays, plan.data.transfer.inputs[rows]),
        question.labels,
        temperature=settings.temperature,
        examples=client.size,
        top_k=settings.top_k,
        nonfinite=settings.nonfinite,
    )


def distil(
    workshop: Workshop, number: int, trained: dict[str, Saved], answer: Answer, taught: Consensus
) -> RoundOutcome:
    """Distil the consensus into the student, from its initial weights, and note what the round did."""
    plan = workshop.plan
    task = student_task(plan, number, lessons=(lesson(plan, taught.learnt, taught.log_probabilities),))
    student = workshop.store.phase(f"distil.{number}", lambda: next(workshop.perform([task])))
    return finish_round(number, trained, answer, taught, student.arrays)


def train_on_consensus(workshop: Workshop, number: int, previous: RoundOutcome | None) -> dict[str, Saved]:
    """Have every client learn what is public, then train on what is private."""
    return train_clients(workshop, number, lambda client: client_task(workshop.plan, client, number, previous))


def client_task(plan: Plan, client: PlannedClient, number: int, previous: RoundOutcome | None) -> TrainTask:
    """What a client does before its release."""
    name = ("client", client.name, number)
    if previous is None:
        return private_task(plan, name, client, state=None, lessons=public_lessons(plan))
    learnt = digest(plan, consensus_in(previous))
    return private_task(plan, name, client, state=previous.clients[client.name], lessons=(learnt,))


def consensus_in(outcome: RoundOutcome) -> Consensus:
    """The consensus of a round that made one."""
    if not isinstance(outcome.taught, Consensus):
        raise RunError(f"round {outcome.number} left no consensus but a {outcome.taught.name}")
    return outcome.taught


def digest(plan: Plan, taught: Consensus) -> Lesson:
    """A client's lesson in the consensus of the round before (FedMD's digest)."""
    training = plan.experiment.training
    return replace(
        lesson(plan, taught.learnt, taught.log_probabilities),
        epochs=training.digest_epochs,
        learning_rate=training.digest_learning_rate,
    )


def lesson(plan: Plan, rows: np.ndarray, consensus: np.ndarray) -> Lesson:
    """The student's lesson: log-probabilities (rows, C) of transfer rows."""
    student = plan.experiment.student
    return Lesson(
        inputs=plan.data.transfer.inputs[rows],
        soft_labels=consensus,
        labels=None,
        epochs=student.epochs,
        batch_size=student.batch_size,
        learning_rate=student.learning_rate,
        loss=student.loss,
        temperature=student.temperature,
    )
