"""No party's objects lead to what is another's: walked idle, while clients train, and inside the sums."""

import os
import signal
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from securekd.checkpoint import PhaseStore, Saved
from securekd.data.examples import Examples
from securekd.errors import RunError
from securekd.federation.aggregation.masking import MaskingAggregator
from securekd.federation.aggregation.seam import Aggregator, Directory, Message, Part, ServerPart, Terms
from securekd.federation.carrier import play
from securekd.federation.client import Client
from securekd.federation.strategies.distil import Distil
from securekd.federation.strategies.labels import LabelClient
from securekd.laboratory.parties import Parties, parties
from securekd.laboratory.plan import Plan, make_plan
from securekd.learning.parallel import performer
from securekd.learning.tasks import Perform, TrainTask, network_of
from securekd.learning.tasks import perform as train
from securekd.privacy.ledger import Ledger
from securekd.settings.experiment import Experiment
from securekd_protocols import Identity, ProtocolError
from securekd_protocols.homomorphic import require_seal
from tests.securekd.conftest import small
from tests.securekd.federation.reach import Instrument, Secret, found, module_globals

pytestmark = pytest.mark.usefixtures("quick")

STRATEGIES: dict[str, dict[str, object]] = {
    "distil": {},
    "pate": {"release": {"scores": "votes"}, "pate": {"threshold": 0.2, "answers": 12}},
    "fedavg": {},
}


def tiny(strategy: str = "distil", **changes: Any) -> Experiment:
    """Three clients, two rounds."""
    student = {"model": "logistic", "epochs": 1, "memory": 0.5 if strategy == "distil" else 0.0}
    return small(
        **{
            "strategy": strategy,
            "data": {"transfer": 24, "test": 20, "private": 60},
            "clients": {"count": 3, "models": ["logistic"]},
            "training": {"epochs": 2, "sampling_rate": 0.5, "digest_epochs": 1},
            "privacy": {"delta": 1e-3, "epsilon": 50.0},
        }
        | STRATEGIES.get(strategy, {})
        | changes
        | {"student": student}
    )


@pytest.fixture(scope="module")
def plans() -> Callable[..., Plan]:
    """Plans, each made once."""
    made: dict[tuple[str, str], Plan] = {}

    def plan(strategy: str = "distil", aggregation: str = "masking") -> Plan:
        key = strategy, aggregation
        if key not in made:
            made[key] = make_plan(tiny(strategy, aggregation=aggregation))
        return made[key]

    return plan


@pytest.fixture(scope="module")
def pool() -> Iterator[Perform]:
    """Two real worker processes."""
    with performer(2, 3) as perform:
        yield perform


def build(plan: Plan, folder: Path, perform: Perform = lambda todo: map(train, todo)) -> Parties:
    ledger = Ledger(folder / "ledger.json", noise="seeded", delta=plan.agreement.delta)
    return parties(plan, folder, perform, lambda name, saved: None, ledger)


def secrets_of(client: Client, sums_only: bool) -> list[Secret]:
    """What is this client's alone: records, key, trained weights, and, where the server gets sums, releases."""
    name, own = client.member.name, client.examples
    trained = dict(network_of(client.member.model, client.agreement.shape, 0, None).named_parameters())
    kept = [Secret(name, "identity", client.identity.private)]
    kept += [Secret(name, what, getattr(own, what)) for what in ("inputs", "labels", "ids")]
    for file in client._store._folder.glob(f"*.{client.key}.safetensors"):
        phase = file.name.removesuffix(".safetensors")
        for key, value in client._store.get(phase).arrays.items():
            if key in trained or (key == "integers" and sums_only):
                kept.append(Secret(name, f"{phase} {key}", value))
            if key == "integers" and sums_only:
                kept.append(Secret(name, f"{phase} in the clear", value.astype("<i4").tobytes()))
    return kept


