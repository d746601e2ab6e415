"""Everything that is settled before anything is trained: split, models, noise, guarantee, bytes.

`securekd run --dry-run` prints a plan; `run` carries it out. Both state the same guarantee, since a plan's is computed
by the accountant from the very events that the run will write to its ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from securekd.checkpoint import Arrays
from securekd.data import Examples, FederatedData, load_federated
from securekd.errors import DataError, ModelError, SettingError
from securekd.federation.aggregation.catalogue import aggregator_named
from securekd.federation.aggregation.seam import Aggregate, Aggregator
from securekd.federation.aggregation.session import add_up
from securekd.federation.agreement import Agreement, Member, labels_digest
from securekd.federation.messages import Instruction
from securekd.federation.party import Equipment, questions_of
from securekd.federation.settle import refuse_large_deltas, settle
from securekd.federation.strategies.catalogue import strategy_named
from securekd.federation.strategies.seam import Strategy
from securekd.federation.sums import terms_of
from securekd.knowledge.questions import Question
from securekd.laboratory.attacks import attack_named
from securekd.laboratory.canaries import Canaries, choose_canaries
from securekd.learning.dp.class_sums import split_white
from securekd.learning.dp.suited import refuse_unsuited
from securekd.learning.fits import Fits
from securekd.learning.plain import batch_sizes
from securekd.learning.prediction import logits
from securekd.learning.tasks import Machine, network_of
from securekd.models.logits import draw
from securekd.models.registry import probe
from securekd.models.shape import InputShape
from securekd.numerics import log_softmax
from securekd.privacy.accountant import Guarantee, guarantees
from securekd.privacy.events import Entry
from securekd.privacy.ledger import SCHEMA, LedgerFile
from securekd.randomness import Randomness
from securekd.settings.experiment import Experiment
from securekd.settings.models import ClientModel, Model
from securekd_attacks import Attack

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
        fits: of models on the transfer set.
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
    fits: Fits
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

    @property
    def equipment(self) -> Equipment:
        """What every party comes with."""
        return Equipment(self.agreement, self.strategy, self.aggregator, self.data.transfer, self.fits, self.machine)

    def logits(self, model: Model, state: Arrays, inputs: np.ndarray) -> np.ndarray:
        """What a model with these weights says of inputs (N, ...): float64 (N, C), without its background."""
        found = logits(self.machine, self.agreement.shape, model, state, self.fits.of(model), inputs)
        return found[:, : self.agreement.shape.classes]

    def log_probabilities(self, model: Model, state: Arrays, inputs: np.ndarray) -> np.ndarray:
        """The same as log-probabilities."""
        return log_softmax(self.logits(model, state, inputs))

    @cached_property
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
    shape = InputShape(data.modality, data.input_shape, len(data.classes), data.vocabulary or 0, pieces=data.pieces)
    shape = shape.with_statistics(data.transfer.inputs)
    if len(data.test) < FEWEST_TESTED:
        raise DataError(f"the test set has {len(data.test)} rows, too few to measure anything; raise data.test")
    models = experiment.client_models(len(data.clients))
    clients = tuple(
        PlannedClient(f"client-{i:02}", name, examples, model)
        for i, (name, examples, model) in enumerate(zip(data.client_names, data.clients, models, strict=True), start=1)
    )
    members = tuple(Member(name=c.name, model=c.model, examples=c.size) for c in clients)
    refuse_large_deltas(experiment, members)
    strategy.refuse_unfit(experiment, members, shape, len(data.transfer))
    fits = Fits(data.transfer.inputs, shape)
    _check_models(experiment, clients, shape, fits)
    aggregator = aggregator_named(experiment.aggregation)
    agreement = settle(
        experiment,
        strategy,
        aggregator,
        members,
        shape=shape,
        classes=data.classes,
        transfer_rows=len(data.transfer),
        transfer_sha256=data.transfer_digest.hex(),
        labels_sha256=labels_digest(data.transfer),
    )
    plan = Plan(
        experiment=experiment,
        data=data,
        agreement=agreement,
        strategy=strategy,
        aggregator=aggregator,
        clients=clients,
        attacks=attacks,
        fits=fits,
        canaries=_canaries(experiment, data),
    )
    if experiment.audit.replays and not plan.question.release.mechanism.sigma:
        raise SettingError(
            f"audit.replays = {experiment.audit.replays} measures the noise of releases, and there is none; set "
            "release.noise (fedavg.noise for weights) or privacy.client_epsilon, or leave audit.replays out"
        )
    return plan


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


def _check_models(experiment: Experiment, clients: Sequence[PlannedClient], shape: InputShape, fits: Fits) -> None:
    private: list[ClientModel] = [*(c.model for c in clients), central_model(experiment)]
    for model in {repr(m): m for m in private}.values():
        network = network_of(model, shape, 0, None, fits.of(model))
        if model.loss == "class_sums":
            split_white(network)
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


def central_model(experiment: Experiment) -> ClientModel:
    """The model of the centralised yardstick."""
    return experiment.centralized.model or ClientModel(**vars(experiment.student.model))
