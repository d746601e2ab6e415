"""Whoever is lost between two messages is built anew from its folder, and the federation ends as it would have."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import securekd.checkpoint
import securekd.privacy.ledger
from securekd.checkpoint import PhaseStore, Saved
from securekd.federation.aggregation.seam import SERVER, Aggregate, Directory, Message, Part
from securekd.federation.aggregation.session import carry
from securekd.federation.carrier import play
from securekd.federation.client import Client
from securekd.federation.messages import Instruction
from securekd.federation.server import Server
from securekd.laboratory.parties import client, parties, refuse_disagreement, server
from securekd.laboratory.plan import Plan, make_plan
from securekd.laboratory.shared import task_key
from securekd.learning.tasks import TrainTask
from securekd.learning.tasks import perform as train
from securekd.privacy.ledger import Ledger
from securekd.privacy.release import ReleasePlan
from tests.securekd.federation.test_reach import STRATEGIES, tiny

pytestmark = pytest.mark.usefixtures("quick")

CLIENTS, EVERYBODY = (0, 1, 2), (SERVER, 0, 1, 2)
OTHERS = [pytest.param((number,), marks=pytest.mark.slow) for number in (0, 2)]
ONE_AFTER_THE_OTHER = [(1,), (SERVER,), CLIENTS, EVERYBODY, *OTHERS]


class Lost(Exception):
    """A client, or several, are gone, and there again as their folders have them; what they were at is begun anew."""


class ServerLost(Exception):
    """The server is, and so is the round that it played."""


class Killed(Exception):
    """Somebody is lost in the middle of something."""


@dataclass
class Trained:
    """Carries training out, each task once: the same task gives the same, whoever was lost meanwhile."""

    done: dict[str, Saved] = field(default_factory=dict)

    def __call__(self, todo: Sequence[TrainTask]) -> Iterator[Saved]:
        for task in todo:
            key = task_key(task)
            if key not in self.done:
                self.done[key] = train(task)
            yield self.done[key]


class Fragile:
    """Brings messages between parties, of whom some are lost before and after each."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        trained: Trained,
        doomed: Sequence[int],
        only: Callable[[int, tuple[object, ...]], bool] = lambda number, place: True,
    ) -> None:
        """Lose the doomed (clients by number, or the server) once at every place, or only at some."""
        self.plan, self.folder, self.trained = plan, folder, trained
        self.doomed, self._only = frozenset(doomed), only
        self.places: dict[tuple[object, ...], None] = {}
        self.server = self._server()
        self.clients = [client(plan, one, folder / "state") for one in plan.clients]

    @property
    def left(self) -> dict[str, object]:
        """What is there at the end."""
        return left(self.plan, self.folder, self.server, self.clients)

    def play(self) -> "Fragile":
        """All rounds, whatever happens."""
        while True:
            try:
                for number in range(len(self.server.played) + 1, self.plan.experiment.rounds + 1):
                    self._lose("round", number)
                    play(self.server, number, self, self.perform)
                return self
            except (ServerLost, Killed):
                self.server = self._server()
            except Lost:
                continue

    def instruct(self, told: Instruction) -> None:
        for number in range(len(self.clients)):
            while not self._told(told, number):
                continue

    def add_up(self, told: Instruction, server: Server) -> Aggregate:
        while True:
            try:
                self._lose(told.words, "sum")
                summed = self._session(told, server)
                self._lose(told.words, "summed")
                return summed
            except Lost:
                continue

    def hear(self, told: Instruction) -> dict[str, tuple[str, ...]]:
        said = {}
        while len(said) < len(self.clients):
            client = self.clients[len(said)]
            try:
                self._lose(told.words, "hear", client.number)
                texts = client.say(told)
                self._lose(told.words, "heard", client.number)
            except (Lost, Killed):
                self._restore(client.number)
                continue
            said[client.member.name] = texts
        return said

    def perform(self, todo: Sequence[TrainTask]) -> Iterator[Saved]:
        for task in todo:
            self._lose_server(task.name, "to be computed")
            [saved] = self.trained([task])
            self._lose_server(task.name, "computed")
            yield saved

    # ----

    def _told(self, told: Instruction, number: int) -> bool:
        """Tell one client, and wait for it; whether it lived to the end."""
        client = self.clients[number]
        try:
            self._lose(told.words, "to begin", number)
            task = client.begin(told)
            self._lose(told.words, "begun", number)
            if task is not None:
                [saved] = self.trained([task])
                self._lose(told.words, "to finish", number)
                client.finish(told, saved)
                self._lose(told.words, "finished", number)
        except (Lost, Killed):
            self._restore(number)
            return False
        return True

    def _session(self, told: Instruction, server: Server) -> Aggregate:
        who = Directory(tuple(c.identity.public for c in self.clients), server.identity.public, bytes(32))
        parts: dict[int, Part] = {c.number: self._watched(c.join(told, who), told) for c in self.clients}
        part = self._watched(server.part(told, who), told)
        return carry(part, parts, [c.member.name for c in self.clients])

    def _watched(self, part: Part, told: Instruction) -> "_Frames":
        return _Frames(part, lambda sender, recipient, stage: self._lose(told.words, sender, recipient, stage))

    def _lose(self, *place: object) -> None:
        if not self._is_new(place):
            return
        for number in self.doomed - {SERVER}:
            self._restore(number)
        if SERVER in self.doomed:
            raise ServerLost
        raise Lost

    def _lose_server(self, *place: object) -> None:
        if SERVER in self.doomed:
            self._lose(*place)

    def _is_new(self, place: tuple[object, ...]) -> bool:
        if place in self.places or not self.doomed:
            return False
        self.places[place] = None
        return self._only(len(self.places) - 1, place)

    def _restore(self, number: int) -> None:
        self.clients[number] = client(self.plan, self.plan.clients[number], self.folder / "state")

    def _server(self) -> Server:
        ledger = Ledger(self.folder / "ledger.json", noise="seeded", delta=self.plan.agreement.delta)
        return server(self.plan, self.folder / "state", ledger)


