"""Whole sessions under an adversary that owns the network and the server's key, chosen move by move by hypothesis.

It delivers messages in any order, drops, repeats and corrupts them, tells clients of different survivors, key books and
deliveries, closes stages when it likes, kills clients, and restores them from states it has kept. Whatever it does:

- every error has a name, and nothing else is ever raised;
- an honest server's sum is the exact sum of the survivors that it announces;
- of no client are both secrets given away: never `threshold` seed shares and `threshold` key shares of one owner;
- no honest input is opened alone: whatever sum can be taken out of the masked inputs, with every share that was given
  and what the last client knows, who works with the server, contains as many honest ones as the parameters promise;
- no share of the mask key of a client that has answered every message of an honest server is ever given;
- nobody masks or signs twice: a client sends one masked input, under one transcript, and signs one survivor set.
"""

import contextlib
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from securekd_protocols import CohortRule, Diary, MaskingClient
from securekd_protocols.books import FrameList
from securekd_protocols.errors import ProtocolError
from securekd_protocols.frame import SERVER, parse_frame
from securekd_protocols.messages import Kind, ShareDelivery, SurvivorList, Unmask
from securekd_protocols.states import ServerState
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session
from tests.protocols.opened import bits, members, opened

GRAPHS = {
    "complete": {"n": 5},
    "smallest": {"n": 4},
    "regular": {"n": 8, "graph": SMALL_RING, "threshold": SMALL_RING_THRESHOLD},
}
clients = st.integers(0, 7)
few = st.sets(clients, max_size=3)
pick = st.integers(0, 10_000)


