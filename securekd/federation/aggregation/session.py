"""One session from its first message to its sum: what is sent is brought, counted and, if it is lost, not missed."""

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from securekd.errors import RunError
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
        ProtocolError, RunError: The session ends without a sum.
    """
    begin = time.monotonic()
    account = _Account(names)
    gone: set[int] = set()
    under_way = deque(server.begin())
    refused: RemoteProtocolError | None = None
    while (result := server.result) is None:
        if not under_way:
            try:
                under_way.extend(server.close())
            except CallOutOfOrder as error:  # nothing is left that it could do without
                raise _without_sum(refused) from refused or error
            if not under_way and server.result is None:
                raise _without_sum(refused) from refused
            continue
        message = under_way.popleft()
        account.note(message)
        if message.recipient in gone or message.recipient not in parts:
            continue
        try:
            replies = parts[message.recipient].receive(message)
        except RemoteProtocolError as error:
            refused = error
            continue
        for reply in replies:
            if reply.sender != message.recipient:
                refused = UnknownSender(f"{message.recipient} speaks as {reply.sender}", "drop the message")
                continue
            if reply.sender >= 0 and names[reply.sender] in silent and reply.stage in INPUTS:
                gone.add(reply.sender)
                break
            account.note(reply)
            if witness is not None:
                witness(reply.data)
            try:
                under_way.extend(server.receive(reply))
            except RemoteProtocolError as error:
                refused = error
    total, survivors = result
    return Aggregate(
        total,
        tuple(names[i] for i in survivors),
        account.upload,
        account.download,
        account.decryptor,
        time.monotonic() - begin,
    )


def add_up(
    aggregator: Aggregator,
    releases: Mapping[str, np.ndarray],
    terms: Terms,
    *,
    silent: Collection[str] = (),
    witness: Witness | None = None,
) -> Aggregate:
    """Add clients' integer vectors (int64, equal lengths) up in a session of its own, with every part in this process.

    Raises:
        RunError: if fewer than `terms.threshold` clients survive; nothing is opened then.
    """
    refuse_too_few(len(releases) - len(silent), terms)
    clients = [Identity.generate(os.urandom) for _ in releases]
    server, decryptor = Identity.generate(os.urandom), Identity.generate(os.urandom)
    who = Directory(tuple(c.public for c in clients), server.public, decryptor.public)
    parts: dict[int, Part] = {
        i: aggregator.client(terms, who, clients[i], i, vector) for i, vector in enumerate(releases.values())
    }
    third = aggregator.decryptor(terms, who, decryptor)
    if third is not None:
        parts[DECRYPTOR] = third
    return carry(aggregator.server(terms, who, server), parts, list(releases), silent=silent, witness=witness)


def refuse_too_few(survivors: int, terms: Terms) -> None:
    """Refuse to begin a session in which too few will be left.

    Raises:
        RunError: with how many.
    """
    if survivors < terms.threshold:
        raise RunError(
            f"{survivors} of {terms.clients} clients survived round {terms.round_number}, "
            f"and {terms.threshold} are needed"
        )


def _without_sum(refused: RemoteProtocolError | None) -> RunError:
    why = f" (the last message that was refused: {refused.what})" if refused else ""
    return RunError(f"the session has ended without a sum{why}; run the round again")


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