class _Frames:
    """A part in a sum, before each of whose messages somebody may be lost."""

    def __init__(self, part: Part, lose: Callable[[int, int, str | None], None]) -> None:
        self._part, self._lose = part, lose

    def receive(self, message: Message) -> Sequence[Message]:
        self._lose(message.sender, message.recipient, message.stage)
        return self._part.receive(message)

    def __getattr__(self, name: str) -> object:
        return getattr(self._part, name)


def left(plan: Plan, folder: Path, server: Server, clients: Sequence[Client]) -> dict[str, object]:
    """All that a federation leaves: the same, whoever was lost on the way."""
    refuse_disagreement(Ledger(folder / "ledger.json", noise="seeded", delta=plan.agreement.delta), clients)
    files: dict[str, object] = {
        path.name: path.read_bytes() for path in [folder / "ledger.json", *(folder / "state").glob("ledger.*")]
    }
    for one in server.played:
        files |= {f"student {one.number} {name}": value.tobytes() for name, value in one.ended.student.items()}
        for asked, summed in one.sums:
            files[f"sum of {asked.words}"] = (summed.total.tobytes(), summed.survivors)
            files[f"asked in {asked.words}"] = asked.digest
            for one_of_them in clients:
                files[f"{one_of_them.member.name} in {asked.words}"] = one_of_them.released(asked).tobytes()
    return files


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


