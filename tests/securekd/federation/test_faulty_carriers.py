"""Carriers that lose, repeat, delay, reorder and damage: what they leave is right, or refused."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd.checkpoint import Saved
from securekd.errors import SecurekdError
from securekd.federation.aggregation.seam import Aggregate, Message, Part
from securekd.federation.aggregation.session import carry
from securekd.federation.carrier import InProcess, play
from securekd.federation.client import Client
from securekd.federation.messages import Instruction
from securekd.federation.server import Server
from securekd.laboratory.plan import Plan
from securekd.privacy.ledger import read_ledger
from securekd_protocols import RemoteProtocolError
from tests.securekd.federation.harness import (
    EVERY,
    HOMOMORPHIC,
    REFUSALS,
    TERMS,
    built,
    joined,
    plan_of,
    refuse_long,
    session,
    untrained,
)

pytestmark = pytest.mark.usefixtures("quick")

MOST_MESSAGES = 5000
"""Messages after which a session counts as endless; 4 clients exchange under a hundred."""


@dataclass
class Faults:
    """A seeded schedule."""

    random: random.Random
    rate: float
    happened: int = 0

    def any(self, *kinds: str) -> str:
        """What befalls a message: mostly nothing."""
        if self.random.random() >= self.rate:
            return ""
        self.happened += 1
        return self.random.choice(kinds)


SCHEDULES = st.builds(
    lambda seed, rate: Faults(random.Random(seed), rate), st.integers(0, 2**32), st.sampled_from([0.02, 0.05, 0.2])
)


@dataclass
class BadLine:
    """A party's part behind a line that loses, repeats, delays and reorders.

    Frames that are signed it damages too, and brings old ones again, of this session and of those before: a plain
    vector says neither whose nor of which session it is, and whoever carries it has to.
    """

    inner: Part
    number: int
    faults: Faults
    old: list[Message]
    signed: bool
    held: list[Message] = field(default_factory=list)
    taken: int = 0

    def receive(self, message: Message) -> list[Message]:
        self.taken += 1
        assert self.taken < MOST_MESSAGES
        sent = self.held
        self.held = []
        match self.faults.any("lost", "twice", "old before", "damaged"):
            case "lost":
                return sent
            case "twice":
                arrived = [message, message]
            case "old before" if self.old:
                arrived = [self.faults.random.choice(self.old), message]
            case "damaged":
                arrived = [replace(message, data=damaged(message.data, self.faults.random)), message]
            case _:
                arrived = [message]
        for one in arrived:
            try:
                sent += self.inner.receive(one)
            except RemoteProtocolError:
                continue
        self.old.append(message)
        return self.spoilt(sent)

    def spoilt(self, sent: list[Message]) -> list[Message]:
        self.old += sent if self.signed else ()
        match self.faults.any("lost", "twice", "late", "turned", *(("damaged", "old") if self.signed else ())):
            case "lost":
                sent = []
            case "twice":
                sent = sent * 2
            case "late":
                self.held, sent = sent, []
            case "turned":
                sent = sent[::-1]
            case "damaged":
                bad = [replace(one, data=damaged(one.data, self.faults.random)) for one in sent]
                sent = [*bad, *sent]
            case "old":
                again = [replace(one, sender=self.number) for one in self.old]
                sent = [*self.faults.random.choices(again, k=3), *sent]
        return sent


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut off, made longer, or with a bit turned."""
    place = rng.randrange(len(data)) if data else 0
    match rng.randrange(3):
        case 0:
            return data[:place]
        case 1:
            return data + b"\0"
        case _:
            return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :] if data else b"\0"


# ---- single sums ----


def over_bad_lines(kind: str, faults: Faults, sessions: int) -> None:
    """Sessions in a row between the same parties, whose frames of one may turn up in another."""
    old: dict[int, list[Message]] = defaultdict(list)
    for seed in range(sessions):
        one = session(kind, seed)
        before = faults.happened
        found = one.play({i: BadLine(part, i, faults, old[i], kind != "plain") for i, part in one.parts.items()})
        if found is not None:
            total, survivors = found
            assert len(survivors) >= TERMS.threshold
            assert total == one.total(survivors)
        assert found is not None or faults.happened > before


@settings(max_examples=60)
@given(SCHEDULES)
def test_a_plain_sum_over_bad_lines_is_right_or_refused(faults: Faults) -> None:
    over_bad_lines("plain", faults, 2)


@settings(max_examples=40)
@given(SCHEDULES)
def test_a_masked_sum_over_bad_lines_is_right_or_refused(faults: Faults) -> None:
    over_bad_lines("masking", faults, 2)


@settings(max_examples=8)
@given(SCHEDULES, st.sampled_from(HOMOMORPHIC))
def test_a_homomorphic_sum_over_bad_lines_is_right_or_refused(faults: Faults, kind: str) -> None:
    over_bad_lines(kind, faults, 2)


@pytest.mark.parametrize("kind", EVERY)
def test_frames_that_come_twice_or_damaged_beside_the_true_ones_cost_nothing(kind: str) -> None:
    @dataclass
    class Noisy:
        inner: Part
        rng: random.Random

        def receive(self, message: Message) -> list[Message]:
            sent: list[Message] = []
            # A plain client ends what is not its own.
            first = [] if kind == "plain" else [damaged(message.data, self.rng)]
            for data in [*first, message.data, message.data]:
                try:
                    sent += self.inner.receive(replace(message, data=data))
                except RemoteProtocolError:
                    continue
            return [
                replace(one, data=data) for one in sent for data in (damaged(one.data, self.rng), one.data, one.data)
            ]

    one = session(kind, 1)
    found = one.play({i: Noisy(part, random.Random(i)) for i, part in one.parts.items()})
    if kind == "plain":  # a bit that is turned in a plain vector is another vector: nothing is signed there
        assert found is not None
    else:
        assert found == (one.total("0123"), tuple("0123"))


