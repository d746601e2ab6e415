"""Clients that send what they like, and a server that sends rubbish, change no sum."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from securekd.federation.aggregation.catalogue import aggregator_named
from securekd.federation.aggregation.seam import DECRYPTOR, SERVER, Message, Part
from securekd_protocols import RemoteProtocolError
from tests.securekd.federation.harness import EVERY, IDENTITIES, TERMS, WHO, session

pytestmark = pytest.mark.usefixtures("quick")


# ---- clients ----


@dataclass
class Hostile:
    """A client that sends, beside what it should, whatever it likes."""

    inner: Part
    evil: Callable[[Message], Sequence[Message]]

    def receive(self, message: Message) -> list[Message]:
        sent = list(self.inner.receive(message))
        return [*self.evil(message), *sent, *self.evil(message)]


@pytest.mark.parametrize("kind", EVERY)
def test_random_bytes_and_wrong_lengths_of_a_client_change_nothing(kind: str) -> None:
    def evil(message: Message) -> list[Message]:
        sizes = (0, 1, 5, 6, 19, 21, 100, 5000)
        return [Message(0, SERVER, "input", os.urandom(size)) for size in sizes]

    one = session(kind, 3)
    assert one.play({**one.parts, 0: Hostile(one.parts[0], evil)}) == (one.total("0123"), tuple("0123"))


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("sender", [0, 1, 4, 99, SERVER, DECRYPTOR, -3])
def test_a_client_speaks_for_itself_alone(kind: str, sender: int) -> None:
    """In a plain sum too, whose bytes say nothing of who they are from: the line does."""
    one = session(kind, 4)
    own = np.arange(TERMS.values, dtype="<i4").tobytes()
    evil = Hostile(one.parts[2], lambda message: [Message(sender, SERVER, "input", own)])
    assert one.play({2: evil, **{i: part for i, part in one.parts.items() if i != 2}}) == (
        one.total("0123"),
        tuple("0123"),
    )


@pytest.mark.parametrize("kind", EVERY)
def test_a_second_input_of_a_client_is_not_in_the_sum(kind: str) -> None:
    one = session(kind, 5)
    second = aggregator_named(kind).client(TERMS, WHO, IDENTITIES[2], 2, np.full(TERMS.values, 999))

    @dataclass
    class Double:
        def receive(self, message: Message) -> list[Message]:
            sent = list(one.parts[2].receive(message))
            try:
                return [*sent, *second.receive(message)]
            except RemoteProtocolError:
                return sent

    assert one.play({**one.parts, 2: Double()}) == (one.total("0123"), tuple("0123"))


@pytest.mark.parametrize("kind", EVERY)
def test_frames_of_another_session_are_not_in_the_sum(kind: str) -> None:
    old: list[Message] = []

    def noting(part: Part) -> Part:
        @dataclass
        class Noting:
            def receive(self, message: Message) -> Sequence[Message]:
                sent = part.receive(message)
                old.extend(sent)
                return sent

        return Noting()

    before, one = session(kind, 6), session(kind, 7)
    assert before.play({i: noting(part) for i, part in before.parts.items()}) is not None
    own = [message for message in old if message.sender == 1]
    replaying = Hostile(one.parts[1], lambda message: own)
    found = one.play({**one.parts, 1: replaying})
    if kind == "plain":  # nothing tells its sessions apart: a client that sends an old vector sends that vector
        replayed = replace(one, vectors={**one.vectors, 1: before.vectors[1]})
        assert found == (replayed.total("0123"), tuple("0123"))
    else:
        assert found == (one.total("0123"), tuple("0123"))


# ---- a server ----


@pytest.mark.parametrize("stage", range(7))
def test_a_masking_client_takes_rubbish_at_any_time(stage: int) -> None:
    """Also what looks like the shares that it waits for, before they come."""
    taken = 0

    @dataclass
    class Rubbish:
        inner: Part

        def receive(self, message: Message) -> Sequence[Message]:
            nonlocal taken
            taken += 1
            if taken == stage:
                for kind in range(256):
                    with pytest.raises(RemoteProtocolError):
                        self.inner.receive(replace(message, data=message.data[:5] + bytes([kind]) + message.data[6:-1]))
                for data in (b"", b"\0", os.urandom(5), os.urandom(200)):
                    with pytest.raises(RemoteProtocolError):
                        self.inner.receive(replace(message, data=data))
            return self.inner.receive(message)

    one = session("masking", 2)
    assert one.play({**one.parts, 1: Rubbish(one.parts[1])}) == (one.total("0123"), tuple("0123"))