class Adversary(RuleBasedStateMachine):
    """Messages under way to and from each client; everything that was ever sent is kept."""

    @initialize(graph=st.sampled_from(sorted(GRAPHS)))
    def begin(self, graph, diaries=True):
        n = GRAPHS[graph]["n"]
        policies = {i: {"diary": Diary(CohortRule(1))} for i in range(n)} if diaries else None
        self.session = Session(**GRAPHS[graph], d=2, policies=policies)
        self.n, self.colluder = n, n - 1
        self.told = {}  # for whom each masked input is, by who sent it and the transcript
        self.down = {i: [message.data] for i, message in enumerate(self.session.inbox)}
        self.up = []
        self.seen_down = defaultdict(list)  # what each client was ever sent
        self.states = {}  # one old state of each client
        self.seed_shares, self.key_shares = defaultdict(set), defaultdict(set)
        self.masked, self.signed = defaultdict(set), defaultdict(set)
        self.lied = False

    # --- the moves ----------------------------------------------------------------------------------------------------

    @rule(index=clients)
    def deliver(self, index):
        index %= self.n
        if self.down[index]:
            self.to_client(index, self.down[index].pop(0))

    @rule(choice=pick)
    def carry_to_server(self, choice):
        if self.up:
            self.to_server(self.up.pop(choice % len(self.up)))

    @rule()
    def everybody_answers(self):
        """One honest stage, so that long sessions are reached at all."""
        for index in range(self.n):
            while self.down[index]:
                self.to_client(index, self.down[index].pop(0))
        for data in self.up[:]:
            self.up.remove(data)
            self.to_server(data)

    @rule(index=clients)
    def drop(self, index):
        if self.down[index % self.n]:
            self.down[index % self.n].pop(0)

    @rule(index=clients, other=clients, choice=pick)
    def replay(self, index, other, choice):
        """Any client may be sent again what it, or another one, was sent before."""
        sent = self.seen_down[other % self.n]
        if sent:
            self.to_client(index % self.n, sent[choice % len(sent)])

    @rule(choice=pick)
    def replay_to_server(self, choice):
        if self.session.sent:
            self.to_server(self.session.sent[choice % len(self.session.sent)])

    @rule(index=clients, bit=pick)
    def corrupt(self, index, bit):
        queue = self.down[index % self.n]
        if queue:
            self.to_client(index % self.n, flipped(queue[0], bit))

    @rule(choice=pick, bit=pick)
    def corrupt_to_server(self, choice, bit):
        if self.up:
            self.to_server(flipped(self.up[choice % len(self.up)], bit))

    @rule()
    def lose_patience(self):
        with contextlib.suppress(ProtocolError):
            self.post(self.session.server.close_phase())

    @rule(index=clients)
    def keep_a_state(self, index):
        index %= self.n
        with contextlib.suppress(ProtocolError):
            self.states[index] = self.session.clients[index].save()

    @precondition(lambda self: self.states)
    @rule(choice=pick)
    def restore_an_old_state(self, choice):
        index = sorted(self.states)[choice % len(self.states)]
        policy = self.session.clients[index]._policy
        self.session.clients[index] = MaskingClient.restore(self.states[index], self.session.identities[index], policy)

    @rule(index=clients, left_out=few)
    def lie_about_survivors(self, index, left_out):
        """The server's key signs, for one client, another survivor list under the transcript that the client holds."""
        survivors = tuple(i for i in range(self.n) if i not in left_out)
        self.lie(index % self.n, Kind.SURVIVOR_LIST, SurvivorList(survivors).encode())

    @rule(left_out=few)
    def lie_to_all_about_survivors(self, left_out):
        for index in range(self.n):
            self.lie_about_survivors(index, left_out)

    @rule(index=clients, left_out=few)
    def lie_about_shares(self, index, left_out):
        for data in reversed(self.seen_down[index % self.n] + self.down[index % self.n]):
            if data[5] == Kind.SHARE_DELIVERY:
                try:
                    genuine = ShareDelivery.decode(self.session.body_of(data), self.session.limits)
                except ProtocolError:  # it is one that `corrupt` made
                    continue
                sharers = tuple(i for i in genuine.sharers if i not in left_out)
                boxes = tuple(box for box in genuine.boxes if box.peer not in left_out)
                self.lie(index % self.n, Kind.SHARE_DELIVERY, ShareDelivery(sharers, boxes).encode())
                return

    @rule(index=clients)
    def ask_to_unmask(self, index):
        """Show a client every signature that there is under its transcript, the colluder's among them."""
        session = self.session.clients[index % self.n]._accepted
        if session is None:
            return
        frames = {}
        if self.colluder in session.survivors:
            frames[self.colluder] = self.session.signed_by(self.colluder, Kind.CONSISTENCY, b"", session.transcript)
        for data in self.session.sent:
            if data[5] == Kind.CONSISTENCY and self.session.transcript_of(data) == session.transcript:
                frames[parse_frame(data, self.session.limits).header.sender] = data
        body = FrameList(tuple(frames[i] for i in sorted(frames))).encode()
        self.lie(index % self.n, Kind.CONSISTENCY_PROOF, body)

    # --- what happens -------------------------------------------------------------------------------------------------

    def lie(self, index, kind, body):
        session = self.session.clients[index]._accepted
        if session is not None:
            self.lied = True
            self.to_client(index, self.session.forged(kind, body, session.transcript))

    def to_client(self, index, data):
        client = self.session.clients[index]
        self.seen_down[index].append(data)
        try:
            replies = client.receive(data)
        except ProtocolError:
            return
        if data[5] == Kind.INVITATION:
            client.submit(self.session.vectors[index])
        for reply in replies:
            self.note(index, reply)
            self.session.sent.append(reply)
            self.up.append(reply)

    def to_server(self, data):
        with contextlib.suppress(ProtocolError):
            self.post(self.session.server.receive(data))

    def post(self, outgoing):
        for message in outgoing:
            self.down[message.recipient].append(message.data)

    def note(self, index, data):
        frame = parse_frame(data, self.session.limits)
        assert frame.header.sender not in (SERVER, None)
        if frame.header.kind is Kind.UNMASK:
            answer = Unmask.decode(frame.body, self.session.limits)
            for held in answer.seeds:
                self.seed_shares[held.owner].add(index)
            for held in answer.keys:
                self.key_shares[held.owner].add(index)
        if frame.header.kind is Kind.MASKED_INPUT:
            self.masked[index, frame.header.transcript].add(bytes(frame.body))
            self.told[index, frame.header.transcript] = bits(self.session.clients[index]._accepted.sharers)
        if frame.header.kind is Kind.CONSISTENCY:
            self.signed[index].add(frame.header.transcript)

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def nobody_is_opened(self):
        if not hasattr(self, "session"):
            return
        threshold = self.session.parameters.threshold
        for owner in self.seed_shares.keys() & self.key_shares.keys():
            assert min(len(self.seed_shares[owner]), len(self.key_shares[owner])) < threshold
        if not self.lied and self.session.server.state is not ServerState.ABORTED:
            for owner in self.key_shares:
                assert owner not in self.session.server._collected.survivors

    @invariant()
    def no_input_is_opened_alone(self):
        """No masked input all of whose masks can be recovered, but in a sum with enough honest ones."""
        if not hasattr(self, "session") or not self.told:
            return
        graph, parameters = self.session.server._collected.graph, self.session.parameters
        near = [bits(graph.neighbours(i)) for i in range(self.n)]
        known = [
            bits(
                owner
                for owner in range(self.n)
                if len(shares.get(owner, set()) | graph.holders(owner) & {self.colluder}) >= parameters.threshold
            )
            for shares in (self.seed_shares, self.key_shares)
        ]
        for group in opened(near, 1 << self.colluder, self.told, *known):
            assert group.bit_count() >= parameters.fewest_honest, f"{members(group)} are opened"

    @invariant()
    def nobody_does_anything_twice(self):
        if hasattr(self, "session"):
            assert all(len(bodies) == 1 for bodies in self.masked.values())
            assert all(len(sets) == 1 for sets in self.signed.values())
            assert len({index for index, _ in self.told}) == len(self.told)

    @invariant()
    def a_sum_is_exact(self):
        if hasattr(self, "session") and self.session.server.state is ServerState.FINISHED:
            result = self.session.server.result
            assert len(result.survivors) >= self.session.parameters.fewest_survivors
            assert (result.total == self.session.expected(result.survivors)).all()


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@pytest.mark.slow
def test_the_adversary_for_longer():
    longer = settings(max_examples=800, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Adversary, settings=longer)


