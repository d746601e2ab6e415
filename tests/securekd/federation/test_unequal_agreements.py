"""Parties whose agreements differ release nothing, also where the server says that they do not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from securekd.data.examples import transfer_digest
from securekd.errors import AgreementError
from securekd.federation.aggregation.seam import Aggregate
from securekd.federation.aggregation.session import carry
from securekd.federation.agreement import Agreement
from securekd.federation.carrier import InProcess, play
from securekd.federation.client import Client
from securekd.federation.messages import Instruction
from securekd.federation.server import Server
from securekd.laboratory.plan import Plan
from tests.securekd.federation.harness import (
    EVERY,
    HOMOMORPHIC,
    REFUSALS,
    built,
    contents,
    joined,
    plan_of,
    untrained,
)

pytestmark = pytest.mark.usefixtures("quick")


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
    another_setting,
    another_class,
    another_transfer_set,
    another_roster,
    another_order,
    other_noise,
    another_threshold,
)


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
        return carry(server.part(own, who), parts, names, witness=self._witness)


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
