"""Everything that is settled before anything is trained: split, models, noise, guarantee, bytes.

`securekd run --dry-run` prints a plan; `run` carries it out. Both state the same guarantee, since a plan's is computed
by the accountant from the very events that the run will write to its ledger.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from securekd.data import Examples, FederatedData, load_federated
from securekd.data.examples import transfer_digest
from securekd.data.features import public_features
from securekd.errors import BudgetError, DataError, ModelError, SettingError
from securekd.federation.aggregation import Aggregate, Aggregator, LimitedAggregator, Terms, aggregator_named
from securekd.knowledge.questions import Question, questions
from securekd.knowledge.weights import refuse_mixed, refuse_statistics
from securekd.laboratory.canaries import Canaries, choose_canaries
from securekd.learning.dp.dp_sgd import DpSgdPlan
from securekd.models.shape import InputShape
from securekd.privacy.accountant import Guarantee, calibrate_dp_sgd, guarantees
from securekd.privacy.events import DpSgdEvent, Entry, Unit, UnprotectedEvent
from securekd.privacy.ledger import SCHEMA, LedgerFile
from securekd.privacy.mechanisms import refuse_unreachable
from securekd.privacy.release import Exposure, unknown_shares
from securekd.randomness import Randomness
from securekd.settings.experiment import Experiment
from securekd.settings.models import ClientModel, Model
from securekd_protocols import ProtocolError, recommended_threshold

# Fewer test rows than this leave the audit's two halves empty.
FEWEST_TESTED = 8

if TYPE_CHECKING:  # they work on a plan, and a plan holds them
    from securekd.federation.rounds import Strategy
    from securekd_attacks import Attack


@dataclass(frozen=True)
class PlannedClient:
    """One client: its data and its model.

    Attributes:
        key: its number as a word, which names its files; `name` may be anything.
        name: as the data has it.
        examples: private, as it trains on them.
        model: to be trained.
        absent: canaries of its own whose coins kept them out of `examples`.
    """

    key: str
    name: str
    examples: Examples
    model: ClientModel
    absent: int = 0

    @property
    def size(self) -> int:
        """Its number of examples, which is public to the example-level guarantee."""
        return len(self.examples) + self.absent


@dataclass(frozen=True, eq=False)
class Plan:
    """A run, settled.

    Attributes:
        experiment: what was asked for.
        data: split and dealt.
        shape: of inputs and classes.
        clients: in order.
        dp: DP-SGD of one round; None without.
        question: what clients answer in a round.
        check: the votes that are counted before it (confident GNMax); None otherwise.
        threshold: fewest survivors whose sum is opened.
        aggregator: how releases are added up.
        strategy: who teaches whom.
        attacks: how leakage is measured.
        shared: folder in which several runs keep what they have in common; None: none.
        canaries: records that coins keep in or out of training; None without.
    """

    experiment: Experiment
    data: FederatedData
    shape: InputShape
    clients: tuple[PlannedClient, ...]
    dp: DpSgdPlan | None
    question: Question
    check: Question | None
    threshold: int
    aggregator: Aggregator
    strategy: "Strategy"
    attacks: "tuple[Attack, ...]"
    shared: Path | None = None
    canaries: Canaries | None = None

    @property
    def randomness(self) -> Randomness:
        """Where this run's randomness comes from."""
        return Randomness(self.experiment.privacy.noise, self.experiment.seed)

    @property
    def delta(self) -> dict[Unit, float]:
        """δ by unit."""
        return {"example": self.experiment.privacy.delta, "client": self.experiment.privacy.client_delta}

    def training_entry(self, client: str, round_number: int, steps: int | None = None) -> Entry:
        """The ledger's entry for one client's training in one round."""
        event: DpSgdEvent | UnprotectedEvent
        if self.dp is None:
            event = UnprotectedEvent(why="the clients train without DP-SGD (privacy.dp_sgd = false)")
        else:
            event = DpSgdEvent(
                sampling_rate=self.dp.sampling_rate,
                noise_multiplier=self.dp.noise_multiplier,
                steps=steps or self.dp.steps,
            )
        return Entry(
            client=client,
            round=round_number,
            phase="train",
            unit="example",
            neighbours=self.experiment.privacy.neighbours,
            views=("server", "clients", "public"),
            event=event,
        )

    @cached_property
    def transfer_features(self) -> np.ndarray:
        """Public features (m, p) of the transfer set, for a student that denoises."""
        return public_features(self.data.transfer)

    def rows(self, round_number: int) -> np.ndarray:
        """The transfer rows that a round's question is about, ascending: all, none, or a public draw."""
        m = len(self.data.transfer)
        chosen = self.randomness.public("rows", round_number).permutation(m)[: self.question.knowledge.rows]
        return np.sort(chosen)

    def digest(self, rows: np.ndarray) -> bytes:
        """SHA-256 of transfer rows and class map: what all clients of a session must have been asked."""
        return transfer_digest(self.data.transfer.take(rows), self.data.classes)

    def dropouts(self, round_number: int) -> frozenset[str]:
        """Who falls silent in this round."""
        order = self.randomness.public("dropouts", round_number).permutation(len(self.clients))
        return frozenset(self.clients[i].name for i in order[: self.experiment.cohort.dropouts])

    def terms(self, round_number: int, question: Question, context: bytes) -> Terms:
        """What the clients of a session agree on; `context` is a digest of what they are asked about."""
        return Terms(
            magnitude=question.release.mechanism.magnitude,
            noise_variance=int((question.release.mechanism.sigma / question.release.mechanism.step) ** 2),
            threshold=self.threshold,
            colluders=self.experiment.cohort.colluders,
            context=context,
            round_number=round_number,
            dropouts=self.dropouts(round_number),
        )

    def ledger(self) -> LedgerFile:
        """The ledger as it will be at the end, but for digests of what is not known yet.

        These are the rows that confident GNMax will answer, and the global models that updates will start from.
        """
        entries: list[Entry] = []
        every = self.digest(np.arange(len(self.data.transfer))).hex()
        for r in range(1, self.experiment.rounds + 1):
            asked = self.digest(self.rows(r)).hex()
            for c in self.clients:
                entries.append(self.training_entry(c.name, r))
                if self.check is not None:
                    entries += self.check.release.entries(c.name, r, every, "threshold")
                entries += self.question.release.entries(c.name, r, asked)
        return LedgerFile(schema=SCHEMA, noise=self.experiment.privacy.noise, delta=self.delta, entries=tuple(entries))

    def guarantees(self) -> tuple[Guarantee, ...]:
        """What the run will be able to promise."""
        return guarantees(self.ledger())

    def planted(self, included: np.ndarray) -> "Plan":
        """This plan with its canaries planted as coins (M,) fell; `data` stays as it was dealt."""
        if self.canaries is None:
            return self
        canaries = self.canaries.tossed(included)
        clients = tuple(
            replace(c, examples=changed, absent=len(c.examples) - len(changed))
            for c, changed in ((c, canaries.planted(i, c.examples)) for i, c in enumerate(self.clients))
        )
        return replace(self, clients=clients, canaries=canaries)

    def rehearse(self) -> list[Aggregate]:
        """A round's aggregations, of zeros in place of releases: their bytes are those of a round."""
        questions = [(self.question, self.rows(1))]
        if self.check is not None:
            questions.append((self.check, np.arange(len(self.data.transfer))))
        return [
            self.aggregator.aggregate(
                {c.name: np.zeros(q.knowledge.length, np.int64) for c in self.clients},
                self.terms(1, q, self.digest(rows)),
            )
            for q, rows in questions
        ]


