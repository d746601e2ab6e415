"""What both sides of a federation are: somebody who has agreed, and has what everybody has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from securekd.data.examples import Examples, transfer_digest
from securekd.errors import AgreementError, RunError
from securekd.federation.aggregation.seam import Aggregator
from securekd.federation.agreement import Agreement, labels_digest
from securekd.federation.messages import Instruction
from securekd.federation.strategies.seam import Strategy, trainings_of
from securekd.knowledge.questions import Question, Wanted
from securekd.learning.fits import Fits
from securekd.learning.tasks import Lesson, Machine
from securekd.privacy.events import Unit
from securekd.privacy.mechanisms import Bounds
from securekd.privacy.release import ReleasePhase

_A_CLIENTS = (
    "member number examples key weights private_task logits answer entries trained noted released finish join say"
)
_THE_SERVERS = "played features public_task train ask hear learn keep receive part"
WHOSE = dict.fromkeys(_A_CLIENTS.split(), "a client's") | dict.fromkeys(_THE_SERVERS.split(), "the server's")
"""Whose each thing is that one side has and the other has not."""


@dataclass(frozen=True, eq=False)
class Equipment:
    """What a party comes with.

    Attributes:
        agreement: with everybody.
        strategy: that it names.
        aggregator: that it names.
        transfer: the public transfer set.
        fits: of models on it.
        machine: where this party computes.
    """

    agreement: Agreement
    strategy: Strategy
    aggregator: Aggregator
    transfer: Examples
    fits: Fits
    machine: Machine


class Party:
    """Somebody who has agreed.

    Raises:
        AgreementError: the transfer set, or what the strategy asks, is not what was agreed on.
    """

    kind: ClassVar[str]

    def __init__(self, equipment: Equipment) -> None:
        self.agreement = agreement = equipment.agreement
        self.strategy = equipment.strategy
        self.aggregator = equipment.aggregator
        self.transfer = transfer = equipment.transfer
        self.fits = equipment.fits
        self.machine = equipment.machine
        found = transfer_digest(transfer, agreement.classes).hex()
        if found != agreement.transfer_sha256:
            raise AgreementError(
                f"the transfer set of {self.kind} has the digest {found[:16]}…, and {agreement.transfer_sha256[:16]}… "
                "was agreed on; take the same rows in the same order, under the same settings"
            )
        if labels_digest(transfer) != agreement.labels_sha256:
            raise AgreementError(
                f"the labels of the transfer set of {self.kind} are not those that were agreed on; take the same, or "
                "none where none were"
            )
        self._questions = questions_of(agreement, self.strategy)

    if not TYPE_CHECKING:  # a type checker knows what is there

        def __getattr__(self, name: str) -> object:
            """Say whose it is that a half was reading."""
            if hasattr(type(self), name):  # it is here, and computing it fails
                return object.__getattribute__(self, name)
            whose = f": it is {WHOSE[name]}" if name in WHOSE else ""
            raise AttributeError(f"{self.kind} has no {name!r}{whose}")

    def question(self, phase: ReleasePhase) -> Question:
        """What is asked in a phase, with its bounds and its noise.

        Raises:
            RunError: Nothing is.
        """
        if phase not in self._questions:
            asked = ", ".join(self._questions)
            raise RunError(f"nothing is asked in the phase {phase!r}; this strategy asks in {asked}")
        return self._questions[phase]

    def public_lessons(self) -> tuple[Lesson, ...]:
        """Pre-training on the transfer set, where its labels are public."""
        if self.transfer.labels is None:
            return ()
        settings = self.agreement.settings
        return (
            Lesson(
                inputs=self.transfer.inputs,
                soft_labels=None,
                labels=self.transfer.labels,
                epochs=settings.training.pretrain_epochs,
                batch_size=settings.student.batch_size,
                learning_rate=settings.training.digest_learning_rate,
            ),
        )

    def about(self, asked: Instruction) -> bytes:
        """Digest of what a question is about, as this party sees it."""
        return self.strategy.about(self, asked)


def questions_of(agreement: Agreement, strategy: Strategy) -> dict[ReleasePhase, Question]:
    """What a strategy asks under an agreement, by phase.

    Raises:
        AgreementError: The agreement states other phases or bounds: it was made for another strategy, or another
            release of it.
    """
    wanted = {w.phase: w for w in strategy.asks(agreement.settings, agreement.shape, agreement.transfer_rows)}
    stated = {a.phase: a for a in agreement.asked}
    found: dict[ReleasePhase, Question] = {}
    if trainings_of(strategy) != agreement.trainings:
        raise AgreementError(
            f"the agreement has clients train {agreement.trainings} times in a round, and strategy "
            f"{agreement.settings.strategy!r} {trainings_of(strategy)} times; have it made anew, and let everybody run "
            "the same code"
        )
    for phase in wanted.keys() | stated.keys():
        want, said = wanted.get(phase), stated.get(phase)
        if want is None or said is None or _stated(want) != (said.bounds, said.exchanges, said.unit):
            raise AgreementError(
                f"the agreement does not state what strategy {agreement.settings.strategy!r} asks here in the phase "
                f"{phase!r}; have it made anew, and let everybody run the same code"
            )
        found[phase] = Question(want.knowledge, agreement.release(said), phase, want.exchanges)
    return found


def _stated(want: Wanted) -> tuple[Bounds, int, Unit]:
    return want.knowledge.bounds, want.exchanges, want.unit
