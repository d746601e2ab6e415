"""An aggregator: how releases are added up, as the part that each party plays in it.

A session is a conversation of parts: bytes in, bytes out, and no part sees another's. The server's part begins it and
has the sum at its end; a client's part holds its vector, and gives away what the aggregator's messages say; where there
is a third party, the decryptor's part opens what the server has added up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from securekd_protocols import Identity

SERVER, DECRYPTOR = -1, -2
"""Who they are among the parties of a session, in which clients have numbers from 0."""


@dataclass(frozen=True)
class Terms:
    """What is agreed on before a round's releases are added up.

    Attributes:
        clients: how many there are.
        values: integers in each vector.
        magnitude: largest absolute value of a released integer, noise included.
        threshold: fewest survivors whose sum is opened.
        colluders: clients that may collude with the server.
        context: what every client must agree on, bound into the session.
        round_number: number of the round, from 1.
        noise_variance: variance of each client's noise in squared steps, rounded down; bound into the session.
    """

    clients: int
    values: int
    magnitude: int
    threshold: int
    colluders: int
    context: bytes
    round_number: int
    noise_variance: int = 0


@dataclass(frozen=True)
class Directory:
    """Who is who, as everybody knows it before a session: public signing keys.

    Attributes:
        clients: of each client, in order.
        server: of the server.
        decryptor: of the decryptor.
    """

    clients: tuple[bytes, ...]
    server: bytes
    decryptor: bytes


@dataclass(frozen=True, eq=False)
class Message:
    """Bytes from one party to another.

    Attributes:
        sender: a client's number, `SERVER` or `DECRYPTOR`.
        recipient: likewise.
        stage: of the aggregator's protocol, under which the bytes are counted; None for what belongs to the instruction
            that comes with it.
        data: the bytes.
    """

    sender: int
    recipient: int
    stage: str | None
    data: bytes


class Part(Protocol):
    """One party's part in a session."""

    def receive(self, message: Message) -> Sequence[Message]:
        """Take one message; give what is sent because of it.

        Raises:
            ProtocolError: The message is refused.
        """


class ServerPart(Part, Protocol):
    """The server's part."""

    def begin(self) -> Sequence[Message]:
        """The first messages."""

    def close(self) -> Sequence[Message]:
        """Wait for nobody any more in this stage; give what is sent then.

        Raises:
            ProtocolError: Too few are left.
        """

    @property
    def result(self) -> tuple[np.ndarray, tuple[int, ...]] | None:
        """The exact sum, int64 (d,), and whose vectors are in it; None before the end."""


class Aggregator(Protocol):
    """The parts of one way to add integer vectors up."""

    @property
    def sums_only(self) -> bool:
        """Whether the server learns the sum alone; if not, every release is in its view."""

    def server(self, terms: Terms, who: Directory, identity: Identity) -> ServerPart:
        """The server's part."""

    def client(self, terms: Terms, who: Directory, identity: Identity, number: int, vector: np.ndarray) -> Part:
        """The part of a client with this number and vector, int64 (d,)."""

    def decryptor(self, terms: Terms, who: Directory, identity: Identity) -> Part | None:
        """The part of a third party, where there is one."""


@runtime_checkable
class Limited(Aggregator, Protocol):
    """An aggregator that cannot add up everything, and says so before anything is trained."""

    def refuse_unfit(self, clients: int, values: int, magnitude: int) -> None:
        """Refuse sums of so many clients' vectors of so many values within ±magnitude.

        Raises:
            SettingError: it cannot add them up, or not on this machine.
        """


@dataclass(frozen=True)
class Aggregate:
    """What comes out of a session.

    Attributes:
        total: int64 (d,), the exact sum of the survivors' integers.
        survivors: whose releases are in it.
        upload: bytes that each client sent, by phase of the protocol.
        download: bytes that each client received, likewise.
        decryptor: bytes that the server sent to a decryptor, and got from it; empty where there is none.
        seconds: that it took.
    """

    total: np.ndarray
    survivors: tuple[str, ...]
    upload: Mapping[str, Mapping[str, int]]
    download: Mapping[str, Mapping[str, int]]
    decryptor: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