def make_plan(experiment: Experiment) -> Plan:
    """Load the data and settle everything; nothing is trained and nothing is written.

    Raises:
        InputError: for whatever is wrong with the request; the message names the value and the remedy.
    """
    from securekd.federation.strategy import strategy_named
    from securekd.laboratory.leakage import attack_named

    strategy = strategy_named(experiment.strategy)
    attacks = tuple(attack_named(name) for name in experiment.audit.attacks)
    _check_device(experiment.runtime.device)
    data = load_federated(experiment.data, experiment.client_count(), experiment.seed)
    shape = InputShape(data.modality, data.input_shape, len(data.classes), data.vocabulary or 0)
    shape = shape.with_statistics(data.transfer.inputs)
    if len(data.test) < FEWEST_TESTED:
        raise DataError(f"the test set has {len(data.test)} rows, too few to measure anything; raise data.test")
    models = experiment.client_models(len(data.clients))
    clients = tuple(
        PlannedClient(f"client-{i:02}", name, examples, model)
        for i, (name, examples, model) in enumerate(zip(data.client_names, data.clients, models, strict=True), start=1)
    )
    _check_deltas(experiment, clients)
    _check_models(experiment, clients, shape, len(data.transfer))
    summing = aggregator_named(experiment.aggregation)
    threshold = _threshold(experiment, len(clients), summing)
    exposure = Exposure(
        neighbours=experiment.privacy.client_neighbours,
        unknown_shares=unknown_shares(
            sums_only=summing.sums_only, threshold=threshold, colluders=experiment.cohort.colluders
        ),
        sampling_rate=experiment.cohort.sampling_rate,
    )
    question, check = questions(experiment, len(data.transfer), shape, exposure)
    for asked in (question, check):
        if asked is not None:
            refuse_unreachable(asked.release.mechanism, len(clients))
            if isinstance(summing, LimitedAggregator):
                summing.refuse_unfit(len(clients), asked.knowledge.length, asked.release.mechanism.magnitude)
    if experiment.audit.replays and not question.release.mechanism.sigma:
        raise SettingError(
            f"audit.replays = {experiment.audit.replays} measures the noise of releases, and there is none; set "
            "release.noise (fedavg.noise for weights) or privacy.client_epsilon, or leave audit.replays out"
        )
    return Plan(
        experiment=experiment,
        data=data,
        shape=shape,
        clients=clients,
        dp=_dp_plan(experiment),
        question=question,
        check=check,
        threshold=threshold,
        aggregator=summing,
        strategy=strategy,
        attacks=attacks,
        canaries=_canaries(experiment, data),
    )


