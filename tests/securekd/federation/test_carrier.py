"""What travels badly: unequal agreements, and carriers, networks and clients that lose, repeat, delay or invent."""

import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd.checkpoint import Saved
from securekd.data.examples import transfer_digest
from securekd.errors import AgreementError, RunError, SecurekdError
from securekd.federation.aggregation.catalogue import aggregator_named
from securekd.federation.aggregation.seam import DECRYPTOR, SERVER, Aggregate, Directory, Message, Part, Terms
from securekd.federation.aggregation.session import carry
from securekd.federation.agreement import Agreement
from securekd.federation.carrier import InProcess, play
from securekd.federation.client import Client
from securekd.federation.messages import Instruction
from securekd.federation.server import Server
from securekd.federation.sums import terms_of
from securekd.laboratory.parties import Parties, parties
from securekd.laboratory.plan import Plan, make_plan
from securekd.learning.tasks import TrainTask, network_of, state_of
from securekd.privacy.ledger import Ledger, read_ledger
from securekd_protocols import Identity, ProtocolError, RemoteProtocolError
from tests.securekd.conftest import small

HOMOMORPHIC = ("bfv", "ckks")
EVERY = ("plain", "masking", *HOMOMORPHIC)
REFUSALS = (SecurekdError, ProtocolError)
MOST_MESSAGES = 5000
"""Messages after which a session counts as endless; 4 clients exchange under a hundred."""


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Small files and models: a disk that forgets and one thread do for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    torch.set_num_threads(threads)


def untrained(todo: Sequence[TrainTask]) -> Any:
    """In place of training: weights that are new in every call, as they are with the system's noise."""
    for task in todo:
        network = network_of(task.model, task.shape, task.init_seed, task.state)
        rng = np.random.default_rng()
        moved = {name: value + rng.normal(0, 0.1, value.shape) for name, value in state_of(network).items()}
        arrays = {name: value.astype(np.float32) for name, value in moved.items()}
        yield Saved(arrays, {"zeroed": 0, "gradients": None}, 0.1)


@cache
def plan_of(aggregation: str) -> Plan:
    return make_plan(
        small(
            aggregation=aggregation,
            data={"transfer": 12, "test": 20, "private": 40},
            clients={"models": ["logistic"]},
            student={"model": "logistic"},
            privacy={"noise": "os", "dp_sgd": False},
            rounds=2,
        )
    )


def built(plan: Plan, folder: Path) -> Parties:
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger.json", noise="os", delta=plan.agreement.delta)
    return parties(plan, folder, untrained, lambda name, saved: None, ledger)


def refuse_long(error: Exception) -> None:
    """Have every refusal be one line that says something."""
    assert "\n" not in str(error)
    assert 20 < len(str(error)) < 500


