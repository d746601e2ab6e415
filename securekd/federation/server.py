"""The server: the transfer set, the student, the public history, and the ledger of what was asked.

It has no client's records and reaches nobody: what it wants, it asks for in requests, which whoever plays the round
brings to the others. Sums that have come back, and what it made of them, are in its folder, and are not asked for
again; made anew with it, it plays the rounds over, and clients skip what they have done.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from securekd.checkpoint import Arrays, PhaseStore, Saved
from securekd.data.features import public_features
from securekd.errors import RunError
from securekd.federation.aggregation.seam import Aggregate, Directory, ServerPart
from securekd.federation.messages import Instruction, Taught
from securekd.federation.party import Equipment, Party
from securekd.federation.strategies.seam import Ended, Played, Turn
from securekd.federation.sums import terms_of
from securekd.learning.tasks import Lesson, TrainTask
from securekd.privacy.events import Phase
from securekd.privacy.ledger import Ledger
from securekd.privacy.release import ReleasePhase
from securekd_protocols import Identity


@dataclass(frozen=True, eq=False)
class Train:
    """Have every client train; nothing comes back."""

    told: Instruction


@dataclass(frozen=True, eq=False)
class Prepare:
    """Have every client answer, and keep its answer; nothing comes back yet."""

    told: Instruction


@dataclass(frozen=True, eq=False)
class Sum:
    """Have the answers added up; an `Aggregate` comes back."""

    told: Instruction


@dataclass(frozen=True, eq=False)
class Hear:
    """Have every client say something in the clear; texts by client come back."""

    told: Instruction


@dataclass(frozen=True, eq=False)
class Compute:
    """Train what is public, here; a `Saved` comes back."""

    task: TrainTask


Request = Train | Prepare | Sum | Hear | Compute


class Server(Party):
    """The server.

    Args:
        equipment: what it comes with, like everybody.
        store: what has come back, and what it has made of it.
        ledger: of what was asked of whom.
        identity: its signing key; unset: a fresh one.
    """

    kind: ClassVar[str] = "the server"

    def __init__(
        self, equipment: Equipment, store: PhaseStore, ledger: Ledger, *, identity: Identity | None = None
    ) -> None:
        super().__init__(equipment)
        self.identity = identity or Identity.generate(os.urandom)
        self.played: list[Played] = []
        self._store = store
        self._ledger = ledger
        self._turn: Turn | None = None
        self._sums: list[tuple[Instruction, Aggregate]] = []
        self._trained = b""

    # ---- a round, for whoever plays it ----

    def begin(self, number: int) -> Request | None:
        """Begin a round; give the first request, or None where the round has ended already.

        Raises:
            RunError: It is not the next one.
        """
        if number != len(self.played) + 1:
            raise RunError(f"round {number} cannot be played now: round {len(self.played) + 1} is due")
        self._sums = []
        self._turn = self.strategy.server.play(self, number, self.played[-1] if self.played else None)
        return self.receive(None)

    def receive(self, reply: object) -> Request | None:
        """Take what a request brought; give the next one, or None where the round has ended."""
        if self._turn is None:
            raise RunError("no round is being played; begin one")
        try:
            request: Request = self._turn.send(reply)
        except StopIteration as stopped:
            self._turn = None
            ended: Ended = stopped.value
            self.played.append(Played(len(self.played) + 1, tuple(self._sums), ended))
            return None
        return request

    def part(self, told: Instruction, who: Directory) -> ServerPart:
        """Its part in a sum."""
        terms = terms_of(self.agreement, self.question(told.release_phase), told)
        return self.aggregator.server(terms, who, self.identity)

    # ---- what its half sees ----

    def train(self, taught: Taught | None = None, exchange: int = 1) -> Turn:
        """Have every client train, told what was taught; the ledger is told when they have."""
        arrays, texts = (taught.arrays, taught.texts) if taught else ({}, ())
        told = self._instruction("train", arrays, texts, exchange)
        yield Train(told)
        self._trained = told.digest
        self._ledger.append(self.agreement.training_entry(m.name, told.round, exchange) for m in self.agreement.members)

    def ask(
        self, phase: ReleasePhase, arrays: Arrays | None = None, texts: Sequence[str] = (), exchange: int = 1
    ) -> Turn:
        """Have every client answer, and the answers added up; the ledger is told in between."""
        question = self.question(phase)
        told = self._instruction(phase, arrays, texts, exchange)
        told = replace(told, about=self.about(told), after=self._trained)
        yield Prepare(told)
        self._ledger.append(
            entry
            for m in self.agreement.members
            for entry in question.release.entries(m.name, told.round, told.about.hex(), phase, exchange)
        )
        name = f"aggregate.{told.round}" + ("" if phase == "release" else f".{phase}")
        name += f".{exchange}" if exchange > 1 else ""
        if self._store.has(name):
            saved = self._store.phase(name, Saved)
        else:
            saved = self._store.put(name, _written((yield Sum(told))))
        summed = _read(saved)
        self._sums.append((told, summed))
        return summed

    def hear(self, arrays: Arrays | None = None, texts: Sequence[str] = (), exchange: int = 1) -> Turn:
        """Have every client say something in the clear, which the ledger counts as unprotected."""
        told = replace(self._instruction("release", arrays, texts, exchange), after=self._trained)
        said: Mapping[str, Sequence[str]] = yield Hear(told)
        self._ledger.append(self.agreement.said_entry(m.name, told.round, exchange) for m in self.agreement.members)
        return said

    def learn(self, name: str, task: TrainTask) -> Turn:
        """Train what is public, once under this name."""
        if self._store.has(name):
            return self._store.phase(name, Saved).arrays
        return self._store.put(name, (yield Compute(task))).arrays

    def keep(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """What it computes, once under this name."""
        return self._store.phase(name, lambda: Saved(arrays=compute())).arrays

    def public_task(self, *name: str | int, state: Arrays | None = None, lessons: tuple[Lesson, ...] = ()) -> TrainTask:
        """A model like the student, from its initial weights or those of `state`, that learns what is public alone."""
        student = self.agreement.settings.student
        return TrainTask(
            name=("student", *name),
            model=student.model,
            shape=self.agreement.shape,
            init_seed=self.agreement.randomness.public_seed("init", "student"),
            state=state,
            lessons=lessons,
            inputs=None,
            labels=None,
            dp=None,
            training=self.agreement.settings.training,
            learning_rate=student.learning_rate,
            randomness=self.agreement.randomness,
            micro_batch=self.machine.micro_batch,
            device=self.machine.device,
            shared=self.machine.shared,
            public=self.fits.of(student.model),
        )

    @cached_property
    def features(self) -> np.ndarray:
        """Public features (m, p) of the transfer set, for a student that denoises."""
        return public_features(self.transfer)

    # ----

    def _instruction(self, phase: Phase, arrays: Arrays | None, texts: Sequence[str], exchange: int) -> Instruction:
        return Instruction(
            round=len(self.played) + 1,
            phase=phase,
            agreement=self.agreement.digest,
            arrays=arrays or {},
            texts=tuple(texts),
            exchange=exchange,
        )


def _written(done: Aggregate) -> Saved:
    info = {
        "survivors": list(done.survivors),
        "upload": {phase: dict(by) for phase, by in done.upload.items()},
        "download": {phase: dict(by) for phase, by in done.download.items()},
        "decryptor": dict(done.decryptor),
    }
    return Saved(arrays={"total": done.total}, info=info, seconds=done.seconds)


def _read(saved: Saved) -> Aggregate:
    info = saved.info
    return Aggregate(
        saved.arrays["total"], tuple(info["survivors"]), info["upload"], info["download"], info["decryptor"]
    )
