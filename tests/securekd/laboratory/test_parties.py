"""The laboratory, which plays everybody, compares what each has written down."""

from collections.abc import Callable
from pathlib import Path

import pytest

from securekd.errors import PromiseError
from securekd.federation.carrier import play
from securekd.laboratory.parties import Parties, client, parties, refuse_disagreement
from securekd.laboratory.plan import Plan, make_plan
from securekd.learning.tasks import perform
from securekd.privacy.events import Entry
from securekd.privacy.ledger import Ledger, read_ledger
from tests.securekd.conftest import small


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, Parties]:
    """One round, which tests only read."""
    folder = tmp_path_factory.mktemp("parties")
    plan = make_plan(small(rounds=1, clients={"count": 3, "models": ["logistic"]}))
    everybody = parties(plan, folder, one_by_one, lambda name, saved: None, ledger_of(plan, folder / "ledger.json"))
    play(everybody.server, 1, everybody.carrier, one_by_one)
    return plan, folder, everybody


def one_by_one(todo: list) -> map:  # type: ignore[type-arg]
    return map(perform, todo)


def like(entry: Entry, **changes: object) -> Entry:
    return entry.model_copy(update=changes)


def ledger_of(plan: Plan, path: Path) -> Ledger:
    return Ledger(path, noise="seeded", delta=plan.agreement.delta)


def test_the_servers_ledger_is_the_clients_own_put_together(played: tuple[Plan, Path, Parties]) -> None:
    plan, folder, everybody = played
    public = ledger_of(plan, folder / "ledger.json")
    refuse_disagreement(public, everybody.clients)
    own = [entry for one in everybody.clients for entry in one.entries]
    assert sorted(map(repr, own)) == sorted(map(repr, public.entries))
    assert len(own) == 3 * (1 + 3)  # a training, and a release in each of three views
    refuse_disagreement(public, [client(plan, one, folder / "state") for one in plan.clients])  # as it is on disk


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda entries: entries[:-1], "entry 4 of client-03"),
        (lambda entries: entries[1:], "entry 1 of client-01"),
        (lambda entries: (*entries, like(entries[0], exchange=2)), "entry 5 of client-01"),
        (
            lambda entries: (entries[0].model_copy(update={"neighbours": "zero_out"}), *entries[1:]),
            "entry 1 of client-01",
        ),
        (
            lambda entries: (*entries[:-1], entries[-1].model_copy(update={"transfer": "0" * 64})),
            "entry 4 of client-03",
        ),
    ],
    ids=["one less", "the first less", "one more", "another relation", "another question"],
)
def test_a_ledger_that_says_something_else_ends_with_exit_code_3(
    change: Callable[[tuple[Entry, ...]], tuple[Entry, ...]],
    where: str,
    played: tuple[Plan, Path, Parties],
    tmp_path: Path,
) -> None:
    plan, folder, everybody = played
    public = read_ledger(folder / "ledger.json")
    altered = public.model_copy(update={"entries": change(public.entries)})
    (tmp_path / "ledger.json").write_bytes(altered.to_json())
    with pytest.raises(PromiseError, match=f"{where} differs between the server's ledger and its own") as found:
        refuse_disagreement(ledger_of(plan, tmp_path / "ledger.json"), everybody.clients)
    assert found.value.exit_code == 3