def contents(folder: Path) -> dict[str, bytes]:
    """What stands in a folder: every file, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- unequal agreements ----


def agreeing_on(plan: Plan, **changes: object) -> Plan:
    parts = {name: getattr(plan.agreement, name) for name in Agreement.model_fields if name != "schema_"}
    return replace(plan, agreement=Agreement(**parts | changes))


def another_setting(plan: Plan) -> Plan:
    wanted = plan.experiment.release.model_copy(update={"temperature": 1.5})
    return agreeing_on(plan, settings=plan.experiment.model_copy(update={"release": wanted}))


def another_class(plan: Plan) -> Plan:
    classes = (*plan.data.classes[:-1], "nine")
    return agreeing_on(plan, classes=classes, transfer_sha256=transfer_digest(plan.data.transfer, classes).hex())


def another_transfer_set(plan: Plan) -> Plan:
    turned = plan.data.transfer.take(np.arange(len(plan.data.transfer))[::-1])
    other = agreeing_on(plan, transfer_sha256=transfer_digest(turned, plan.data.classes).hex())
    return replace(other, data=replace(plan.data, transfer=turned))


def another_roster(plan: Plan) -> Plan:
    members = list(plan.agreement.members)
    members[1] = members[1].model_copy(update={"model": members[1].model.model_copy(update={"learning_rate": 0.25})})
    return agreeing_on(plan, members=tuple(members))


def another_order(plan: Plan) -> Plan:
    return agreeing_on(plan, members=plan.agreement.members[::-1])


def other_noise(plan: Plan) -> Plan:
    return agreeing_on(
        plan, asked=tuple(one.model_copy(update={"sigma": one.sigma * 1.5}) for one in plan.agreement.asked)
    )


def another_threshold(plan: Plan) -> Plan:
    return agreeing_on(plan, threshold=plan.agreement.threshold + 1)


OTHERS = (
    another_setting, another_class, another_transfer_set, another_roster, another_order, other_noise,
    another_threshold,
)  # fmt: skip


@pytest.mark.parametrize("whose", ["the first client", "the last client", "the server"])
@pytest.mark.parametrize("change", OTHERS, ids=lambda change: change.__name__)
@pytest.mark.parametrize("aggregation", EVERY)
def test_parties_of_unequal_agreements_release_nothing(
    aggregation: str, change: Callable[[Plan], Plan], whose: str, tmp_path: Path
) -> None:
    plan = plan_of(aggregation)
    most, odd = built(plan, tmp_path / "most"), built(change(plan), tmp_path / "odd")
    clients, server = list(most.clients), most.server
    if whose == "the server":
        server = odd.server
    else:
        number = 0 if whose == "the first client" else -1
        clients[number] = odd.clients[number]
    before = contents(tmp_path)
    seen: list[bytes] = []
    with pytest.raises(AgreementError, match=r"agreement of the server has the digest .* compare the two documents"):
        play(server, 1, InProcess(clients, plan.aggregator, untrained, witness=seen.append), untrained)
    assert contents(tmp_path) == before
    assert seen == []
    assert not any(client.entries for client in clients)


@pytest.mark.parametrize("whose", ["a client", "the server"])
def test_a_party_that_changes_its_agreement_between_rounds_releases_nothing_more(whose: str, tmp_path: Path) -> None:
    plan = plan_of("plain")
    everybody = built(plan, tmp_path)
    play(everybody.server, 1, everybody.carrier, untrained)
    before, odd = contents(tmp_path), built(another_setting(plan), tmp_path)
    clients = list(everybody.clients)
    if whose == "a client":
        clients[2] = odd.clients[2]
        server = everybody.server
    else:
        server = odd.server
        server.played = everybody.server.played
    with pytest.raises(AgreementError, match="compare the two documents"):
        play(server, 2, InProcess(clients, plan.aggregator, untrained), untrained)
    assert contents(tmp_path) == before


class Lying(InProcess):
    """Tells clients that the server has agreed on the same as they."""

    told = b""
    trained = b""
    victims: frozenset[int] = frozenset(range(4))

    def lie(self, client: Client, told: Instruction) -> Instruction:
        if client.number not in self.victims:
            return told
        return replace(told, agreement=self.told, after=self.trained if told.after else b"")

    def instruct(self, told: Instruction) -> None:
        for client in self.clients:
            lie = self.lie(client, told)
            if told.phase == "train" and client.number in self.victims:
                self.trained = lie.digest
            task = client.begin(lie)
            if task is not None:
                client.finish(lie, next(untrained([task])))

    def add_up(self, told: Instruction, server: Server) -> Aggregate:
        everybody = len(self.victims) == len(self.clients)
        own = replace(told, agreement=self.told, after=self.trained) if everybody else told
        who, parts = joined(self.clients, server, own, self._aggregator, lambda client: self.lie(client, told))
        names = [member.name for member in server.agreement.members]
        return carry(server.part(own, self._aggregator, who), parts, names, witness=self._witness)


DECRYPTOR_IDENTITY = Identity.generate(os.urandom)


def joined(
    clients: Sequence[Client],
    server: Server,
    told: Instruction,
    aggregator: Any,
    heard: Callable[[Client], Instruction] | None = None,
) -> tuple[Directory, dict[int, Part]]:
    """The parts of whoever joins, and of a decryptor that believes the server."""
    who = Directory(
        tuple(client.identity.public for client in clients), server.identity.public, DECRYPTOR_IDENTITY.public
    )
    parts: dict[int, Part] = {}
    for client in clients:
        with suppress(RunError):
            parts[client.number] = client.join(heard(client) if heard else told, aggregator, who)
    terms = terms_of(server.agreement, server.question(told.release_phase), told)
    third = aggregator.decryptor(terms, who, DECRYPTOR_IDENTITY)
    return who, parts if third is None else parts | {DECRYPTOR: third}


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: change.__name__)
@pytest.mark.parametrize("aggregation", EVERY)
def test_a_server_that_lies_about_its_agreement_is_refused_by_the_context(
    aggregation: str, change: Callable[[Plan], Plan], tmp_path: Path
) -> None:
    plan = plan_of(aggregation)
    most, odd = built(plan, tmp_path / "most"), built(change(plan), tmp_path / "odd")
    seen: list[bytes] = []
    carrier = Lying(most.clients, plan.aggregator, untrained, witness=seen.append)
    carrier.told = plan.agreement.digest
    with pytest.raises(REFUSALS) as caught:
        play(odd.server, 1, carrier, untrained)
    assert "\n" not in str(caught.value)
    assert odd.server.played == []
    assert not any("aggregate" in name for name in contents(tmp_path))
    assert len(seen) == (aggregation in HOMOMORPHIC and change not in (another_class, another_transfer_set))
    # That one is the key of a decryptor that believes the server; no client says a word.


@pytest.mark.parametrize("aggregation", EVERY)
def test_a_client_that_is_lied_to_alone_is_in_no_sum(aggregation: str, tmp_path: Path) -> None:
    plan = plan_of(aggregation)
    most, odd = built(plan, tmp_path / "most"), built(another_setting(plan), tmp_path / "odd")
    clients = [odd.clients[0], *most.clients[1:]]
    carrier = Lying(clients, plan.aggregator, untrained)
    carrier.told, carrier.victims = odd.server.agreement.digest, frozenset([0])
    if aggregation == "plain":
        with pytest.raises(AgreementError, match="compare the agreements"):
            play(most.server, 1, carrier, untrained)
        return
    play(most.server, 1, carrier, untrained)
    ((told, summed),) = most.server.played[0].sums
    assert summed.survivors == tuple(client.member.name for client in clients[1:])
    np.testing.assert_array_equal(summed.total, sum(client.released(told) for client in clients[1:]))


def test_a_party_with_another_transfer_set_than_agreed_on_is_refused_at_once(tmp_path: Path) -> None:
    plan = plan_of("plain")
    other = replace(plan, data=another_transfer_set(plan).data)
    with pytest.raises(
        AgreementError, match=r"the transfer set of (the server|a client) has the digest .* take the same rows"
    ):
        built(other, tmp_path)


# ---- carriers that lose, repeat, delay and reorder ----


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


TERMS = Terms(
    clients=4,
    values=5,
    magnitude=1000,
    threshold=3,
    colluders=1,
    context=b"agreed on",
    round_number=1,
    noise_variance=2,
)


@dataclass(frozen=True)
class Session:
    """Everybody in one session, with lines to be spoilt."""

    kind: str
    vectors: Mapping[int, np.ndarray]
    identities: tuple[Identity, ...]
    who: Directory
    parts: Mapping[int, Part]

    def play(self, parts: Mapping[int, Part]) -> tuple[list[int], tuple[str, ...]] | None:
        """The sum and who is in it; None where the session is refused, in one line."""
        server = aggregator_named(self.kind).server(TERMS, self.who, self.identities[-2])
        try:
            done = carry(server, parts, "0123")
        except REFUSALS as error:
            refuse_long(error)
            return None
        return done.total.tolist(), done.survivors

    def total(self, survivors: Sequence[str]) -> list[int]:
        return sum((self.vectors[int(name)] for name in survivors), np.zeros(TERMS.values, np.int64)).tolist()


IDENTITIES = tuple(Identity.generate(os.urandom) for _ in range(TERMS.clients + 2))
WHO = Directory(tuple(one.public for one in IDENTITIES[:-2]), IDENTITIES[-2].public, IDENTITIES[-1].public)


def session(kind: str, seed: int) -> Session:
    rng = np.random.default_rng(seed)
    aggregator = aggregator_named(kind)
    vectors = {i: rng.integers(-1000, 1001, TERMS.values) for i in range(TERMS.clients)}
    parts: dict[int, Part] = {i: aggregator.client(TERMS, WHO, IDENTITIES[i], i, v) for i, v in vectors.items()}
    third = aggregator.decryptor(TERMS, WHO, IDENTITIES[-1])
    return Session(kind, vectors, IDENTITIES, WHO, parts if third is None else parts | {DECRYPTOR: third})


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
            first = (
                b"" if kind == "plain" else damaged(message.data, self.rng)
            )  # a plain client ends what is not its own
            for data in ([first] if first else []) + [message.data, message.data]:
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


# ---- hostile clients ----


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
        return carry(server.part(told, self._aggregator, who), lines, names)


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


def begun(folder: Path) -> tuple[Plan, Client, Instruction, Instruction]:
    """A client, and the first two instructions of a run."""
    plan = plan_of("plain")
    everybody = built(plan, folder)
    told = Instruction(1, "train", plan.agreement.digest)
    rows = {"rows": np.arange(12)}
    asked = Instruction(1, "release", plan.agreement.digest, rows, after=told.digest)
    return plan, everybody.clients[0], told, replace(asked, about=everybody.clients[0].about(asked))


def test_of_two_trainings_of_a_round_the_first_is_kept(tmp_path: Path) -> None:
    """The ledger is charged for one, so one alone may have any effect."""
    _, client, told, _ = begun(tmp_path)
    one, other = client.begin(told), client.begin(told)
    assert one is not None
    assert other is not None
    first, second = untrained([one, other])
    client.finish(told, first)
    client.finish(told, second)
    for name, value in client.trained(1).items():
        np.testing.assert_array_equal(value, first.arrays[name])
    assert len(client.entries) == 1
    assert client.begin(told) is None


def test_an_answer_leaves_for_the_question_that_it_was_drawn_for_alone(tmp_path: Path) -> None:
    plan, client, told, asked = begun(tmp_path)
    client.finish(told, next(untrained([client.begin(told)])))
    who = WHO
    with pytest.raises(RunError, match="was not asked for release of round 1"):
        client.join(asked, plan.aggregator, who)
    client.begin(asked)
    released, charged, files = client.released(asked), client.entries, contents(tmp_path)
    turned = replace(asked, arrays={"rows": np.arange(12)[::-1]})
    turned = replace(turned, about=client.about(turned))
    for other in (turned, replace(asked, texts=("x",)), replace(asked, agreement=b"another")):
        with pytest.raises(RunError, match=r"has answered release of round 1 already, and it was about something else"):
            client.join(other, plan.aggregator, who)
    with pytest.raises(RunError, match="was about something else"):
        client.begin(turned)
    with pytest.raises(AgreementError, match="is asked about something else than it sees itself"):
        client.begin(replace(asked, about=turned.about))
    client.begin(asked)
    client.join(asked, plan.aggregator, who)
    assert contents(tmp_path) == files
    assert client.entries == charged
    np.testing.assert_array_equal(client.released(asked), released)


def test_an_answer_that_nobody_has_charged_for_is_charged_for_before_it_leaves(tmp_path: Path) -> None:
    """A client that died between drawing and charging, and is then asked to join at once."""
    plan, client, told, asked = begun(tmp_path)
    client.finish(told, next(untrained([client.begin(told)])))
    path = tmp_path / "state" / f"ledger.{client.key}.json"
    before = path.read_bytes()
    client.begin(asked)
    after = path.read_bytes()
    path.write_bytes(before)
    again = built(plan, tmp_path).clients[0]
    assert len(again.entries) == 1
    again.join(asked, plan.aggregator, WHO)
    assert path.read_bytes() == after


@pytest.mark.parametrize("exchange", [-1, 0, 2, 99])
@pytest.mark.parametrize("number", [-1, 0, 1, 2, 3])
def test_a_release_that_was_not_agreed_on_is_refused(exchange: int, number: int, tmp_path: Path) -> None:
    _, client, told, asked = begun(tmp_path)
    client.finish(told, next(untrained([client.begin(told)])))
    files = contents(tmp_path)
    with pytest.raises(RunError):
        client.begin(replace(asked, round=number, exchange=exchange))
    assert contents(tmp_path) == files
    assert json.loads((tmp_path / "state" / f"ledger.{client.key}.json").read_bytes())["entries"][0]["phase"] == "train"


@pytest.mark.parametrize("exchange", [-1, 0])
def test_exchanges_are_counted_from_one(exchange: int, tmp_path: Path) -> None:
    _, client, told, _ = begun(tmp_path)
    for trained in (False, True):
        if trained:
            client.finish(told, next(untrained([client.begin(told)])))
        files = contents(tmp_path)
        with pytest.raises(RunError, match="is no number from 1"):
            client.begin(replace(told, exchange=exchange))
        assert contents(tmp_path) == files