def test_the_adversary_reaches_the_end_of_sessions():
    """Six stages of honest delivery end in the sum; were it not so, the machine above would test beginnings alone."""
    for graph in GRAPHS:
        machine = Adversary()
        machine.begin(graph)
        for _ in range(6):
            machine.everybody_answers()
        assert machine.session.server.state is ServerState.FINISHED
        machine.a_sum_is_exact()
        machine.nobody_is_opened()
        machine.nobody_does_anything_twice()
        machine.no_input_is_opened_alone()
        assert len(machine.seed_shares) == machine.n


def masked_twice(diaries):
    """The moves that open client 0 of four, if it can be restored to mask for others: 1 is called dead."""
    machine = Adversary()
    machine.begin("smallest", diaries)
    for _ in range(2):
        machine.everybody_answers()
    for index in range(4):
        machine.down[index] = machine.down[index][:1]
    machine.keep_a_state(0)
    machine.lie_about_shares(0, {2})
    machine.restore_an_old_state(0)
    machine.everybody_answers()
    machine.lie_to_all_about_survivors({1})
    for index in (0, 2):
        machine.ask_to_unmask(index)
    return machine


def test_the_adversary_would_notice_an_input_that_is_opened():
    with pytest.raises(AssertionError, match=r"\[0\] are opened"):
        masked_twice(diaries=False).no_input_is_opened_alone()
    machine = masked_twice(diaries=True)
    machine.no_input_is_opened_alone()
    assert len(machine.told) == 4
