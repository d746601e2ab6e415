"""What the server tells the clients, all alike and in public: what to learn, and what to answer."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

import numpy as np

from securekd.checkpoint import Arrays
from securekd.errors import RunError
from securekd.privacy.events import Phase
from securekd.privacy.release import ReleasePhase


@dataclass(frozen=True, eq=False)
class Instruction:
    """One thing that every client is to do.

    Attributes:
        round: number of the round, from 1.
        phase: train, or the phase of what is to be released.
        agreement: digest of what the server has agreed on.
        arrays: what was taught, or which transfer rows are asked about.
        texts: likewise, where it is text.
        about: digest of the transfer rows, or of the model, that an answer is about, as the ledger has it; empty for
            training.
        exchange: number among those of its phase in its round, from 1.
        after: digest of the instruction to train that an answer comes after, so that those whose answers are added up
            were taught the same (Pasquini et al. 2022); empty for training.
    """

    round: int
    phase: Phase
    agreement: bytes
    arrays: Arrays = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    about: bytes = b""
    exchange: int = 1
    after: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what is no number or no phase: `True` and `1.0` would be other files, and the same charge."""
        for name in ("round", "exchange"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise RunError(f"{name} {number!r} of an instruction is no number from 1")
        if self.phase not in get_args(Phase):
            raise RunError(f"an instruction of the phase {self.phase!r}, and there are {', '.join(get_args(Phase))}")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        head = {
            "round": self.round,
            "phase": self.phase,
            "exchange": self.exchange,
            "agreement": self.agreement.hex(),
            "about": self.about.hex(),
            "after": self.after.hex(),
            "texts": self.texts,
            "arrays": {name: (array.dtype.newbyteorder("<").str, array.shape) for name, array in self.arrays.items()},
        }
        written = json.dumps(head, sort_keys=True).encode()
        digest = hashlib.sha256(b"securekd/instruction/1" + len(written).to_bytes(8, "big") + written)
        for name in sorted(self.arrays):
            array = self.arrays[name]
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        return digest.digest()

    @property
    def release_phase(self) -> ReleasePhase:
        """The phase of what is to be released.

        Raises:
            RunError: Nothing is.
        """
        if self.phase == "train":
            raise RunError(f"{self.words} asks for no release")
        return self.phase

    @property
    def labels(self) -> tuple[int, ...]:
        """What tells its randomness from that of others of its phase: its round, and its exchange after the first."""
        return (self.round, self.exchange) if self.exchange > 1 else (self.round,)

    @property
    def words(self) -> str:
        """Which one it is, for an error."""
        return f"{self.phase} of round {self.round}{f', exchange {self.exchange}' if self.exchange > 1 else ''}"


@dataclass(frozen=True, eq=False)
class Taught:
    """What the server made of a round, and sends the clients before the next.

    Attributes:
        name: in a word, which stands as a phase among the record's bytes.
        size: numbers in it, which are sent as float32.
        arrays: what is sent.
        texts: likewise, where it is text.
    """

    name: str
    size: int
    arrays: Arrays = field(default_factory=dict)
    texts: tuple[str, ...] = ()
