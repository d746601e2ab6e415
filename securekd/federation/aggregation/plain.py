"""Every client sends its integers as they are, and the server adds them up."""

import numpy as np

from securekd.errors import AgreementError
from securekd.federation.aggregation.policy import refuse_too_few
from securekd.federation.aggregation.seam import SERVER, Directory, Message, Part, ServerPart, Terms
from securekd_protocols import Identity
from securekd_protocols.errors import MalformedMessage, OutOfOrder, ReplayedMessage, UnknownSender
from securekd_protocols.ring import check_vector
from securekd_protocols.simulation import naming


class PlainAggregator:
    """Sums in the clear; 4 bytes a value (8 where integers are larger)."""

    sums_only = False

    def server(self, terms: Terms, who: Directory, identity: Identity) -> ServerPart:
        """Asks everybody, and adds up what comes."""
        return _Server(terms)

    def client(self, terms: Terms, who: Directory, identity: Identity, number: int, vector: np.ndarray) -> Part:
        """Sends its vector to a server that says what it was told, too."""
        return _Client(terms, number, vector)

    def decryptor(self, terms: Terms, who: Directory, identity: Identity) -> None:
        """There is none."""


def _kind(terms: Terms) -> str:
    return "<i4" if terms.magnitude < 2**31 else "<i8"


class _Client:
    def __init__(self, terms: Terms, number: int, vector: np.ndarray) -> None:
        self._terms, self._number, self._vector = terms, number, vector

    def receive(self, message: Message) -> list[Message]:
        if message.data != self._terms.context:
            raise AgreementError(
                "the server wants a sum of something else than this client has agreed on; compare the agreements"
            )
        with naming(self._number):
            check_vector(self._vector, self._terms.values, self._terms.magnitude)  # in 4 bytes it would be another one
        return [Message(self._number, SERVER, "input", self._vector.astype(_kind(self._terms)).tobytes())]


class _Server:
    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._total = np.zeros(terms.values, np.int64)
        self._got: set[int] = set()
        self._ended = False

    def begin(self) -> list[Message]:
        return [Message(SERVER, number, None, self._terms.context) for number in range(self._terms.clients)]

    def receive(self, message: Message) -> list[Message]:
        kind = np.dtype(_kind(self._terms))
        if not 0 <= message.sender < self._terms.clients:
            raise UnknownSender(f"a release of {message.sender}, who is no client", "drop it")
        if self._ended:
            raise OutOfOrder(f"a release of client {message.sender} after the end", "drop it")
        if message.sender in self._got:
            raise ReplayedMessage(f"a second release of client {message.sender}", "drop it")
        if len(message.data) != kind.itemsize * self._terms.values:
            raise MalformedMessage(
                f"{len(message.data)} bytes of client {message.sender}, not {self._terms.values} values", "drop them"
            )
        self._got.add(message.sender)
        self._total += np.frombuffer(message.data, kind)
        if len(self._got) == self._terms.clients:
            self._ended = True
        return []

    def close(self) -> list[Message]:
        refuse_too_few(len(self._got), self._terms)
        self._ended = True
        return []

    @property
    def result(self) -> tuple[np.ndarray, tuple[int, ...]] | None:
        return (self._total, tuple(sorted(self._got))) if self._ended else None
