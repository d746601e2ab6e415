"""A strategy: what is asked in a round, what a client does with it, and what the server does with a sum.

Both halves of one strategy stand side by side in one module. A half sees its own side and nothing else: the server's
has no client's records, and a client's no other client's. What a round needs from the clients, the server's half asks
for and waits:

    def play(self, server, number, before):
        yield from server.train(before.ended.taught if before else None)  # everybody trains, and the ledger is told
        summed = yield from server.ask("release", {"rows": rows})    # everybody releases; the sum comes back
        student = yield from server.learn("distil", task)            # the server trains what is public
        return Ended(Taught(…), student)

It may train and ask as often as it likes, and use what came back in between; `exchange` tells repeated ones apart.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from securekd.checkpoint import Arrays
from securekd.data.examples import Examples
from securekd.federation.aggregation.seam import Aggregate
from securekd.federation.agreement import Agreement, Member
from securekd.federation.messages import Instruction, Taught
from securekd.knowledge.bounded import Bounded, Knowledge
from securekd.knowledge.questions import Question, Wanted
from securekd.learning.tasks import Lesson, Machine, TrainTask
from securekd.models.shape import InputShape
from securekd.privacy.release import ReleasePhase
from securekd.settings.experiment import Experiment


class Side(Protocol):
    """What both sides have."""

    @property
    def agreement(self) -> Agreement:
        """What everybody has agreed on."""

    @property
    def transfer(self) -> Examples:
        """The public transfer set."""

    def question(self, phase: ReleasePhase) -> Question:
        """What is asked in a phase, with its bounds and its noise."""

    def public_lessons(self) -> tuple[Lesson, ...]:
        """Pre-training on the transfer set, where its labels are public."""


class ClientSide(Side, Protocol):
    """What a client's half sees."""

    @property
    def member(self) -> Member:
        """Itself, as everybody knows it."""

    @property
    def examples(self) -> Examples:
        """Its own records, as it trains on them."""

    def weights(self, told: Instruction) -> Arrays | None:
        """Of its model, as the latest training before an instruction left them; None before the first."""

    def private_task(self, *name: str | int, state: Arrays | None, lessons: tuple[Lesson, ...] = ()) -> TrainTask:
        """Training on its own records, with the federation's DP-SGD if there is one.

        Args:
            name: labels of the randomness.
            state: weights to go on from; None for the initial ones.
            lessons: what to learn first.
        """

    def logits(self, told: Instruction, inputs: np.ndarray) -> np.ndarray:
        """What its model says, as the latest training before an instruction left it: (N, C), float64."""


@dataclass(frozen=True, eq=False)
class Ended:
    """What a round leaves at the server.

    Attributes:
        taught: what clients are told before the next round.
        student: weights of the student, the global model.
        notes: what the strategy keeps for itself from round to round.
    """

    taught: Taught
    student: Arrays
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Played:
    """A round as the server saw it.

    Attributes:
        number: of the round, from 1.
        sums: each instruction that was answered, and the sum of the answers, in order.
        ended: what the round left.
    """

    number: int
    sums: tuple[tuple[Instruction, Aggregate], ...]
    ended: Ended


Turn = Generator[Any, Any, Any]
"""A part of a round that waits for others: `yield from` it."""


class ServerSide(Side, Protocol):
    """What a server's half sees."""

    def train(self, taught: Taught | None = None, exchange: int = 1) -> Turn:
        """Have every client train, told what was taught; gives nothing."""

    def ask(
        self, phase: ReleasePhase, arrays: Arrays | None = None, texts: Sequence[str] = (), exchange: int = 1
    ) -> Turn:
        """Have every client answer what these arrays and texts ask; gives the `Aggregate` of the answers."""

    def hear(self, arrays: Arrays | None = None, texts: Sequence[str] = (), exchange: int = 1) -> Turn:
        """Have every client say something in the clear, which no ε covers; gives texts by client.

        It counts as a release: where a round asks for one too, give one of the two another `exchange`.
        """

    def learn(self, name: str, task: TrainTask) -> Turn:
        """Have the server train what is public, once under this name; gives weights."""

    def keep(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """What the server computes, once under this name."""

    def public_task(self, *name: str | int, state: Arrays | None = None, lessons: tuple[Lesson, ...] = ()) -> TrainTask:
        """A model like the student, from its initial weights or those of `state`, that learns what is public alone."""

    @property
    def features(self) -> np.ndarray:
        """Public features (m, p) of the transfer set, for a student that denoises."""

    @property
    def machine(self) -> Machine:
        """Where it computes."""


class ClientHalf(Protocol):
    """What a client does."""

    def train(self, client: ClientSide, told: Instruction) -> TrainTask:
        """What it trains before it answers."""

    def answer(self, client: ClientSide, asked: Instruction, knowledge: Knowledge) -> Bounded:
        """What it would release, within the bounds of `knowledge`; rounding and noise come to it afterwards."""


@runtime_checkable
class Speaking(ClientHalf, Protocol):
    """A client that also says something in the clear."""

    def say(self, client: ClientSide, asked: Instruction) -> Sequence[str]:
        """What it says."""


class ServerHalf(Protocol):
    """What the server does."""

    def play(self, server: ServerSide, number: int, before: Played | None) -> Turn:
        """Play a round; gives `Ended`.

        Raises:
            RunError: if the round cannot end.
        """

    def surrogate(
        self, server: ServerSide, played: Played, total: np.ndarray, survivors: int, *name: str | int
    ) -> TrainTask:
        """The model that an adversary makes of a round's sum, or of one client's release alone, as the server would.

        Args:
            server: the side.
            played: the round.
            total: integers (d,): a sum of releases, or one.
            survivors: how many are in it.
            name: labels of the task's randomness.
        """


@runtime_checkable
class Strategy(Protocol):
    """Both halves, and what both know of the question.

    One whose clients train several times in a round has `trainings`, an int, beside all this.
    """

    @property
    def client(self) -> ClientHalf:
        """What a client does."""

    @property
    def server(self) -> ServerHalf:
        """What the server does."""

    def asks(self, experiment: Experiment, shape: InputShape, transfer: int) -> tuple[Wanted, ...]:
        """What is asked in a round of a transfer set of so many rows; the last release first.

        Raises:
            SettingError: for settings that contradict each other.
        """

    def about(self, side: Side, asked: Instruction) -> bytes:
        """Digest (32 bytes) of what a question is about, which the ledger states: each side computes its own."""

    def refuse_unfit(self, experiment: Experiment, members: Sequence[Member], shape: InputShape, transfer: int) -> None:
        """Refuse models that this strategy cannot serve.

        Raises:
            ModelError: with the first of them.
        """


def trainings_of(strategy: Strategy) -> int:
    """How often each client trains in a round: once, where the strategy does not say."""
    return int(getattr(strategy, "trainings", 1))
