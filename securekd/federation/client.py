"""A client: its own records, model, secret randomness and ledger; it is told what to do, and gives away its release.

It does not believe what it is told. An instruction of another agreement, or about other transfer rows than it sees
itself, is refused before anything private is touched. What it gives to an aggregation is drawn once and kept: asked
again, it sends the same. Its ledger is on disk before that leaves it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from securekd.checkpoint import Arrays, PhaseStore, Saved
from securekd.data.examples import Examples
from securekd.errors import AgreementError, FolderError, RunError
from securekd.federation.aggregation.seam import Directory, Part
from securekd.federation.agreement import Member, refuse_others
from securekd.federation.messages import Instruction
from securekd.federation.party import Equipment, Party
from securekd.federation.strategies.seam import Speaking
from securekd.federation.sums import terms_of
from securekd.knowledge.bounded import Bounded, Knowledge
from securekd.learning.dp.dp_sgd import Gradients
from securekd.learning.prediction import logits
from securekd.learning.tasks import Lesson, TrainTask
from securekd.privacy.events import Entry
from securekd.privacy.ledger import Ledger
from securekd_protocols import Identity


@dataclass(frozen=True)
class Noted:
    """What a client notes of what it did.

    Attributes:
        clipped: parts of an answer that the clip shortened.
        zeroed: parts of an answer, or gradients, that were not finite.
        gradients: how a training's clipped gradients were computed; None for an answer, or without DP.
    """

    clipped: int
    zeroed: int
    gradients: Gradients | None


class Client(Party):
    """One client.

    Everything that has to outlive it is in its folder and its ledger: made anew with the same, it goes on where it was.

    Args:
        equipment: what it comes with, like everybody.
        name: this client's, as the agreement has it.
        examples: its own records, as it trains on them.
        store: what it has done.
        ledger: what was done to its records.
        key: a word for its files.
        absent: records that are not trained on and still count in the number that it declares.
        identity: its signing key; unset: a fresh one.
    """

    kind: ClassVar[str] = "a client"

    def __init__(
        self,
        equipment: Equipment,
        name: str,
        examples: Examples,
        store: PhaseStore,
        ledger: Ledger,
        *,
        key: str,
        absent: int = 0,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(equipment)
        self.member: Member = self.agreement.member(name)
        self.number = self.agreement.members.index(self.member)
        self.examples = examples
        self.identity = identity or Identity.generate(os.urandom)
        self.key = key
        self._absent = absent
        self._store = store
        self._ledger = ledger
        self._weights: tuple[str, Arrays] | None = None
        self._taught: dict[tuple[int, int], bytes] = {}
        self._begun: set[bytes] = set()
        if len(examples) + absent != self.member.examples:
            raise AgreementError(
                f"{name} holds {len(examples) + absent} examples and has declared {self.member.examples}; have the "
                "agreement made anew"
            )
        self._refuse_losses()

    # ---- what it is told ----

    def begin(self, told: Instruction) -> TrainTask | None:
        """Do what an instruction says; where that is training, give the task, and wait for `finish`.

        An instruction that was carried out before changes nothing.

        Raises:
            AgreementError: It is of another agreement, or about something else than this client sees.
            RunError: It comes out of order, or the same was asked about something else; nothing is released then.
        """
        refuse_others(self.agreement, told.agreement, "the server")
        self._refuse_early(told)
        if told.phase == "train":
            if self._store.has(self._name(told)):
                self._refuse_another(told, self._store.phase(self._name(told), Saved))
                self._note_training(told)
                return None
            if not 1 <= told.exchange <= self.agreement.trainings:
                raise RunError(
                    f"{told.words} is one more than the {self.agreement.trainings} that were agreed on; nothing was "
                    "trained"
                )
            with _understood(told):
                task = self.strategy.client.train(self, told)
            self._begun.add(told.digest)
            return task
        self._refuse_taught_otherwise(told)
        with _understood(told):
            about = self.about(told)
        if about != told.about:
            raise AgreementError(
                f"{self.member.name} is asked about something else than it sees itself ({told.words}): another "
                "transfer set, or another model; nothing was released"
            )
        self._release(told)
        return None

    def finish(self, told: Instruction, trained: Saved) -> None:
        """Keep what a task gave, the first time; its event is in the ledger when this returns.

        Raises:
            RunError: No such task was begun, or the same was asked about something else.
        """
        if told.digest not in self._begun:
            raise RunError(
                f"{self.member.name} has not begun {told.words}; begin it, and finish with what its task gave"
            )
        kept = Saved(trained.arrays, trained.info | {"asked": told.digest.hex()}, trained.seconds)
        self._refuse_another(told, self._store.phase(self._name(told), lambda: kept))
        self._note_training(told)

    def join(self, told: Instruction, who: Directory) -> Part:
        """Its part in the sum of what was asked, on its own terms.

        Raises:
            AgreementError: Others take part than were agreed on.
            RunError: It has not answered, or it was asked about something else.
        """
        if not self._store.has(self._name(told)):
            raise RunError(f"{self.member.name} was not asked for {told.words}")
        answered = self._store.get(self._name(told))
        self._charge(told, answered)
        if len(who.clients) != len(self.agreement.members):
            raise AgreementError(f"{len(who.clients)} keys for the {len(self.agreement.members)} members agreed on")
        terms = terms_of(self.agreement, self.question(told.release_phase), told)
        return self.aggregator.client(terms, who, self.identity, self.number, answered.arrays["integers"])

    def say(self, told: Instruction) -> tuple[str, ...]:
        """What it says in the clear, which its ledger counts as unprotected.

        Raises:
            RunError: The strategy has clients say nothing, or the same was asked about something else.
        """
        refuse_others(self.agreement, told.agreement, "the server")
        self._refuse_early(told)
        if told.phase != "release":
            raise RunError(f"{told.words} is no time to say something: that counts as a release")
        self._refuse_taught_otherwise(told)
        half = self.strategy.client
        if not isinstance(half, Speaking):
            raise RunError(f"strategy {self.agreement.settings.strategy!r} has clients say nothing in the clear")
        saved = self._store.phase(
            self._name(told), lambda: Saved(info={"said": list(half.say(self, told)), **self._notes(told)})
        )
        self._refuse_another(told, saved)
        self._ledger.append([self.agreement.said_entry(self.member.name, told.round, told.exchange)])
        return tuple(saved.info["said"])

    # ---- what its half sees ----

    def weights(self, told: Instruction) -> Arrays | None:
        """Of its model, as the latest training before an instruction left them; None before the first."""
        which = self._latest_training(told)
        return self.trained(*which) if which else None

    def private_task(self, *name: str | int, state: Arrays | None, lessons: tuple[Lesson, ...] = ()) -> TrainTask:
        """Training on its own records, with the federation's DP-SGD if there is one."""
        training, model = self.agreement.settings.training, self.member.model
        plain = model.loss == "cross_entropy"
        earlier = sum(entry.phase == "train" for entry in self._ledger.entries)
        return TrainTask(
            name=name,
            model=model,
            shape=self.agreement.shape,
            init_seed=self.agreement.randomness.public_seed("init", self.member.name),
            state=state,
            lessons=lessons if plain else (),  # which say nothing of a background, and would leave no sums
            inputs=self.examples.inputs,
            labels=self.examples.labels,
            dp=self.agreement.dp,
            training=training,
            learning_rate=model.learning_rate or training.learning_rate,
            randomness=self.agreement.randomness,
            micro_batch=self.machine.micro_batch,
            device=self.machine.device,
            shared=self.machine.shared,
            absent=self._absent,
            public=self.fits.of(model),
            share=self.agreement.share(self.member),
            earlier=0 if state is None else earlier,
            background=self.transfer.inputs if model.loss == "background" else None,
        )

    def logits(self, told: Instruction, inputs: np.ndarray) -> np.ndarray:
        """What its model says, as the latest training before an instruction left it: float64 (N, C).

        With one column more, where it was trained beside a background.

        Raises:
            RunError: It has none yet.
        """
        weights = self.weights(told)
        if weights is None:
            raise RunError(f"{self.member.name} has trained no model yet")
        model = self.member.model
        return logits(self.machine, self.agreement.shape, model, weights, self.fits.of(model), inputs)

    # ---- what it knows of itself, and keeps ----

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What was done to its records."""
        return self._ledger.entries

    def trained(self, round_number: int, exchange: int = 1) -> Arrays:
        """Its model's weights after its training in a round."""
        name = self._name(Instruction(round_number, "train", b"", exchange=exchange))
        if self._weights is None or self._weights[0] != name:
            self._weights = name, self._store.get(name).arrays
        return self._weights[1]

    def noted(self, told: Instruction) -> Noted:
        """What it noted of a training or an answer, which nobody else is told."""
        info = self._store.get(self._name(told)).info
        return Noted(info.get("clipped", 0), info["zeroed"], info.get("gradients"))

    def released(self, told: Instruction) -> np.ndarray:
        """What it gives to the sum of what was asked: int64 (d,)."""
        return self._store.get(self._name(told)).arrays["integers"]

    def answer(self, told: Instruction, knowledge: Knowledge) -> Bounded:
        """What it would release within some bounds, before rounding and noise: its own process alone sees that."""
        return self.strategy.client.answer(self, told, knowledge)

    # ----

    def _release(self, told: Instruction) -> None:
        phase = told.release_phase
        question = self.question(phase)
        if not 1 <= told.exchange <= question.exchanges:
            raise RunError(
                f"{told.words} is one more than the {question.exchanges} that were agreed on; nothing was released"
            )

        def draw() -> Saved:
            with _understood(told):
                answer = self.answer(told, question.knowledge)
            secret = self.agreement.randomness.secret(phase, self.member.name, *told.labels)
            integers = question.release.draw(answer.vector, secret)
            info = {"clipped": answer.clipped, "zeroed": answer.zeroed, **self._notes(told)}
            return Saved(arrays={"integers": integers}, info=info)

        self._charge(told, self._store.phase(self._name(told), draw))

    def _charge(self, told: Instruction, answered: Saved) -> None:
        """Have an answer in the ledger, before it leaves."""
        self._refuse_another(told, answered)
        release, phase = self.question(told.release_phase).release, told.release_phase
        self._ledger.append(release.entries(self.member.name, told.round, told.about.hex(), phase, told.exchange))

    def _notes(self, told: Instruction) -> dict[str, object]:
        """What is noted beside an answer: what was asked, and which training it comes from."""
        return {"asked": told.digest.hex(), "trained": self._latest_training(told)}

    def _refuse_another(self, told: Instruction, answered: Saved) -> None:
        """Refuse to give an answer to something else than it was."""
        asked = told.digest.hex()
        if answered.info.get("asked", asked) != asked:
            raise RunError(
                f"{self.member.name} has answered {told.words} already, and it was about something else: nothing was "
                "released"
            )

    def _latest_training(self, told: Instruction) -> tuple[int, int] | None:
        """Round and exchange of the training before an instruction, as noted where it was answered already."""
        if told.phase != "train" and self._store.has(self._name(told)):
            noted = self._store.get(self._name(told)).info.get("trained")
            if noted:
                return noted[0], noted[1]
        trained = [(e.round, e.exchange) for e in self._ledger.entries if e.phase == "train"]
        return max((one for one in trained if one[0] <= told.round), default=None)

    def _note_training(self, told: Instruction) -> None:
        self._taught[told.round, told.exchange] = told.digest
        self._ledger.append([self.agreement.training_entry(self.member.name, told.round, told.exchange)])

    def _refuse_taught_otherwise(self, told: Instruction) -> None:
        """Refuse a question that comes after another lesson than this client had: others may have had that one."""
        which = self._latest_training(told)
        if which is not None and which not in self._taught:
            noted = self._store.get(self._name(Instruction(which[0], "train", b"", exchange=which[1]))).info
            self._taught[which] = bytes.fromhex(noted.get("asked", ""))
        if told.after != (b"" if which is None else self._taught[which]):
            raise RunError(
                f"{told.words} is to come after another training than {self.member.name} had; have the instruction to "
                "train sent again, and then this one"
            )

    def _refuse_early(self, told: Instruction) -> None:
        """Refuse what comes before the training that it builds on."""
        first = told.phase == "train" and told.exchange == 1
        needed = told.round - 1 if first else told.round
        if not 1 <= told.round <= self.agreement.settings.rounds:
            raise RunError(f"round {told.round} is none of the {self.agreement.settings.rounds} that were agreed on")
        if told.exchange < 1:
            raise RunError(f"exchange {told.exchange} is none: exchanges are counted from 1")
        if needed and not self._store.has(self._name(Instruction(needed, "train", b""))):
            raise RunError(
                f"{told.words} comes before {self.member.name} has trained in round {needed}; have the earlier "
                "instruction sent again"
            )

    def _refuse_losses(self) -> None:
        """Refuse to go on where what was charged for is gone: made anew it would be a second release, charged once."""
        for entry in self._ledger.entries:
            if not self._store.has(file_of(entry, self.key)):
                raise FolderError(
                    f"the ledger charges {entry.client} for the {entry.phase} phase of round {entry.round}, and its "
                    "folder no longer holds what it gave; restore that folder, or begin anew"
                )

    def _name(self, told: Instruction) -> str:
        return file_of(told, self.key)


@contextmanager
def _understood(told: Instruction) -> Iterator[None]:
    """Have a half that cannot make sense of an instruction say so: what it was told comes from somebody else."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RunError(
            f"{told.words} cannot be carried out as it is told ({type(error).__name__}: {error}); have the instruction "
            "sent again, or mend the strategy"
        ) from error


def file_of(done: Instruction | Entry, key: str) -> str:
    """The name under which a client keeps what it did.

    Args:
        done: what it was told, or charged for.
        key: the client's word for its files.
    """
    return f"{done.phase}.{done.round}" + (f".{done.exchange}" if done.exchange > 1 else "") + f".{key}"
