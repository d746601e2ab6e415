"""Everything that is settled before anything is trained: split, models, noise, guarantee, bytes.

`securekd run --dry-run` prints a plan; `run` carries it out. Both state the same guarantee, since a plan's is computed
by the accountant from the very events that the run will write to its ledger.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from securekd.checkpoint import Arrays
from securekd.data import Examples, FederatedData, load_federated
from securekd.errors import BudgetError, DataError, ModelError, SettingError
from securekd.federation.aggregation.catalogue import aggregator_named
from securekd.federation.aggregation.seam import Aggregate, Aggregator, Limited
from securekd.federation.aggregation.session import add_up
from securekd.federation.agreement import Agreement, Asked, Member
from securekd.federation.messages import Instruction
from securekd.federation.party import questions_of
from securekd.federation.strategies.catalogue import strategy_named
from securekd.federation.strategies.seam import Strategy, trainings_of
from securekd.federation.sums import terms_of
from securekd.knowledge.questions import Question, questions, refuse_pairs
from securekd.laboratory.attacks import attack_named
from securekd.laboratory.canaries import Canaries, choose_canaries
from securekd.learning.dp.dp_sgd import DpSgdPlan
from securekd.learning.dp.suited import refuse_unsuited
from securekd.learning.plain import batch_sizes
from securekd.learning.prediction import logits
from securekd.learning.tasks import Machine
from securekd.models.logits import draw
from securekd.models.registry import build, probe
from securekd.models.shape import InputShape
from securekd.numerics import log_softmax
from securekd.privacy.accountant import Guarantee, calibrate_dp_sgd, guarantees
from securekd.privacy.events import Entry
from securekd.privacy.ledger import SCHEMA, LedgerFile
from securekd.privacy.mechanisms import refuse_unreachable
from securekd.privacy.release import Exposure, unknown_shares
from securekd.randomness import Randomness
from securekd.settings.experiment import Experiment
from securekd.settings.models import ClientModel, Model
from securekd_attacks import Attack
from securekd_protocols import ProtocolError, recommended_threshold

# Fewer test rows than this leave the audit's two halves empty.
FEWEST_TESTED = 8


@dataclass(frozen=True)
class PlannedClient:
    """One client, whom the laboratory plays: its data and its model.

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
    """A run, settled: what the parties agree on, and what each of them holds, since the laboratory plays them all.

    Attributes:
        experiment: what was asked for.
        data: split and dealt.
        agreement: of the parties.
        strategy: who teaches whom.
        aggregator: how releases are added up.
        clients: in order.
        attacks: how leakage is measured.
        shared: folder in which several runs keep what they have in common; None: none.
        canaries: records that coins keep in or out of training; None without.
    """

    experiment: Experiment
    data: FederatedData
    agreement: Agreement
    strategy: Strategy
    aggregator: Aggregator
    clients: tuple[PlannedClient, ...]
    attacks: tuple[Attack, ...]
    shared: Path | None = None
    canaries: Canaries | None = None

    @property
    def randomness(self) -> Randomness:
        """Where this run's randomness comes from."""
        return self.agreement.randomness

    @property
    def machine(self) -> Machine:
        """Where everything is computed."""
        runtime = self.experiment.runtime
        return Machine(runtime.micro_batch, runtime.device, self.shared)

    def logits(self, model: Model, state: Arrays, inputs: np.ndarray) -> np.ndarray:
        """What a model with these weights says of inputs (N, ...): (N, C), float64."""
        return logits(self.machine, self.agreement.shape, model, state, inputs)

    def log_probabilities(self, model: Model, state: Arrays, inputs: np.ndarray) -> np.ndarray:
        """The same as log-probabilities."""
        return log_softmax(self.logits(model, state, inputs))

    @property
    def questions(self) -> tuple[Question, ...]:
        """What clients are asked in a round, in order: whatever comes first, then the release that is learnt."""
        return tuple(sorted(questions_of(self.agreement, self.strategy).values(), key=lambda q: q.phase == "release"))

    @property
    def question(self) -> Question:
        """The release that is learnt."""
        return self.questions[-1]

    def silent(self, round_number: int) -> frozenset[str]:
        """Who falls silent in this round."""
        order = self.randomness.public("dropouts", round_number).permutation(len(self.clients))
        return frozenset(self.clients[i].name for i in order[: self.experiment.cohort.dropouts])

    def ledger(self) -> LedgerFile:
        """The ledger as it will be at the end, but for digests of what is not known yet.

        These are the rows that confident GNMax will answer, and the global models that updates will start from.
        """
        entries: list[Entry] = []
        for r in range(1, self.experiment.rounds + 1):
            asked = [(q, self._about(q, r)) for q in self.questions]
            for c in self.clients:
                entries += [self.agreement.training_entry(c.name, r, e + 1) for e in range(self.agreement.trainings)]
                for question, about in asked:
                    for exchange in range(1, question.exchanges + 1):
                        entries += question.release.entries(c.name, r, about, question.phase, exchange)
        delta = self.agreement.delta
        return LedgerFile(schema=SCHEMA, noise=self.experiment.privacy.noise, delta=delta, entries=tuple(entries))

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
        silent = self.silent(1)
        return [
            add_up(
                self.aggregator,
                {c.name: np.zeros(question.knowledge.length, np.int64) for c in self.clients},
                terms_of(self.agreement, question, Instruction(1, question.phase, self.agreement.digest)),
                silent=silent,
            )
            for question in reversed(self.questions)
            for _ in range(question.exchanges)
        ]

    def _about(self, question: Question, number: int) -> str:
        """Digest of the transfer rows that a question is about, where they are settled by now."""
        rows = self.agreement.rows(number, question.knowledge.rows)
        return self.agreement.rows_digest(self.data.transfer, rows).hex()


