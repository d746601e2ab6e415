"""A half sees its own side, and the interface between them carries what comes next.

Each small strategy here is played between the parties, with everybody lost between any two messages, and as a run.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securekd import run
from securekd.data.examples import Examples
from securekd.errors import AgreementError, RunError, SettingError
from securekd.federation.aggregation.seam import SERVER, Directory
from securekd.federation.agreement import Agreement, Member
from securekd.federation.carrier import play
from securekd.federation.client import Client
from securekd.federation.messages import Instruction, Taught
from securekd.federation.party import WHOSE
from securekd.federation.server import Server
from securekd.federation.strategies.consensus import mean_of, winners
from securekd.federation.strategies.labels import LabelClient, LabelServer, LabelStrategy, consensus, lesson
from securekd.federation.strategies.seam import ClientSide, Ended, Played, ServerSide, Side, Turn
from securekd.knowledge.bounded import Bounded, Knowledge
from securekd.knowledge.questions import Wanted, label_shape
from securekd.knowledge.weights import WeightUpdateShape, weight_update
from securekd.laboratory.parties import Parties, parties
from securekd.laboratory.plan import Plan, make_plan
from securekd.learning.tasks import TrainTask, perform
from securekd.models.shape import InputShape
from securekd.privacy.accountant import compose_epsilon, guarantee
from securekd.privacy.events import VIEWS, Unit
from securekd.privacy.ledger import Ledger, read_ledger
from securekd.privacy.release import release_event
from securekd.settings.experiment import Experiment
from tests.securekd.federation.test_reach import tiny
from tests.securekd.federation.test_restored_parties import EVERYBODY, Fragile, Trained, left

pytestmark = pytest.mark.usefixtures("quick")


def build(plan: Plan, folder: Path) -> Parties:
    ledger = Ledger(folder / "ledger.json", noise="seeded", delta=plan.agreement.delta)
    return parties(plan, folder, lambda todo: map(perform, todo), lambda name, saved: None, ledger)


# ---- what a side does not have ----


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return build(make_plan(tiny()), tmp_path_factory.mktemp("halves"))


def public(party: Client | Server) -> set[str]:
    return {name for name in {*dir(type(party)), *vars(party)} if not name.startswith("_")}


def test_whose_is_listed_for_exactly_what_one_side_has_and_the_other_has_not(everybody: Parties) -> None:
    client, server = public(everybody.clients[0]), public(everybody.server)
    assert dict.fromkeys(client - server, "a client's") | dict.fromkeys(server - client, "the server's") == WHOSE


@pytest.mark.parametrize("name", WHOSE)
def test_a_half_that_reads_what_its_side_does_not_have_is_told_whose_it_is(name: str, everybody: Parties) -> None:
    client, server = everybody.clients[0], everybody.server
    without, kind = (client, "a client") if WHOSE[name] == "the server's" else (server, "the server")
    with pytest.raises(AttributeError) as refused:
        getattr(without, name)
    assert str(refused.value) == f"{kind} has no {name!r}: it is {WHOSE[name]}"


def test_what_nobody_has_is_nobodys(everybody: Parties) -> None:
    with pytest.raises(AttributeError, match=r"^the server has no 'clients'$"):
        _ = everybody.server.clients  # type: ignore[attr-defined]


def test_what_a_side_has_and_cannot_compute_says_why(everybody: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(transfer: Examples) -> np.ndarray:
        return transfer.pixels  # type: ignore[attr-defined,no-any-return]

    monkeypatch.setattr("securekd.federation.server.public_features", broken)
    with pytest.raises(AttributeError, match="'Examples' object has no attribute 'pixels'"):
        _ = everybody.server.features


# ---- what comes next ----


class RefreshingServer(LabelServer):
    """Has clients learn a first consensus, and asks again about what it left unclear: all in one round."""

    def play(self, server: ServerSide, number: int, before: Played | None) -> Turn:
        yield from server.train(before.ended.taught if before else None)
        question = server.question("release")
        rows = server.agreement.rows(number, question.labels.rows)
        scores = mean_of(question, (yield from server.ask("release", {"rows": rows}))).scores
        yield from server.train(consensus(rows, winners(scores)), exchange=2)
        unclear = rows[np.argsort(scores.max(axis=1), kind="stable")[: len(rows) // 2]]
        unseen = np.setdiff1d(np.arange(len(server.transfer)), rows)[: len(rows) - len(unclear)]
        again = np.union1d(unclear, unseen)
        second = yield from server.ask("release", {"rows": again}, exchange=2)
        taught = consensus(again, winners(mean_of(question, second).scores))
        task = server.public_task(number, lessons=(lesson(server, again, taught.arrays["log_probabilities"]),))
        return Ended(taught, (yield from server.learn(f"distil.{number}", task)))


class Refreshing(LabelStrategy):
    """Both halves."""

    server = RefreshingServer()
    trainings = 2

    def asks(self, experiment: Experiment, shape: InputShape, transfer: int) -> tuple[Wanted, ...]:
        return (Wanted("release", label_shape(experiment, transfer // 2, shape.classes), 1.0, exchanges=2),)


class UnevenServer(LabelServer):
    """Has clients train twice, asks twice, and has them train again: nothing has the number of what it builds on."""

    def play(self, server: ServerSide, number: int, before: Played | None) -> Turn:
        rows = np.arange(len(server.transfer))
        for exchange in (1, 2):
            yield from server.train(exchange=exchange)
        for exchange in (1, 2):
            yield from server.ask("release", {"rows": rows}, exchange=exchange)
        yield from server.train(exchange=3)
        return Ended(Taught("nothing", 0), (yield from server.learn(f"student.{number}", server.public_task(number))))


class Uneven(LabelStrategy):
    """Both halves."""

    server = UnevenServer()
    trainings = 3

    def asks(self, experiment: Experiment, shape: InputShape, transfer: int) -> tuple[Wanted, ...]:
        return (Wanted("release", label_shape(experiment, transfer, shape.classes), 0.0, exchanges=2),)


@dataclass(frozen=True)
class Descending:
    """The mean of all records by gradient descent: each step is a sum of clipped gradients at the latest guess."""

    exchanges: int
    unit: Unit = "client"

    @property
    def client(self) -> "Descending":
        return self

    @property
    def server(self) -> "Descending":
        return self

    def asks(self, experiment: Experiment, shape: InputShape, transfer: int) -> tuple[Wanted, ...]:
        gradient = WeightUpdateShape(int(np.prod(shape.dimensions)), clip=2.0)
        return (Wanted("release", gradient, 2.0, exchanges=self.exchanges, unit=self.unit),)

    def about(self, side: Side, asked: Instruction) -> bytes:
        return hashlib.sha256(asked.arrays["guess"].tobytes()).digest()

    def refuse_unfit(self, experiment: Experiment, members: Sequence[Member], shape: InputShape, transfer: int) -> None:
        return None

    def train(self, client: ClientSide, told: Instruction) -> TrainTask:
        return client.private_task("client", client.member.name, *told.labels, state=client.weights(told))

    def answer(self, client: ClientSide, asked: Instruction, knowledge: Knowledge) -> Bounded:
        assert isinstance(knowledge, WeightUpdateShape)
        records = client.examples.inputs.reshape(len(client.examples), -1)
        return weight_update(asked.arrays["guess"], records.mean(axis=0), knowledge, examples=len(records))

    def play(self, server: ServerSide, number: int, before: Played | None) -> Turn:
        yield from server.train()
        question = server.question("release")
        guess = np.zeros(question.weights.size) if before is None else before.ended.notes["guess"]
        for exchange in range(1, self.exchanges + 1):
            summed = yield from server.ask("release", {"guess": guess}, exchange=exchange)
            guess = guess + 0.03 * question.mean(summed.total, len(summed.survivors))
        student = yield from server.learn(f"student.{number}", server.public_task(number))
        return Ended(Taught("nothing", 0), student, {"guess": guess})

    def surrogate(
        self, server: ServerSide, played: Played, total: np.ndarray, survivors: int, *name: str | int
    ) -> TrainTask:
        return server.public_task(*name)


class ConversingServer(LabelServer):
    """Hears what clients say, and says it all to everybody in the next round, beside a sum."""

    def play(self, server: ServerSide, number: int, before: Played | None) -> Turn:
        yield from server.train(before.ended.taught if before else None)
        rows = np.arange(len(server.transfer))
        summed = yield from server.ask("release", {"rows": rows}, texts=("and what else?",))
        said = yield from server.hear(texts=(f"how was round {number}?",), exchange=2)
        learnt = consensus(rows, winners(mean_of(server.question("release"), summed).scores))
        taught = replace(learnt, texts=tuple(text for name in sorted(said) for text in said[name]))
        task = server.public_task(number, lessons=(lesson(server, rows, learnt.arrays["log_probabilities"]),))
        return Ended(taught, (yield from server.learn(f"distil.{number}", task)))


class ConversingClient(LabelClient):
    """Trains in an order that depends on what it was told, and says what it was asked."""

    def train(self, client: ClientSide, told: Instruction) -> TrainTask:
        lessons = super().train(client, told).lessons
        state = client.weights(told)
        return client.private_task(client.member.name, *told.labels, *told.texts, state=state, lessons=lessons)

    def say(self, client: ClientSide, asked: Instruction) -> Sequence[str]:
        weights = client.weights(asked)
        assert weights is not None
        return asked.texts[0], f"{client.member.name} – {sum(float(value.sum()) for value in weights.values())}"


class Conversing(LabelStrategy):
    """Both halves."""

    client = ConversingClient()
    server = ConversingServer()

    def asks(self, experiment: Experiment, shape: InputShape, transfer: int) -> tuple[Wanted, ...]:
        return (Wanted("release", label_shape(experiment, transfer, shape.classes), 1.0),)


HUNDRED, BY_EXAMPLE = Descending(100), Descending(3, "example")
OWN = ("Refreshing", "BY_EXAMPLE", "Conversing")


def own(strategy: str, **changes: Any) -> Experiment:
    rounds = 1 if strategy in ("HUNDRED", "Uneven") else 2
    return tiny(f"{__name__}:{strategy}", **{"rounds": rounds, "aggregation": "plain"} | changes)


Undisturbed = tuple[Plan, Path, Parties]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Undisturbed]:
    """Each strategy played by undisturbed parties, once."""

    @cache
    def of(strategy: str) -> Undisturbed:
        plan, folder = make_plan(own(strategy)), tmp_path_factory.mktemp(strategy)
        everybody = build(plan, folder)
        for number in range(1, plan.experiment.rounds + 1):
            play(everybody.server, number, everybody.carrier, lambda todo: map(perform, todo))
        return plan, folder, everybody

    return of


Alone = Callable[[str], Undisturbed]


@pytest.mark.parametrize("doomed", [(1,), (SERVER,), EVERYBODY], ids=str)
@pytest.mark.parametrize("strategy", OWN)
def test_each_survives_whoever_is_lost_between_two_messages(
    strategy: str, doomed: Sequence[int], alone: Alone, tmp_path: Path
) -> None:
    plan, folder, everybody = alone(strategy)
    fragile = Fragile(plan, tmp_path, Trained(), doomed).play()
    assert fragile.left == left(plan, folder, everybody.server, everybody.clients)
    told, expected = ([one.ended.taught.texts for one in party.played] for party in (fragile.server, everybody.server))
    assert told == expected


@pytest.mark.parametrize("strategy", [*OWN, "HUNDRED", "Uneven"])
def test_each_is_a_run_that_spends_what_was_foretold(strategy: str, alone: Alone, tmp_path: Path) -> None:
    plan, folder, _ = alone(strategy)
    result = run(own(strategy), tmp_path / "run")
    assert len(result.rounds) == plan.experiment.rounds
    assert (tmp_path / "run" / "ledger.json").read_bytes() == (folder / "ledger.json").read_bytes()
    foretold, spent = (
        [e.model_copy(update={"transfer": None}) for e in ledger.entries]
        for ledger in (plan.ledger(), read_ledger(folder / "ledger.json"))
    )
    said = [e for e in spent if e.event.kind == "unprotected" and "in the clear" in e.event.why]
    assert len(said) == (2 * 3 if strategy == "Conversing" else 0)
    assert sorted(map(repr, foretold)) == sorted(repr(e) for e in spent if e not in said)


def test_the_second_exchange_is_about_what_the_first_sum_left_unclear(alone: Alone) -> None:
    plan, _, everybody = alone("Refreshing")
    for one in everybody.server.played:
        (first, summed), (second, _) = one.sums
        assert (first.exchange, second.exchange) == (1, 2)
        clearness, rows = mean_of(plan.question, summed).scores.max(axis=1), first.arrays["rows"]
        again = np.isin(rows, second.arrays["rows"])
        assert clearness[again].max() <= clearness[~again].min()
        for client in everybody.clients:
            did = [(e.phase, e.exchange) for e in client.entries if e.round == one.number]
            assert list(dict.fromkeys(did)) == [("train", 1), ("release", 1), ("train", 2), ("release", 2)]
            assert not np.array_equal(client.released(first), client.released(second))


def test_an_answer_comes_from_the_training_before_it_whatever_their_numbers(alone: Alone) -> None:
    plan, _, everybody = alone("Uneven")
    step = plan.question.release.mechanism.step
    for client in everybody.clients:
        for asked, _ in everybody.server.played[0].sums:
            used, trained = client.weights(asked), client.trained(1, 2)
            assert used is not None
            assert all(np.array_equal(used[name], trained[name]) for name in trained)
            answer = client.answer(asked, plan.question.knowledge).vector
            np.testing.assert_allclose(client.released(asked) * step, answer, atol=step)


def test_two_trainings_of_a_round_draw_different_noise(alone: Alone) -> None:
    _, _, everybody = alone("Refreshing")
    client, half = everybody.clients[0], Refreshing.client
    told = Instruction(1, "train", everybody.server.agreement.digest)
    assert half.train(client, told).name != half.train(client, replace(told, exchange=2)).name


def test_a_training_more_than_was_agreed_on_is_refused(alone: Alone) -> None:
    plan, _, everybody = alone("Refreshing")
    told = Instruction(1, "train", plan.agreement.digest, exchange=3)
    with pytest.raises(RunError, match="one more than the 2 that were agreed on; nothing was trained"):
        everybody.clients[0].begin(told)


def test_all_trainings_share_the_epsilon(alone: Alone) -> None:
    plan = make_plan(own("Refreshing", privacy={"noise": "os", "epsilon": 8.0, "delta": 1e-3}))
    assert plan.agreement.trainings == 2
    assert sum(e.phase == "train" for e in plan.ledger().entries) == 3 * 2 * 2
    epsilon = next(g.epsilon for g in plan.guarantees() if g.unit == "example")
    assert epsilon is not None
    assert 7.9 < epsilon <= 8.0


def test_a_hundred_sums_are_charged_for_a_hundredfold(alone: Alone) -> None:
    plan, folder, everybody = alone("HUNDRED")
    guess = everybody.server.played[0].ended.notes["guess"]
    truth = np.mean([c.examples.inputs.reshape(len(c.examples), -1).mean(axis=0) for c in everybody.clients], axis=0)
    assert np.linalg.norm(guess - truth) < 0.6 * np.linalg.norm(truth)
    entries = [e for e in json.loads((folder / "ledger.json").read_text())["entries"] if e["phase"] == "release"]
    assert len(entries) == 100 * 3 * len(VIEWS)
    assert [e.get("exchange", "left out") for e in entries[:: 3 * len(VIEWS)]] == ["left out", *range(2, 101)]
    assert len({e["transfer"] for e in entries}) == 100
    release, unseeded = plan.question.release, read_ledger(folder / "ledger.json").model_copy(update={"noise": "os"})
    for view in VIEWS:
        event = release_event(release.mechanism, release.exposure, view)
        expected = compose_epsilon([event] * 100, "zero_out", plan.agreement.delta["client"])
        assert guarantee(unseeded, "client", view).epsilon == pytest.approx(expected)


def test_a_client_level_target_covers_all_hundred() -> None:
    private = {"noise": "os", "client_epsilon": 20.0, "delta": 1e-3}
    plan = make_plan(own("HUNDRED", aggregation="masking", privacy=private))
    server = next(g for g in plan.guarantees() if (g.view, g.unit) == ("server", "client"))
    assert server.epsilon is not None
    assert 19.9 < server.epsilon <= 20.0


@pytest.mark.parametrize("doomed", [(0,), (SERVER,)], ids=str)
def test_a_hundred_survive(doomed: Sequence[int], alone: Alone, tmp_path: Path) -> None:
    plan, folder, everybody = alone("HUNDRED")

    def some(number: int, place: tuple[object, ...]) -> bool:
        return str(place[0]).endswith(("exchange 2", "exchange 50", "exchange 100"))

    fragile = Fragile(plan, tmp_path, Trained(), doomed, some).play()
    assert fragile.left == left(plan, folder, everybody.server, everybody.clients)


def test_a_sum_more_than_was_agreed_on_is_refused(alone: Alone) -> None:
    _, _, everybody = alone("BY_EXAMPLE")
    asked, _ = everybody.server.played[0].sums[-1]
    with pytest.raises(RunError, match="one more than the 3 that were agreed on; nothing was released"):
        everybody.clients[0].begin(replace(asked, exchange=4))


def test_a_release_may_protect_examples_and_then_no_whole_client(alone: Alone) -> None:
    plan, folder, _ = alone("BY_EXAMPLE")
    assert [one.unit for one in Agreement.decode(plan.agreement.encoded).asked] == ["example"]
    ledger = read_ledger(folder / "ledger.json").model_copy(update={"noise": "os"})
    assert {e.unit for e in ledger.entries} == {"example"}
    releases = ledger.model_copy(update={"entries": tuple(e for e in ledger.entries if e.phase == "release")})
    assert guarantee(releases, "example", "server").epsilon is not None
    client = guarantee(ledger, "client", "server")
    assert (client.epsilon, client.why) == (None, "what clients release protects single examples, and no whole client")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"privacy": {"client_epsilon": 5.0, "delta": 1e-3}}, "privacy.client_epsilon = 5.0 is for whole clients"),
        ({"cohort": {"sampling_rate": 0.5}}, "cohort.sampling_rate = 0.5 is accounted for whole clients"),
    ],
)
def test_what_protects_whole_clients_is_refused_beside_what_does_not(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        make_plan(own("BY_EXAMPLE", **changes))


def test_parties_that_mean_another_unit_do_not_begin(alone: Alone, tmp_path: Path) -> None:
    plan, _, _ = alone("BY_EXAMPLE")
    with pytest.raises(AgreementError, match="does not state what strategy"):
        build(replace(plan, strategy=Descending(3)), tmp_path)


def test_text_goes_both_ways(alone: Alone) -> None:
    _, folder, everybody = alone("Conversing")
    first, second = everybody.server.played
    names = [c.member.name for c in everybody.clients]
    assert first.ended.taught.texts[::2] == ("how was round 1?",) * 3
    assert [text.partition(" – ")[0] for text in first.ended.taught.texts[1::2]] == names
    assert second.ended.taught.texts[0] == "how was round 2?"
    assert first.sums[0][0].texts == ("and what else?",)
    ledger = read_ledger(folder / "ledger.json").model_copy(update={"noise": "os"})
    said = [(e.round, e.client, e.event.kind) for e in ledger.entries if e.exchange == 2]
    assert said == [(number, name, "unprotected") for number in (1, 2) for name in names]
    assert guarantee(ledger, "client", "server").why == "clients say something in the clear"


# ---- what a client keeps to ----

WHO = Directory(tuple(bytes([number]) * 32 for number in (1, 2, 3)), b"s" * 32, b"d" * 32)


def test_nothing_is_said_about_something_else_under_the_same_number(alone: Alone) -> None:
    plan, _, everybody = alone("Conversing")
    first = Instruction(1, "train", plan.agreement.digest)
    other = replace(first, phase="release", texts=("who are they?",), exchange=2, after=first.digest)
    with pytest.raises(RunError, match="has answered release of round 1, exchange 2 already"):
        everybody.clients[0].say(other)


def test_no_release_goes_into_a_sum_about_something_else(alone: Alone) -> None:
    _, _, everybody = alone("Refreshing")
    asked, _ = everybody.server.played[0].sums[0]
    client = everybody.clients[0]
    client.join(asked, WHO)
    other = replace(asked, arrays={"rows": asked.arrays["rows"][::-1]})
    with pytest.raises(RunError, match="was about something else"):
        client.join(other, WHO)


def test_a_release_is_in_the_ledger_before_it_leaves_even_if_its_client_was_killed_in_between(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after it has stored a release and before it has charged for it, and then told nothing but to join."""
    plan, _, everybody = alone("BY_EXAMPLE")
    asked, _ = everybody.server.played[0].sums[0]
    one = build(plan, tmp_path).clients[0]
    told = Instruction(1, "train", plan.agreement.digest)
    task = one.begin(told)
    assert task is not None
    one.finish(told, perform(task))

    def killed(self: Ledger, entries: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            one.begin(asked)
    restored = build(plan, tmp_path).clients[0]
    assert [e.phase for e in restored.entries] == ["train"]
    restored.join(asked, WHO)
    assert [e.phase for e in restored.entries] == ["train", *["release"] * len(VIEWS)]


def test_a_client_answers_after_the_lesson_that_it_had_alone(alone: Alone, tmp_path: Path) -> None:
    """Taught apart from all others, a client would be the only one in a sum that knows something (Pasquini et al.)."""
    plan, _, everybody = alone("Refreshing")
    asked, _ = everybody.server.played[0].sums[0]
    one = build(plan, tmp_path).clients[0]
    other = Instruction(1, "train", plan.agreement.digest, texts=("a lesson for you alone",))
    task = one.begin(other)
    assert task is not None
    one.finish(other, perform(task))
    for client in (one, build(plan, tmp_path).clients[0]):  # as it is, and restored
        for after in (asked.after, b"", b"x" * 32):
            with pytest.raises(RunError, match="is to come after another training than"):
                client.begin(replace(asked, after=after))
    with pytest.raises(RunError, match="already, and it was about something else"):
        one.begin(Instruction(1, "train", plan.agreement.digest))
    assert [entry.phase for entry in one.entries] == ["train"]
    one.begin(replace(asked, after=other.digest))  # whose context nobody else has