# ---- whole rounds ----


class Unreliable(InProcess):
    """Loses, repeats, delays and reorders instructions, has clients train twice at a time, and spoils the lines."""

    def __init__(self, clients: Sequence[Client], plan: Plan, faults: Faults, once: "Once") -> None:
        super().__init__(clients, plan.aggregator, untrained)
        self.once = once
        self.faults = faults
        self.signed = plan.experiment.aggregation != "plain"
        self.history: list[Instruction] = []
        self.old: dict[int, list[Message]] = defaultdict(list)

    def instruct(self, told: Instruction) -> None:
        self.history.append(told)
        for client in self.faults.random.sample(self.clients, len(self.clients)):
            match self.faults.any("lost", "twice", "old before", "old after", "backwards"):
                case "lost":
                    arrived = []
                case "twice":
                    arrived = [told, told]
                case "old before":
                    arrived = [self.faults.random.choice(self.history), told]
                case "old after":
                    arrived = [told, self.faults.random.choice(self.history)]
                case "backwards":
                    arrived = self.history[::-1]
                case _:
                    arrived = [told]
            self.bring(client, arrived)

    def bring(self, client: Client, arrived: Sequence[Instruction]) -> None:
        """Carry instructions out; training may end in any order, and later than other things are asked."""
        under_way: list[tuple[Instruction, Saved]] = []
        for told in arrived:
            try:
                task = client.begin(told)
            except SecurekdError as error:
                refuse_long(error)
                continue
            if task is not None:
                under_way.append((told, next(untrained([task]))))
            if under_way and self.faults.any("late") != "late":
                client.finish(*under_way.pop(self.faults.random.randrange(len(under_way))))
            self.once.look(client)
        for told, trained in under_way:
            client.finish(told, trained)
            self.once.look(client)

    def catch_up(self) -> None:
        """Bring everybody what was lost, in order."""
        for client in self.clients:
            self.bring(client, self.history)

    def add_up(self, told: Instruction, server: Server) -> Aggregate:
        who, parts = joined(self.clients, server, told, self._aggregator)
        lines = {i: BadLine(part, i, self.faults, self.old[i], self.signed) for i, part in parts.items()}
        names = [member.name for member in server.agreement.members]
        return carry(server.part(told, who), lines, names)


def whole_rounds(aggregation: str, faults: Faults, folder: Path) -> None:
    plan = plan_of(aggregation)
    everybody = built(plan, folder)
    once = Once(folder / "state")
    carrier = Unreliable(everybody.clients, plan, faults, once)
    for number in (1, 2):
        for attempt in range(4):
            if attempt == 3:  # and then everything arrives
                faults.rate = 0.0
                carrier.catch_up()
            try:
                play(everybody.server, number, carrier, untrained)
                break
            except REFUSALS as error:
                if attempt == 3:
                    raise
                refuse_long(error)
    for played in everybody.server.played:
        for told, summed in played.sums:
            inside = [client for client in everybody.clients if client.member.name in summed.survivors]
            assert len(inside) == len(summed.survivors) >= plan.agreement.threshold
            np.testing.assert_array_equal(summed.total, sum(client.released(told) for client in inside))
            assert all(charges(client, told) == 3 for client in inside)  # one for each view
    public = read_ledger(folder / "ledger.json").entries
    for client in everybody.clients:
        assert set(map(repr, client.entries)) <= set(map(repr, public))
        assert len(set(map(repr, client.entries))) == len(client.entries)
        once.look(client)
        released = [name for name in once.found if name.startswith("release") and client.key in name]
        assert len([e for e in client.entries if e.phase == "release"]) == 3 * len(released)


@dataclass
class Once:
    """Looks that no file in which a client keeps what it did is ever another one."""

    folder: Path
    found: dict[str, bytes] = field(default_factory=dict)

    def look(self, client: Client) -> None:
        for path in self.folder.glob(f"*.{client.key}.safetensors"):
            content = path.read_bytes()
            assert self.found.setdefault(path.name, content) == content, path.name


def charges(client: Client, told: Instruction) -> int:
    return sum(entry.phase == told.phase and entry.round == told.round for entry in client.entries)


@settings(max_examples=20)
@given(SCHEDULES)
def test_plain_rounds_survive_a_bad_carrier(tmp_path_factory: pytest.TempPathFactory, faults: Faults) -> None:
    whole_rounds("plain", faults, tmp_path_factory.mktemp("plain"))


@settings(max_examples=10)
@given(SCHEDULES)
def test_masked_rounds_survive_a_bad_carrier(tmp_path_factory: pytest.TempPathFactory, faults: Faults) -> None:
    whole_rounds("masking", faults, tmp_path_factory.mktemp("masking"))


@settings(max_examples=3)
@given(SCHEDULES, st.sampled_from(HOMOMORPHIC))
def test_homomorphic_rounds_survive_a_bad_carrier(
    tmp_path_factory: pytest.TempPathFactory, faults: Faults, kind: str
) -> None:
    whole_rounds(kind, faults, tmp_path_factory.mktemp("homomorphic"))
