import copy
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd_protocols.errors import (
    BadParameter,
    ContextMismatch,
    DuplicateKey,
    MalformedMessage,
    PolicyRefused,
    ProtocolError,
    RingTooSmall,
    ThresholdUnsafe,
    TooFewClients,
    UnknownClient,
)
from securekd_protocols.parameters import Member, SessionParameters
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.thresholds import recommended_threshold
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session

SESSION = Session(n=5)
GOOD = SESSION.parameters


@given(st.integers(3, 300), st.integers(0, 300))
def test_recommended_threshold_is_the_smallest_safe_one(clients, colluders):
    def safe(t):
        return 3 <= t <= clients and 2 * t > clients + colluders and t - colluders >= 2

    candidates = [t for t in range(clients + 1) if safe(t)]
    if candidates:
        assert recommended_threshold(clients, colluders) == candidates[0]
    else:
        with pytest.raises(ThresholdUnsafe):
            recommended_threshold(clients, colluders)


def test_thresholds_by_hand():
    assert [recommended_threshold(n) for n in (3, 4, 5, 8, 10, 32, 100)] == [3, 3, 4, 5, 6, 17, 51]


@pytest.mark.parametrize("clients", [-1, 0, 1, 2])
def test_too_few_clients(clients):
    with pytest.raises(TooFewClients):
        recommended_threshold(clients)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"threshold": 3}, ThresholdUnsafe),  # 2·3 ≤ 5 + 1: two halves could both reach it
        ({"threshold": 6}, ThresholdUnsafe),
        ({"colluders": -1}, ThresholdUnsafe),
        ({"colluders": 3}, ThresholdUnsafe),
        ({"threshold": 5, "colluders": 4}, ThresholdUnsafe),  # one honest client alone in the sum
        ({"roster": GOOD.roster[:2]}, TooFewClients),
        ({"roster": (*GOOD.roster[:4], GOOD.roster[0])}, BadParameter),
        ({"roster": (*GOOD.roster[:4], Member("twin", GOOD.roster[0].public))}, DuplicateKey),
        ({"server_public": GOOD.roster[0].public}, DuplicateKey),
        ({"roster": (*GOOD.roster[:4], Member("short key", b"k"))}, BadParameter),
        ({"roster": (*GOOD.roster[:4], Member("", b"k" * 32))}, BadParameter),
        ({"roster": (*GOOD.roster[:4], Member("x" * 129, b"k" * 32))}, BadParameter),
        ({"magnitude": 2**31 // 5 + 1}, RingTooSmall),
        ({"magnitude": 0}, BadParameter),
        ({"vector_length": 0}, BadParameter),
        ({"vector_length": 2**28 + 1}, BadParameter),
        ({"round_number": -1}, BadParameter),
        ({"round_number": 2**64}, BadParameter),
        ({"noise_tail": 2**31 // 5 - 99}, RingTooSmall),
        ({"noise_tail": -1}, BadParameter),
        ({"noise_variance": -1}, BadParameter),
        ({"ring_bits": 8}, BadParameter),
        ({"ring_bits": 16, "magnitude": 2**15 // 5 + 1}, RingTooSmall),
        ({"ring_bits": 24, "magnitude": 2**23 // 5 + 1}, RingTooSmall),
        ({"ring_bits": 64, "magnitude": 2**63 // 5 + 1}, RingTooSmall),
        ({"nonce": b""}, BadParameter),
        ({"context": b"not a hash"}, BadParameter),
    ],
)
def test_parameters_that_are_refused(change, error):
    with pytest.raises(error):
        replace(GOOD, **change)


def test_encoding_round_trip():
    regular = Session(n=8, graph=SMALL_RING, threshold=SMALL_RING_THRESHOLD, ring_bits=64, noise_tail=7).parameters
    for parameters in (GOOD, regular, replace(GOOD, noise_variance=2**40)):
        assert SessionParameters.decode(parameters.encoded) == parameters


@given(st.data())
def test_no_other_bytes_are_the_same_parameters(data):
    body = bytearray(GOOD.encoded)
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = SessionParameters.decode(bytes(body))
    except ProtocolError:
        return
    assert other.session_id != GOOD.session_id


@given(st.integers(0, len(GOOD.encoded) - 1))
def test_truncated_parameters(size):
    with pytest.raises(MalformedMessage):
        SessionParameters.decode(GOOD.encoded[:size])


@pytest.mark.parametrize(
    "change",
    [
        {"roster": GOOD.roster[::-1]},
        {"server_public": b"k" * 32},
        {"threshold": 5},
        {"colluders": 0},
        {"vector_length": 9},
        {"magnitude": 99},
        {"noise_tail": 1},
        {"noise_variance": 1},
        {"ring_bits": 24},
        {"round_number": 8},
        {"nonce": b"n" * 32},
        {"context": b"c" * 32},
    ],
)
def test_everything_enters_the_session_id(change):
    assert replace(GOOD, **change).session_id != GOOD.session_id


def test_index_of():
    assert [GOOD.index_of(member.public) for member in GOOD.roster] == [0, 1, 2, 3, 4]
    with pytest.raises(UnknownClient):
        GOOD.index_of(b"k" * 32)


KNOWN = {member.name: member.public for member in GOOD.roster}
POLICY = LocalPolicy(GOOD.server_public, KNOWN, b"digits", 7)


def test_a_policy_accepts_what_it_asks_for():
    POLICY.check(GOOD)


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        ({"server_public": b"k" * 32}, PolicyRefused),
        ({"known": {name: KNOWN[name] for name in list(KNOWN)[:4]}}, PolicyRefused),
        ({"known": KNOWN | {"client 2": b"k" * 32}}, PolicyRefused),
        ({"known": {}}, PolicyRefused),
        ({"round_number": 6}, PolicyRefused),
        ({"colluders": 2}, PolicyRefused),
        ({"fewest_clients": 6}, PolicyRefused),
        ({"lowest_threshold": 5}, PolicyRefused),
        ({"highest_magnitude": 99}, PolicyRefused),
        ({"lowest_noise_variance": 1}, PolicyRefused),
        ({"context": b"other digits"}, ContextMismatch),
    ],
)
def test_a_policy_refuses_less(policy, error):
    with pytest.raises(error):
        replace(POLICY, **policy).check(GOOD)


@pytest.mark.parametrize(
    ("one", "other"), [("client 0", "client 00"), ("client 1", "Client 1"), ("client 2", "x"), ("x", "client 2")]
)
def test_a_key_is_known_under_one_name(one, other):
    """Cohorts are told apart by names: under two, one client would make a difference of two."""
    key = KNOWN.get(one) or KNOWN[other]
    with pytest.raises(BadParameter, match=f"one key is known as '{one}' and '{other}'; give each key one name"):
        replace(
            POLICY, known={one: key} | {name: public for name, public in KNOWN.items() if name != one} | {other: key}
        )
    replace(POLICY, known=KNOWN | {"y": b"y" * 32})


@pytest.mark.parametrize("name", ["client 0", "client 1", "x"])
def test_nobody_becomes_known_after_a_policy_was_checked(name):
    known = dict(KNOWN)
    policy = replace(POLICY, known=known)
    known[name + "!"] = KNOWN.get(name, b"y" * 32)
    assert policy == POLICY
    for one in (policy, copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert one == POLICY
        with pytest.raises(TypeError):
            one.known["alias"] = b"y" * 32


def test_a_policy_accepts_exactly_its_floors():
    parameters = replace(GOOD, noise_variance=3)
    floors = {"fewest_clients": 5, "lowest_threshold": 4, "highest_magnitude": 100, "lowest_noise_variance": 3}
    replace(POLICY, **floors).check(parameters)


def test_the_floor_for_survivors_is_the_same_whatever_the_graph():
    """In a ring of eight that allows for one dropout, seven survive; the threshold of three counts neighbours."""
    session = Session(n=8, graph=SMALL_RING, threshold=SMALL_RING_THRESHOLD)
    known = {member.name: member.public for member in session.parameters.roster}
    policy = LocalPolicy(session.parameters.server_public, known, b"digits", 7)
    replace(policy, lowest_threshold=7).check(session.parameters)
    with pytest.raises(PolicyRefused):
        replace(policy, lowest_threshold=8).check(session.parameters)


@pytest.mark.parametrize(
    ("clients", "colluders", "lowest"), [(3, 1, 3), (4, 1, 3), (5, 1, 4), (50, 1, 26), (50, 4, 28), (100, 10, 56)]
)
def test_by_default_more_than_half_of_clients_and_colluders_must_survive(clients, colluders, lowest):
    """What a complete graph needs: of two sums over disjoint clients, with all colluders in both, one is refused."""
    session = Session(n=max(3, clients), colluders=1)
    known = {member.name: member.public for member in session.parameters.roster}
    policy = LocalPolicy(session.parameters.server_public, known, b"digits", 7)

    class Offered:
        """A session with another rule for its threshold, such as a homomorphic one."""

        def __init__(self, survivors):
            self.fewest_survivors, self.colluders, self.fewest_honest = survivors, colluders, survivors - colluders

        def __getattr__(self, name):
            return getattr(session.parameters, name)

    policy.check_offer(Offered(lowest))
    if lowest > 3:
        remedy = f"survivors: {lowest - 1} offered, at least {lowest} wanted; .* lower the floor knowingly"
        with pytest.raises(PolicyRefused, match=remedy):
            policy.check_offer(Offered(lowest - 1))
        replace(policy, lowest_threshold=lowest - 1).check_offer(Offered(lowest - 1))
    assert recommended_threshold(clients, colluders) == lowest