class Looking(Instrument):
    """Looks at everybody when it is called; as an aggregator, it looks while releases are added up, too."""

    def __init__(self, aggregator: Aggregator) -> None:
        self.sums_only = aggregator.sums_only
        self.looks: Counter[str] = Counter()
        self.everybody: Parties
        self._aggregator = aggregator
        self._parts: list[tuple[Client | None, object]] = []
        self._messages = 0

    def __call__(self, when: str, parts: Sequence[tuple[Client | None, object]] = ()) -> None:
        """Walk from every party, and from its part in a sum."""
        self.looks[when] += 1
        clients = self.everybody.clients
        own = {client.number: secrets_of(client, self.sums_only) for client in clients}
        held: list[tuple[Client | None, object]] = [(None, self.everybody.server), *((c, c) for c in clients), *parts]
        for owner, root in held:
            others = [s for number, secrets in own.items() if owner is None or number != owner.number for s in secrets]
            assert found(root, others) == [], when
        for client in clients:
            assert len(found(client, own[client.number])) >= 4, "the walk does not even find what is the client's own"

    def performed(self, perform: Perform) -> Perform:
        """Looks before and after each task."""

        def looking(todo: Sequence[TrainTask]) -> Iterator[Saved]:
            self("training")
            for saved in perform(todo):
                self("training")
                yield saved

        return looking

    def server(self, terms: Terms, who: Directory, identity: Identity) -> ServerPart:
        return _Watched(self._aggregator.server(terms, who, identity), self._within)

    def client(self, terms: Terms, who: Directory, identity: Identity, number: int, vector: np.ndarray) -> Part:
        part = self._aggregator.client(terms, who, identity, number, vector)
        self._parts = [*(self._parts if number else ()), (self.everybody.clients[number], part)]
        return part

    def decryptor(self, terms: Terms, who: Directory, identity: Identity) -> Part | None:
        return self._aggregator.decryptor(terms, who, identity)

    def _within(self, server: ServerPart) -> None:
        self._messages += 1
        if self._messages % 5 == 1:
            self("a sum", [(None, server), *self._parts])


class _Watched:
    """A server's part, looked at after each message."""

    def __init__(self, part: ServerPart, look: Callable[[ServerPart], None]) -> None:
        self._part, self._look = part, look

    def begin(self) -> Sequence[Message]:
        return self._part.begin()

    def receive(self, message: Message) -> Sequence[Message]:
        replies = self._part.receive(message)
        self._look(self._part)
        return replies

    def close(self) -> Sequence[Message]:
        return self._part.close()

    @property
    def result(self) -> tuple[np.ndarray, tuple[int, ...]] | None:
        return self._part.result


def watched(plan: Plan, folder: Path, perform: Perform) -> Looking:
    """Both rounds, looked at all the time."""
    looking = Looking(plan.aggregator)
    performing = looking.performed(perform)
    looking.everybody = everybody = build(replace(plan, aggregator=looking), folder, performing)
    looking("idle")
    for number in (1, 2):
        play(everybody.server, number, everybody.carrier, performing)
        looking("idle")
    secrets = list(chain.from_iterable(secrets_of(client, looking.sums_only) for client in everybody.clients))
    assert found(module_globals("securekd", "securekd_protocols", "securekd_attacks"), secrets) == []
    return looking


