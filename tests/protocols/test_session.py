"""Whole sessions among honest participants: the exact sum of the survivors, or a named error."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols import FixedPoint, KeystreamRandomness, MaskingServer, Policy, SessionResult, simulate
from securekd_protocols.errors import (
    BadParameter,
    CallOutOfOrder,
    NotIntegers,
    OutOfOrder,
    RingTooSmall,
    SecondInput,
    ThresholdUnsafe,
    TooFewClients,
    TooFewSurvivors,
    UnknownClient,
    UnknownStage,
    ValueOutOfRange,
    WrongLength,
)
from securekd_protocols.states import ClientState, ServerState
from securekd_protocols.thresholds import recommended_threshold
from tests.protocols.harness import Session, message_to

STAGES = ("advertise", "share", "masked_input", "consistency", "unmask")
BEFORE_INPUT = STAGES[:3]


def vectors_of(n, d=6, magnitude=50, seed=0):
    generator = np.random.default_rng(seed)
    return {i: generator.integers(-magnitude, magnitude + 1, d) for i in range(n)}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_sessions_with_random_dropouts(data):
    n = data.draw(st.integers(3, 7))
    colluders = data.draw(st.integers(0, 1))
    vectors = vectors_of(n, d=data.draw(st.integers(1, 5)), seed=data.draw(st.integers(0, 9)))
    dropouts = data.draw(st.dictionaries(st.integers(0, n - 1), st.sampled_from(STAGES), max_size=4))
    threshold = recommended_threshold(n, colluders)
    try:
        result = simulate(vectors, Policy(magnitude=50, colluders=colluders), dropouts=dropouts)
    except TooFewSurvivors:
        assert n - len(dropouts) < threshold
        return
    assert n - len(dropouts) >= threshold
    assert result.survivors == tuple(i for i in vectors if dropouts.get(i) not in BEFORE_INPUT)
    assert (result.total == sum(vectors[i] for i in result.survivors)).all()
    assert result.threshold == threshold


@pytest.mark.parametrize("stage", STAGES)
def test_two_dropouts_at_every_stage(stage):
    vectors = vectors_of(8)
    result = simulate(vectors, Policy(magnitude=50), dropouts={2: stage, 5: stage})
    gone = {2, 5} if stage in BEFORE_INPUT else set()
    assert set(result.survivors) == set(vectors) - gone
    assert (result.total == sum(vectors[i] for i in result.survivors)).all()


def test_one_dropout_at_each_stage_at_once():
    vectors = vectors_of(12)
    result = simulate(vectors, Policy(magnitude=50), dropouts=dict(enumerate(STAGES)))
    assert result.survivors == (3, 4, 5, 6, 7, 8, 9, 10, 11)
    assert (result.total == sum(vectors[i] for i in result.survivors)).all()


def test_extreme_values_do_not_wrap():
    magnitude = (2**31 - 1) // 3
    for sign in (1, -1):
        vectors = {i: np.full(3, sign * magnitude) for i in range(3)}
        assert (simulate(vectors, Policy(magnitude)).total == 3 * sign * magnitude).all()


@pytest.mark.parametrize(("bits", "width"), [(16, 2), (24, 3), (32, 4), (64, 8)])
@pytest.mark.parametrize("graph", ["complete", "regular"])
def test_every_ring_to_its_edge(bits, width, graph):
    n, d = 9, 7
    magnitude = (2 ** (bits - 1) - 1) // n - 3
    policy = Policy(magnitude, graph=graph, ring_bits=bits, noise_tail=3)
    for sign in (1, -1):
        vectors = {i: np.full(d, sign * (magnitude + 3)) for i in range(n)}
        result = simulate(vectors, policy, dropouts={4: "masked_input"})
        assert result.total.tolist() == [sign * (magnitude + 3) * (n - 1)] * d
        assert result.bytes_up["masked_input"][0] == 140 + 16 + width * d
    with pytest.raises(ValueOutOfRange):
        simulate(vectors | {0: np.full(d, magnitude + 4)}, policy)
    with pytest.raises(RingTooSmall):
        simulate(vectors, Policy(magnitude + 1, ring_bits=bits, noise_tail=n))


def test_floats_by_fixed_point():
    grid, generator = FixedPoint(1.0, 2**-16), np.random.default_rng(0)
    floats = {name: generator.uniform(-1, 1, 100) for name in ("ward", "clinic", "lab", "hospice")}
    integers = {name: grid.encode(values, KeystreamRandomness()) for name, values in floats.items()}
    result = simulate(integers, Policy(grid.magnitude), context=b"transfer set")
    assert np.abs(grid.decode(result.total) - sum(floats.values())).max() < 4 * grid.step


def test_names_and_bytes():
    vectors = {1: np.ones(5, int), "1": np.ones(5, int), "κλινική": np.ones(5, int), 7: np.ones(5, int)}
    seen = []
    result = simulate(vectors, Policy(1), dropouts={7: "unmask"}, on_server_receive=seen.append)
    assert isinstance(result, SessionResult)
    assert result.survivors == (1, "1", "κλινική", 7)
    assert tuple(result.bytes_up) == STAGES
    assert sum(sum(of.values()) for of in result.bytes_up.values()) == sum(map(len, seen))
    assert result.bytes_up["masked_input"] == dict.fromkeys(vectors, 140 + 16 + 4 * 5)
    assert set(result.bytes_up["unmask"]) == {1, "1", "κλινική"}
    assert set(result.bytes_down) == {"invitation", *STAGES}
    assert set(result.bytes_down["advertise"]) == set(vectors)


def test_a_session_uploads_hardly_more_than_four_bytes_a_value():
    vectors = {i: np.zeros(1_000_000, np.int64) for i in range(3)}
    result = simulate(vectors, Policy(1))
    assert sum(of[0] for of in result.bytes_up.values()) < 4.05e6


@pytest.mark.parametrize(
    ("vectors", "policy", "kwargs", "error"),
    [
        ({}, Policy(5), {}, TooFewClients),
        (vectors_of(2), Policy(50), {}, TooFewClients),
        (vectors_of(5), Policy(50, threshold=3), {}, ThresholdUnsafe),
        (vectors_of(5), Policy(50, colluders=4), {}, ThresholdUnsafe),
        (vectors_of(5), Policy(49), {}, ValueOutOfRange),
        (vectors_of(5), Policy(2**30), {}, RingTooSmall),
        (vectors_of(5), Policy(0), {}, BadParameter),
        (vectors_of(5, d=0), Policy(50), {}, BadParameter),
        (vectors_of(3) | {3: np.zeros(7, int)}, Policy(50), {}, WrongLength),
        (vectors_of(3) | {3: np.zeros((6, 1), int)}, Policy(50), {}, WrongLength),
        (vectors_of(3) | {3: np.zeros(6)}, Policy(50), {}, NotIntegers),
        (vectors_of(3), Policy(50), {"dropouts": {9: "share"}}, UnknownClient),
        (vectors_of(3), Policy(50), {"dropouts": {1: "lunch"}}, UnknownStage),
        (vectors_of(3), Policy(50), {"dropouts": {1: "share"}}, TooFewSurvivors),
        (vectors_of(3), Policy(50), {"round_number": -1}, BadParameter),
    ],
)
def test_bad_input(vectors, policy, kwargs, error):
    with pytest.raises(error) as caught:
        simulate(vectors, policy, **kwargs)
    assert caught.value.what
    assert caught.value.remedy


def test_a_refused_vector_is_named():
    with pytest.raises(WrongLength, match=r"client 'late': the vector's shape is \(7,\), not \(6,\)"):
        simulate(vectors_of(3) | {"late": np.zeros(7, int)}, Policy(50))


def test_fresh_keys_in_every_session():
    seen = [[], []]
    for log in seen:
        simulate(vectors_of(3), Policy(50), on_server_receive=log.append)
    for a, b in zip(*seen, strict=True):
        for offset in range(76, min(len(a), len(b)) - 64 - 16, 16):
            block = a[offset : offset + 16]
            assert block not in b or block.count(0) > 8


def test_one_input_in_one_session():
    session = Session(n=3)
    client = session.clients[0]
    with pytest.raises(CallOutOfOrder):
        client.submit(session.vectors[0])
    client.receive(message_to(0, session.inbox))
    with pytest.raises(ValueOutOfRange):
        client.submit(session.vectors[0] + 1000)
    client.submit(session.vectors[0])
    for vector in (session.vectors[0], session.vectors[1]):
        with pytest.raises(SecondInput):
            client.submit(vector)


def test_a_late_input_is_waited_for():
    session = Session(n=3)
    invitation = session.inbox
    session.inbox = []
    for message in invitation:
        data = session.clients[message.recipient].receive(message.data)[0]
        session.inbox += session.server.receive(data)
    session.stage()
    delivery = session.inbox
    with pytest.raises(CallOutOfOrder):
        session.clients[0].receive(message_to(0, delivery))
    assert session.clients[0].state is ClientState.SHARED
    for client, vector in zip(session.clients, session.vectors, strict=True):
        client.submit(vector)
    session.until(ServerState.FINISHED)
    assert (session.server.result.total == session.expected(range(3))).all()


def test_the_caller_s_vector_is_not_touched():
    vectors = {i: np.arange(4, dtype=np.uint32) for i in range(3)}
    simulate(vectors, Policy(3))
    assert all((vector == np.arange(4)).all() for vector in vectors.values())


def test_calls_out_of_order_on_the_server():
    session = Session(n=3)
    with pytest.raises(CallOutOfOrder):
        _ = session.server.result
    with pytest.raises(BadParameter):
        MaskingServer(session.parameters, session.identities[0])
    session.until(ServerState.FINISHED)
    with pytest.raises(CallOutOfOrder):
        session.server.close_phase()
    assert session.server.waiting_for == frozenset()


def test_who_came_too_late_stays_out():
    session = Session(n=5)
    session.stage()
    late = session.answers()
    for data in late[:4]:
        session.server.receive(data)
    assert session.server.waiting_for == {4}
    session.inbox = session.server.close_phase()
    with pytest.raises(OutOfOrder):
        session.server.receive(late[4])
    session.until(ServerState.FINISHED)
    assert session.server.result.survivors == (0, 1, 2, 3)
    assert (session.server.result.total == session.expected(range(4))).all()


def test_after_too_few_the_session_is_over():
    session = Session(n=3)
    with pytest.raises(TooFewSurvivors):
        session.server.close_phase()
    assert session.server.state is ServerState.ABORTED
    with pytest.raises(CallOutOfOrder):
        session.server.close_phase()


def test_importing_is_quick_and_brings_numpy_and_cryptography_only():
    code = (
        "import sys; before = set(sys.modules); import securekd_protocols;"
        "roots = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(root for root in roots if root not in sys.stdlib_module_names and root[0] != '_'))"
    )
    path = next(entry for entry in sys.path if entry.endswith("protocols"))
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"], capture_output=True, text=True
    )
    assert run.stdout.split() == ["cryptography", "numpy", "securekd_protocols"]


def test_a_million_values_take_tens_of_milliseconds_a_client():
    session = Session(n=8, d=1_000_000)
    spent = 0.0
    while session.server.state is not ServerState.FINISHED:
        begun = time.process_time()
        answers = session.answers()
        spent += time.process_time() - begun
        for data in answers:
            session.inbox += session.server.receive(data)
    assert (session.server.result.total == session.expected(range(8))).all()
    assert spent / 8 < 0.1  # about 0.015 s on the machine where this was written
