"""Instructions that come twice, too early, or about something else: a client trains, draws and is charged once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from securekd.errors import AgreementError, RunError
from securekd.federation.client import Client
from securekd.federation.messages import Instruction
from securekd.laboratory.plan import Plan
from tests.securekd.federation.harness import WHO, built, contents, plan_of, untrained

pytestmark = pytest.mark.usefixtures("quick")


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
    _, client, told, asked = begun(tmp_path)
    client.finish(told, next(untrained([client.begin(told)])))
    who = WHO
    with pytest.raises(RunError, match="was not asked for release of round 1"):
        client.join(asked, who)
    client.begin(asked)
    released, charged, files = client.released(asked), client.entries, contents(tmp_path)
    turned = replace(asked, arrays={"rows": np.arange(12)[::-1]})
    turned = replace(turned, about=client.about(turned))
    for other in (turned, replace(asked, texts=("x",)), replace(asked, agreement=b"another")):
        with pytest.raises(RunError, match=r"has answered release of round 1 already, and it was about something else"):
            client.join(other, who)
    with pytest.raises(RunError, match="was about something else"):
        client.begin(turned)
    with pytest.raises(AgreementError, match="is asked about something else than it sees itself"):
        client.begin(replace(asked, about=turned.about))
    client.begin(asked)
    client.join(asked, who)
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
    again.join(asked, WHO)
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


def test_training_that_was_not_begun_is_not_finished_nor_charged(tmp_path: Path) -> None:
    _, client, told, _ = begun(tmp_path)
    trained = next(untrained([client.begin(told)]))
    files = contents(tmp_path)
    with pytest.raises(RunError, match="has not begun train of round 1; begin it"):
        client.finish(replace(told, texts=("another",)), trained)
    assert contents(tmp_path) == files
    assert client.entries == ()