@pytest.mark.parametrize("aggregation", ["plain", "masking"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nobody_reaches_what_is_anothers(
    strategy: str, aggregation: str, plans: Callable[..., Plan], tmp_path: Path
) -> None:
    looks = watched(plans(strategy, aggregation), tmp_path, lambda todo: map(train, todo)).looks
    assert looks["idle"] == 3
    assert looks["training"] >= 2 * (1 + 3)
    assert looks["a sum"] >= 2


def test_nor_under_homomorphic_encryption(plans: Callable[..., Plan], tmp_path: Path) -> None:
    try:
        require_seal()
    except ProtocolError as error:
        pytest.skip(str(error))
    assert watched(plans("distil", "bfv"), tmp_path, lambda todo: map(train, todo)).looks["a sum"] >= 2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nor_while_tasks_are_in_the_queue_of_worker_processes(
    strategy: str, plans: Callable[..., Plan], pool: Perform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plans(strategy)
    everybody = build(plan, tmp_path, pool)
    looking = Looking(plan.aggregator)
    looking.everybody = everybody
    submit = ProcessPoolExecutor.map

    def submitted(self: ProcessPoolExecutor, function: object, todo: Sequence[TrainTask]) -> Iterator[Any]:
        if not todo:
            return submit(self, function, todo)
        with stopped(self):
            results = submit(self, function, todo)
            assert len(self._pending_work_items) == 3
            assert len(found(self, [s for s in records(everybody) if s.what != "ids"])) == 2 * 3
            looking("queued")
        return results

    monkeypatch.setattr(ProcessPoolExecutor, "map", submitted)
    for number in (1, 2):
        play(everybody.server, number, everybody.carrier, pool)
    assert looking.looks["queued"] == 2


@contextmanager
def stopped(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Its workers do nothing meanwhile; those that it has yet to start take longer than a look."""
    workers = list(pool._processes)
    try:
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        yield
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)


def test_nor_through_files_that_lie_beside_its_own(plans: Callable[..., Plan], tmp_path: Path) -> None:
    everybody = build(plans(), tmp_path)
    play(everybody.server, 1, everybody.carrier, lambda todo: map(train, todo))
    names = [path.name.removesuffix(".safetensors") for path in (tmp_path / "state").glob("*.safetensors")]
    assert len(names) == 2 * 3 + 2
    for party in (everybody.server, *everybody.clients):
        for name in names:
            key = name.rpartition(".")[2]
            if key == party.key if isinstance(party, Client) else not key.startswith("client"):
                party._store.get(name)
                continue
            with pytest.raises(RunError, match=f"the phase '{name}' is another party's"):
                party._store.get(name)
    for name in ("./canaries", "../outside", ".hidden", "a/b", "a\\\\b"):
        with pytest.raises(RunError, match="would lie outside of its folder"):
            everybody.server.keep(name, lambda: {})
    for name in ("train.1.client-01", "canaries", "baseline.centralized", "baseline.client-02"):
        with pytest.raises(RunError, match=f"'{name}' is another party's"):
            everybody.server.keep(name, lambda: {})


# ---- the walk finds what is there to be found ----


def records(everybody: Parties) -> list[Secret]:
    return [s for c in everybody.clients for s in secrets_of(c, True) if s.what in ("inputs", "labels", "ids")]


def test_everything_is_found_in_what_the_laboratory_holds(plans: Callable[..., Plan], tmp_path: Path) -> None:
    plan = plans()
    everybody = build(plan, tmp_path)
    for holder in (plan, everybody, everybody.carrier):
        assert len(found(holder, records(everybody))) == 3 * 3
    keys = [Secret(c.member.name, "identity", c.identity.private) for c in everybody.clients]
    assert len(found(everybody.carrier, keys)) == 3
    assert found(plan, keys) == []


def test_a_view_of_what_all_clients_share_is_found(plans: Callable[..., Plan], tmp_path: Path) -> None:
    plan = plans()
    whole = np.concatenate([c.examples.inputs for c in plan.clients])
    ends = np.cumsum([0, *(len(c.examples) for c in plan.clients)])
    sharing = replace(
        plan,
        clients=tuple(
            replace(c, examples=Examples(c.examples.modality, whole[a:b], c.examples.labels, c.examples.ids))
            for c, a, b in zip(plan.clients, ends, ends[1:], strict=False)
        ),
    )
    everybody = build(sharing, tmp_path)
    first, second, _ = everybody.clients
    assert len(found(first, [s for s in records(everybody) if s.whose == second.member.name])) == 1
    copied = [Secret(s.whose, s.what, s.value.copy()) for s in records(everybody)]  # type: ignore[union-attr]
    assert len(found(first, [s for s in copied if s.whose == second.member.name])) == 1


def closure(client: Client) -> object:
    return lambda: client.examples


def waiting(client: Client) -> object:
    def generator() -> Iterator[int]:
        held = client.examples.inputs
        yield 1
        yield len(held)

    begun = generator()
    next(begun)
    return begun


def delegated(client: Client) -> object:
    def outer() -> Iterator[object]:
        for one in [client]:
            yield from iter([one.number, one])

    begun = outer()
    next(begun)
    return begun


def trapped(client: Client) -> object:
    def fails(held: object) -> None:
        raise ValueError

    try:
        fails(client)
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "hidden",
    [
        closure,
        lambda client: partial(print, client),
        lambda client: client.begin,
        lambda client: client.released.__func__.__get__(client),
        waiting,
        delegated,
        trapped,
        weakref.ref,
        lambda client: {1: [(client.examples.inputs[3:],)]},
        lambda client: memoryview(client.examples.inputs),
        lambda client: torch.from_numpy(client.examples.inputs.base),
        lambda client: torch.nn.ParameterList([torch.from_numpy(client.examples.inputs.base)]),
        lambda client: client.examples.inputs.copy(),
        lambda client: np.array([None, client], dtype=object),
        lambda client: b"sent: " + client.examples.inputs.tobytes(),
        lambda client: map(str, [client]),
    ],
)
def test_a_server_that_hides_a_client_is_found_out(
    hidden: Callable[[Client], object], plans: Callable[..., Plan], tmp_path: Path
) -> None:
    everybody = build(plans(), tmp_path)
    private = [s for s in records(everybody) if s.what == "inputs"]
    assert found(everybody.server, private) == []
    everybody.server.hidden = hidden(everybody.clients[1])  # type: ignore[attr-defined]
    assert any(way.startswith("client-02's inputs: Server > ") for way in found(everybody.server, private))


def test_a_key_is_found_as_bytes_and_as_an_object(plans: Callable[..., Plan], tmp_path: Path) -> None:
    everybody = build(plans(), tmp_path)
    identity = everybody.clients[1].identity
    secret = Secret("client-02", "identity", identity.private)
    for hidden in (identity, bytes(identity.private), identity._key):
        everybody.server.hidden = hidden  # type: ignore[attr-defined]
        assert len(found(everybody.server, [secret])) == 1
    everybody.server.hidden = identity.public  # type: ignore[attr-defined]
    assert found(everybody.server, [secret]) == []


def test_a_cache_of_a_module_or_a_class_is_found(
    plans: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = build(plans(), tmp_path)
    inputs = [s for s in records(everybody) if s.what == "inputs"]
    assert found(module_globals("securekd"), inputs) == []
    monkeypatch.setattr(PhaseStore, "cache", {"latest": everybody.clients[0].examples}, raising=False)
    assert len(found(module_globals("securekd"), inputs)) == 1
    remembered = cache(lambda number: everybody.clients[number].examples.inputs)
    monkeypatch.setattr("securekd.checkpoint.remembered", remembered, raising=False)
    assert len(found(module_globals("securekd"), inputs)) == 3  # its closure holds them all


class Remembering(MaskingAggregator):
    """An aggregator whose server's part has the vectors of the clients' parts within reach."""

    def __init__(self) -> None:
        self.vectors: list[np.ndarray] = []

    def client(self, terms: Terms, who: Directory, identity: Identity, number: int, vector: np.ndarray) -> Part:
        self.vectors.append(vector)
        return super().client(terms, who, identity, number, vector)

    def server(self, terms: Terms, who: Directory, identity: Identity) -> ServerPart:
        part = super().server(terms, who, identity)
        part.aggregator = self  # type: ignore[attr-defined]
        return part


class Gossiping(LabelClient):
    """A half, which everybody shares, that remembers what it has answered."""

    def __init__(self) -> None:
        self.answers: list[Client] = []

    def answer(self, client: Any, asked: Any, knowledge: Any) -> Any:
        self.answers.append(client)
        return super().answer(client, asked, knowledge)


class GossipingDistil(Distil):
    """Both halves."""

    def __init__(self) -> None:
        self.client = Gossiping()


@pytest.mark.parametrize(
    ("changes", "when"), [({"aggregator": Remembering()}, "a sum"), ({"strategy": GossipingDistil()}, "training")]
)
def test_parts_that_pass_something_on_are_found_out_in_a_round(
    changes: dict[str, Any], when: str, plans: Callable[..., Plan], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=when):
        watched(replace(plans(), **changes), tmp_path, lambda todo: map(train, todo))