def _canaries(experiment: Experiment, data: FederatedData) -> Canaries | None:
    audit = experiment.audit
    if not audit.canaries:
        return None
    rng = Randomness("seeded", experiment.seed).public("canaries")
    return choose_canaries(data.clients, audit.canary_kinds, audit.canaries, len(data.classes), rng)


def _check_device(name: str) -> None:
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"runtime.device = {name!r} cannot be used here: {reason}; cpu always can") from error


def _check_deltas(experiment: Experiment, clients: tuple[PlannedClient, ...]) -> None:
    largest = max(clients, key=lambda c: len(c.examples))
    privacy = experiment.privacy
    if privacy.dp_sgd and privacy.delta >= 1 / len(largest.examples):
        raise BudgetError(
            f"privacy.delta = {privacy.delta} is not below 1/{len(largest.examples)}, the examples of {largest.name}: "
            f"it would allow giving one example away whole; take {0.1 / len(largest.examples):.0e} or less"
        )
    if privacy.client_delta >= 1 / len(clients):
        raise BudgetError(
            f"privacy.client_delta = {privacy.client_delta} is not below 1/{len(clients)}, the number of clients; "
            f"take {0.1 / len(clients):.0e} or less"
        )


def _check_models(experiment: Experiment, clients: tuple[PlannedClient, ...], shape: InputShape, transfer: int) -> None:
    from securekd.learning.dp.suited import refuse_unsuited
    from securekd.learning.plain import batch_sizes
    from securekd.models.logits import draw
    from securekd.models.registry import build, probe

    student = build(experiment.student.model, shape, seed=0)
    if experiment.strategy == "fedavg":
        refuse_mixed(experiment.student.model, [(c.name, c.model) for c in clients])
        refuse_statistics(student, probe(shape, 3))
    else:
        batch = experiment.student.batch_size
        batch_sizes(student.train(), draw(shape, min(batch + 1, transfer)), transfer, batch)
    private: list[Model] = [*(c.model for c in clients), central_model(experiment)]
    for model in {repr(m): m for m in private}.values():
        network = build(model, shape, seed=0)
        if experiment.privacy.dp_sgd:
            try:
                refuse_unsuited(network, probe(shape, 3))
            except ModelError as error:
                if any(c.model == model for c in clients):
                    raise
                raise ModelError(f"the centralised yardstick: {error}; or set centralized.model") from error
            continue
        held = [len(c.examples) for c in clients]
        for rows in {n for n, c in zip(held, clients, strict=True) if c.model == model} | {sum(held)}:
            batch = min(experiment.training.plain_batch_size, rows)
            batch_sizes(network.train(), draw(shape, min(batch + 1, rows)), rows, batch)


def central_model(experiment: Experiment) -> Model:
    """The model of the centralised yardstick."""
    return experiment.centralized.model or experiment.student.model


def _threshold(experiment: Experiment, clients: int, summing: Aggregator) -> int:
    cohort = experiment.cohort
    try:
        lowest = recommended_threshold(clients, cohort.colluders) if summing.sums_only else 2
    except ProtocolError as error:
        raise SettingError(f"{clients} clients, of whom {cohort.colluders} may collude: {error}") from error
    threshold = lowest if cohort.threshold is None else cohort.threshold
    if threshold < lowest:
        raise SettingError(
            f"cohort.threshold = {threshold} is unsafe for {clients} clients of whom {cohort.colluders} may collude: "
            f"a server could open two sums; take {lowest} or more"
        )
    if clients - cohort.dropouts < threshold:
        raise SettingError(
            f"cohort.dropouts = {cohort.dropouts} leaves {clients - cohort.dropouts} of {clients} clients, and "
            f"{threshold} must survive; lower it, or have more clients"
        )
    return threshold


def _dp_plan(experiment: Experiment) -> DpSgdPlan | None:
    if not experiment.privacy.dp_sgd:
        return None
    training, privacy = experiment.training, experiment.privacy
    steps = math.floor(training.epochs / training.sampling_rate / experiment.rounds + 1e-9)
    if steps < 1:
        raise SettingError(
            f"training.epochs = {training.epochs} at sampling rate {training.sampling_rate} leaves no step for each of "
            f"{experiment.rounds} rounds; raise it to {training.sampling_rate * experiment.rounds:g} or more"
        )
    noise_multiplier = calibrate_dp_sgd(
        training.sampling_rate, steps * experiment.rounds, privacy.epsilon, privacy.delta, privacy.neighbours
    )
    return DpSgdPlan(training.sampling_rate, steps, noise_multiplier, training.clip)
