"""Threads that come at once do not make a session do twice what it does once."""

import copy
import dataclasses
import pickle
import sys
import threading
from functools import partial

import pytest

from securekd_protocols import Diary, MaskingClient, MaskingServer
from securekd_protocols.errors import CopyRefused, ProtocolError, SecondOpening
from securekd_protocols.homomorphic import Decryptor, HomomorphicClient, HomomorphicServer, SchemeName
from securekd_protocols.homomorphic.messages import Input, Kind, Open, parse_frame
from securekd_protocols.homomorphic.residues import add_residues, decode_residues, encode_residues
from securekd_protocols.homomorphic.threshold import ThresholdParty
from securekd_protocols.states import ServerState
from securekd_protocols.turns import TakesTurns, in_turn
from tests.protocols.harness import Session
from tests.protocols.homomorphic.harness import parties


class Counter(TakesTurns):
    """Two methods that read, let others come, and write."""

    def __init__(self):
        super().__init__()
        self.value, self.calls = 0, threading.Event()

    @in_turn
    def add(self):
        before = self.value
        self.calls.wait(0.01)
        self.value = before + 1

    @in_turn
    def add_twice(self):
        self.add()  # its own thread does not wait for itself
        self.add()


def at_once(*actions):
    """Carry actions out in threads that start together; gives what each returned or raised."""
    together, results = threading.Barrier(len(actions)), [None] * len(actions)

    def act(index):
        together.wait()
        try:
            results[index] = actions[index]()
        except ProtocolError as error:
            results[index] = error

    threads = [threading.Thread(target=act, args=(i,)) for i in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_calls_wait_for_each_other():
    counter = Counter()
    at_once(*[counter.add] * 8, counter.add_twice)
    assert counter.value == 10


@pytest.mark.parametrize(
    ("part", "methods"),
    [
        (MaskingClient, ("receive", "submit", "save")),
        (MaskingServer, ("receive", "close_phase")),
        (HomomorphicClient, ("receive", "submit")),
        (HomomorphicServer, ("receive", "close_phase")),
        (Decryptor, ("receive",)),
        (ThresholdParty, ("extend_key", "encrypt", "partially_open")),
        (Diary, ("begin", "sign", "save")),
    ],
)
def test_whatever_changes_a_session_waits(part, methods):
    assert issubclass(part, TakesTurns)
    for method in methods:
        assert hasattr(getattr(part, method), "__wrapped__"), method


def test_a_timer_that_comes_late_closes_no_later_stage():
    session = Session(n=3)
    open_stage = session.server.state
    session.stage()
    assert session.server.state is not open_stage
    assert session.server.close_phase(open_stage) == []
    session.until(ServerState.FINISHED)
    assert (session.server.result.total == session.expected(range(3))).all()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_what_there_is_one_of_is_not_copied(how):
    """Each copy of a client would mask an input of its own with the same keys, each of a decryptor open a sum, and each
    of a diary, alone or in a policy, would know of half of what was told."""
    diary = Diary()
    session = Session(n=3, policies={0: {"diary": diary}})
    made = parties(SchemeName.BFV, 3)
    party = ThresholdParty.__new__(ThresholdParty)  # OpenFHE is not there everywhere
    participants = [*session.clients, session.server, made.clients[0], made.server, made.decryptor, party, diary]
    for participant in participants:
        for whole in (participant, [participant], {"kept": participant}):
            if how is not copy.copy or whole is participant:
                with pytest.raises(CopyRefused, match=type(participant).__name__):
                    how(whole)
    if how is not copy.copy:
        with pytest.raises(CopyRefused, match="Diary"):
            how(session.clients[0]._policy)
    with pytest.raises(TypeError):  # nor made again around the same notes, behind another lock
        dataclasses.replace(diary)
    how(session.clients[1]._policy)
    assert {type(one) for one in participants} == set(TakesTurns.__subclasses__()) - {Counter}
    session.until(ServerState.FINISHED)  # and the refusal leaves them as they were


def test_two_requests_at_once_open_one_sum():
    """Each would be answered alone. Without turns both were, within some twenty tries; they differ by one vector."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(5):
            made = parties(SchemeName.BFV, 4, vector_length=20_000)
            requests = [partial(made.decryptor.receive, frame) for frame in requests_of(made)]
            found = at_once(*requests)
            assert {type(one) for one in found} == {SecondOpening, list}, found
    finally:
        sys.setswitchinterval(usual)


def requests_of(made):
    """What a server can ask for: everybody's sum, and that of the first three."""
    asked = Open.decode(parse_frame(made.request(), made.parameters).body, made.parameters)
    moduli, total = made.parameters.scheme.moduli, None
    for frame in made.inputs[:3]:
        sent = Input.decode(parse_frame(frame, made.parameters).body)
        one = decode_residues(sent.ciphertexts, made.parameters.ciphertexts, moduli)
        if total is None:
            total = one
        else:
            add_residues(total, one, moduli)
    fewer = Open(asked.receipts[:3], encode_residues(total, moduli))
    return [made.signed_by_server(Kind.OPEN, request.encode()) for request in (asked, fewer)]