def make_plan(experiment: Experiment) -> Plan:
    """Load the data and settle everything; nothing is trained and nothing is written.

    Raises:
        InputError: for whatever is wrong with the request; the message names the value and the remedy.
    """
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
    members = tuple(Member(name=c.name, model=c.model, examples=c.size) for c in clients)
    _check_deltas(experiment, clients)
    strategy.refuse_unfit(experiment, members, shape, len(data.transfer))
    _check_models(experiment, clients, shape)
    aggregator = aggregator_named(experiment.aggregation)
    agreement = agreed(experiment, strategy, aggregator, data, shape, members)
    plan = Plan(
        experiment=experiment,
        data=data,
        agreement=agreement,
        strategy=strategy,
        aggregator=aggregator,
        clients=clients,
        attacks=attacks,
        canaries=_canaries(experiment, data),
    )
    if experiment.audit.replays and not plan.question.release.mechanism.sigma:
        raise SettingError(
            f"audit.replays = {experiment.audit.replays} measures the noise of releases, and there is none; set "
            "release.noise (fedavg.noise for weights) or privacy.client_epsilon, or leave audit.replays out"
        )
    return plan


def agreed(
    experiment: Experiment,
    strategy: Strategy,
    aggregator: Aggregator,
    data: FederatedData,
    shape: InputShape,
    members: tuple[Member, ...],
) -> Agreement:
    """What parties agree on who do what an experiment says.

    Raises:
        InputError: for settings that contradict each other, or targets that cannot be met.
    """
    threshold = _threshold(experiment, len(members), aggregator)
    exposure = Exposure(
        neighbours=experiment.privacy.client_neighbours,
        unknown_shares=unknown_shares(
            sums_only=aggregator.sums_only, threshold=threshold, colluders=experiment.cohort.colluders
        ),
        sampling_rate=experiment.cohort.sampling_rate,
    )
    refuse_pairs(experiment)
    asked = questions(experiment, strategy.asks(experiment, shape, len(data.transfer)), exposure)
    for one in asked:
        refuse_unreachable(one.release.mechanism, len(members))
        if isinstance(aggregator, Limited):
            aggregator.refuse_unfit(len(members), one.knowledge.length, one.release.mechanism.magnitude)
    return Agreement(
        settings=experiment,
        shape=shape,
        classes=data.classes,
        transfer=len(data.transfer),
        transfer_sha256=data.transfer_digest.hex(),
        members=members,
        threshold=threshold,
        dp=_dp_plan(experiment, trainings_of(strategy)),
        asked=tuple(
            Asked(
                phase=one.phase,
                exchanges=one.exchanges,
                bounds=one.knowledge.bounds,
                sigma=one.release.mechanism.sigma,
                step=one.release.mechanism.step,
                exposure=exposure,
                unit=one.release.unit,
            )
            for one in asked
        ),
        trainings=trainings_of(strategy),
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


def _check_models(experiment: Experiment, clients: Sequence[PlannedClient], shape: InputShape) -> None:
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


def _dp_plan(experiment: Experiment, trainings: int) -> DpSgdPlan | None:
    if not experiment.privacy.dp_sgd:
        return None
    training, privacy = experiment.training, experiment.privacy
    times = experiment.rounds * trainings
    steps = math.floor(training.epochs / training.sampling_rate / times + 1e-9)
    if steps < 1:
        raise SettingError(
            f"training.epochs = {training.epochs} at sampling rate {training.sampling_rate} leaves no step for each of "
            f"{times} rounds; raise it to {training.sampling_rate * times:g} or more"
        )
    noise_multiplier = calibrate_dp_sgd(
        training.sampling_rate, steps * times, privacy.epsilon, privacy.delta, privacy.neighbours
    )
    return DpSgdPlan(training.sampling_rate, steps, noise_multiplier, training.clip)