@pytest.fixture(scope="module")
def undisturbed(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Plan, dict[str, object]]]:
    """Each strategy's plan, and what its federation leaves where nobody is lost."""
    made: dict[str, tuple[Plan, dict[str, object]]] = {}

    def of(strategy: str) -> tuple[Plan, dict[str, object]]:
        if strategy not in made:
            plan, folder = make_plan(tiny(strategy)), tmp_path_factory.mktemp(strategy)
            ledger = Ledger(folder / "ledger.json", noise="seeded", delta=plan.agreement.delta)
            everybody = parties(plan, folder, trained, lambda name, saved: None, ledger)
            for number in (1, 2):
                play(everybody.server, number, everybody.carrier, trained)
            made[strategy] = plan, left(plan, folder, everybody.server, everybody.clients)
        return made[strategy]

    return of


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many releases were drawn, under 0."""
    count: Counter[int] = Counter()
    draw = ReleasePlan.draw

    def counted(self: ReleasePlan, *args: object) -> np.ndarray:
        count[0] += 1
        return draw(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ReleasePlan, "draw", counted)
    return count


Undisturbed = Callable[[str], tuple[Plan, dict[str, object]]]


@pytest.mark.parametrize("doomed", ONE_AFTER_THE_OTHER, ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lost_between_any_two_messages(
    strategy: str,
    doomed: Sequence[int],
    undisturbed: Undisturbed,
    trained: Trained,
    draws: Counter[int],
    tmp_path: Path,
) -> None:
    plan, expected = undisturbed(strategy)
    draws.clear()
    fragile = Fragile(plan, tmp_path, trained, doomed).play()
    assert fragile.left == expected
    sums = 2 * len(plan.questions)
    assert draws[0] == 3 * sums
    frames = sum(len(place) == 4 for place in fragile.places)
    assert frames >= sums * 3 * 6  # a masked sum has as many messages, at least, for each client
    assert len(fragile.places) - frames >= 2 + 2 * 3 * 4 + sums * (3 * 2 + 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "doomed"),
    [("distil", (0,)), ("distil", (SERVER,)), ("pate", EVERYBODY), ("fedavg", (SERVER,)), ("fedavg", EVERYBODY)],
    ids=str,
)
def test_lost_once_at_each_place(
    strategy: str,
    doomed: Sequence[int],
    undisturbed: Undisturbed,
    trained: Trained,
    draws: Counter[int],
    tmp_path: Path,
) -> None:
    plan, expected = undisturbed(strategy)
    draws.clear()
    places = len(Fragile(plan, tmp_path / "all", trained, doomed).play().places)
    for at in range(places):
        assert (
            Fragile(plan, tmp_path / str(at), trained, doomed, lambda number, place, at=at: number == at).play().left
            == expected
        ), at
    assert draws[0] == (places + 1) * 3 * 2 * len(plan.questions)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lost_after_each_write_and_before_the_next(
    strategy: str,
    undisturbed: Undisturbed,
    trained: Trained,
    draws: Counter[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, expected = undisturbed(strategy)
    draws.clear()
    written: Counter[str] = Counter()
    for module in (securekd.checkpoint, securekd.privacy.ledger):

        def write(path: Path, data: bytes, write: Callable[..., None] = module.write_atomically, **how: bool) -> None:
            write(path, data, **how)
            written[path.name] += 1
            raise Killed

        monkeypatch.setattr(module, "write_atomically", write)
    fragile = Fragile(plan, tmp_path, trained, ()).play()
    monkeypatch.undo()
    assert fragile.left == expected
    assert draws[0] == 3 * 2 * len(plan.questions)
    assert {name: count for name, count in written.items() if count > 1 and not name.startswith("ledger")} == {}


def test_what_is_kept_has_the_shape_that_it_had(tmp_path: Path) -> None:
    given = {"number": np.array(1.5, np.float32), "turned": np.arange(6).reshape(2, 3).T}
    store = PhaseStore(tmp_path)
    store.put("phase", Saved(given))
    kept = store.get("phase").arrays
    assert {key: value.shape for key, value in kept.items()} == {"number": (), "turned": (3, 2)}
    np.testing.assert_array_equal(kept["turned"], given["turned"])
