"""One session from its first message to its sum: what is sent is brought, counted and, if it is lost, not missed."""

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from securekd.errors import RunError
from securekd.federation.aggregation.policy import refuse_too_few
from securekd.federation.aggregation.seam import (
    DECRYPTOR,
    SERVER,
    Aggregate,
    Aggregator,
    Directory,
    Message,
    Part,
    ServerPart,
    Terms,
)
from securekd_protocols import Identity, RemoteProtocolError
from securekd_protocols.errors import CallOutOfOrder, UnknownSender

INPUTS = ("input", "masked_input")
"""The stages in which a client sends its release: one that falls silent does so there."""

Witness = Callable[[bytes], None]


@dataclass(frozen=True)
class Cast:
    """Signing keys of everybody in a session that is played in one process."""

    clients: tuple[Identity, ...]
    server: Identity
    decryptor: Identity

    @classmethod
    def drawn(cls, clients: int) -> "Cast":
        """Fresh ones."""
        first, second, *others = (Identity.generate(os.urandom) for _ in range(clients + 2))
        return cls(tuple(others), first, second)

    @property
    def directory(self) -> Directory:
        """What everybody knows of them."""
        return Directory(tuple(c.public for c in self.clients), self.server.public, self.decryptor.public)


def carry(
    server: ServerPart,
    parts: Mapping[int, Part],
    names: Sequence[str],
    *,
    silent: Collection[str] = (),
    witness: Witness | None = None,
) -> Aggregate:
    """Bring messages until the server has the sum; when nothing is under way, it waits for nobody any more.

    A message that its recipient refuses is dropped, as one that a hostile network has put in would be.

    Args:
        server: the server's part.
        parts: those of the others, by number.
        names: of the clients, by number.
        silent: clients that send nothing from their release on.
        witness: of every byte string that the server gets.

    Raises:
        RunError: The session ends without a sum.
        LocalProtocolError: A vector is not as was agreed.
    """
    begin = time.monotonic()
    wire = _Wire(server, parts, names, frozenset(silent), witness)
    try:
        total, survivors = wire.run()
    except RemoteProtocolError as error:
        raise RunError(f"{error}; run the round again") from error
    account = wire.account
    return Aggregate(
        total,
        tuple(names[i] for i in survivors),
        account.upload,
        account.download,
        account.decryptor,
        time.monotonic() - begin,
    )


class _Wire:
    """What is under way between the parts, in the order in which it was sent."""

    def __init__(
        self,
        server: ServerPart,
        parts: Mapping[int, Part],
        names: Sequence[str],
        silent: Collection[str],
        witness: Witness | None,
    ) -> None:
        self.account = _Account(names)
        self._server = server
        self._parts = parts
        self._names = names
        self._silent = silent
        self._witness = witness
        self._gone: set[int] = set()
        self._refused: RemoteProtocolError | None = None

    def run(self) -> tuple[np.ndarray, tuple[int, ...]]:
        under_way = deque(self._server.begin())
        while (result := self._server.result) is None:
            under_way.extend(self._deliver(under_way.popleft()) if under_way else self._close())
        return result

    def _close(self) -> Sequence[Message]:
        """Have the server go on with what it has."""
        try:
            outgoing = self._server.close()
        except CallOutOfOrder as error:  # nothing is left that it could do without
            raise self._without_sum() from self._refused or error
        if not outgoing and self._server.result is None:
            raise self._without_sum() from self._refused
        return outgoing

    def _deliver(self, message: Message) -> list[Message]:
        """Bring one message, and the answers to the server; give what the server sends then."""
        self.account.note(message)
        recipient = message.recipient
        if recipient in self._gone or recipient not in self._parts:
            return []
        outgoing: list[Message] = []
        for reply in self._received(self._parts[recipient], message):
            if reply.sender != recipient:
                self._refused = UnknownSender(f"{recipient} speaks as {reply.sender}", "drop the message")
                continue
            if recipient >= 0 and self._names[recipient] in self._silent and reply.stage in INPUTS:
                self._gone.add(recipient)
                break
            self.account.note(reply)
            if self._witness is not None:
                self._witness(reply.data)
            outgoing.extend(self._received(self._server, reply))
        return outgoing

    def _received(self, part: Part, message: Message) -> Sequence[Message]:
        try:
            return part.receive(message)
        except RemoteProtocolError as error:
            self._refused = error
            return ()

    def _without_sum(self) -> RunError:
        why = f" (the last message that was refused: {self._refused.what})" if self._refused else ""
        return RunError(f"the session has ended without a sum{why}; run the round again")


def add_up(
    aggregator: Aggregator,
    releases: Mapping[str, np.ndarray],
    terms: Terms,
    *,
    silent: Collection[str] = (),
    witness: Witness | None = None,
    cast: Cast | None = None,
) -> Aggregate:
    """Add clients' integer vectors (int64, equal lengths) up in a session of its own, with every part in this process.

    Args:
        aggregator: whose parts they are.
        releases: by client.
        terms: of the sum.
        silent: see `carry`.
        witness: see `carry`.
        cast: who plays them; unset: somebody new.

    Raises:
        RunError: if fewer than `terms.threshold` clients survive; nothing is opened then.
    """
    refuse_too_few(len(releases) - len(silent), terms)
    cast = cast or Cast.drawn(len(releases))
    who = cast.directory
    parts: dict[int, Part] = {
        i: aggregator.client(terms, who, cast.clients[i], i, vector) for i, vector in enumerate(releases.values())
    }
    third = aggregator.decryptor(terms, who, cast.decryptor)
    if third is not None:
        parts[DECRYPTOR] = third
    return carry(aggregator.server(terms, who, cast.server), parts, list(releases), silent=silent, witness=witness)


class _Account:
    """Bytes by stage and client."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.upload: dict[str, dict[str, int]] = {}
        self.download: dict[str, dict[str, int]] = {}
        self.decryptor: dict[str, int] = {}

    def note(self, message: Message) -> None:
        size = len(message.data)
        if message.stage is None:
            return
        if DECRYPTOR in (message.sender, message.recipient):
            way = "upload" if message.sender == DECRYPTOR else "download"
            self.decryptor[way] = self.decryptor.get(way, 0) + size
            return
        way_of, client = (
            (self.download, message.recipient) if message.sender == SERVER else (self.upload, message.sender)
        )
        stage, name = way_of.setdefault(message.stage, {}), self._names[client]
        stage[name] = stage.get(name, 0) + size
