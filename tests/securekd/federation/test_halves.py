"""A half sees its own side, and the interface between them carries what comes next.

Each small strategy here is played between the parties, with everybody lost between any two messages, and as a run.
"""

from pathlib import Path

import numpy as np
import pytest

from securekd.data.examples import Examples
from securekd.federation.client import Client
from securekd.federation.party import WHOSE
from securekd.federation.server import Server
from securekd.laboratory.parties import Parties, parties
from securekd.laboratory.plan import Plan, make_plan
from securekd.learning.tasks import perform
from securekd.privacy.ledger import Ledger
from tests.securekd.federation.test_reach import tiny


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
