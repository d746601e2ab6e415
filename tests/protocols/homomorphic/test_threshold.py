"""BFV without a decryptor: runs wherever OpenFHE loads, and elsewhere says what would help."""

import os

import numpy as np
import pytest

from securekd_protocols import Identity, Member, errors
from securekd_protocols.homomorphic import threshold
from securekd_protocols.homomorphic.scheme import is_prime
from securekd_protocols.homomorphic.threshold import (
    ThresholdParty,
    ThresholdSetup,
    open_sum,
    require_openfhe,
    simulate_threshold,
)


def loads() -> bool:
    try:
        require_openfhe()
    except errors.SchemeUnavailable:
        return False
    return True


LOADS = loads()
needs_openfhe = pytest.mark.skipif(not LOADS, reason="OpenFHE has no wheel for this Python on this system")
IDENTITIES = [Identity.generate(os.urandom) for _ in range(3)]
MOST = (2**47 - 1) // 6
"""The largest bound for three parties."""
ROSTER = tuple(Member(f"p{i}", identity.public) for i, identity in enumerate(IDENTITIES))


def parties(bound=1000, length=10):
    setup = ThresholdSetup(ROSTER, length, bound, os.urandom(32))
    made = [ThresholdParty(identity, setup) for identity in IDENTITIES]
    key = None
    for party in made:
        key = party.extend_key(key)
    return setup, made, key


@pytest.mark.skipif(LOADS, reason="OpenFHE loads here")
def test_where_it_does_not_load_the_error_says_which_versions_do():
    with pytest.raises(errors.SchemeUnavailable, match=r"Python 3\.12 there with pip install 'securekd\[threshold\]'"):
        simulate_threshold({"a": np.zeros(1, int), "b": np.zeros(1, int), "c": np.zeros(1, int)}, 1)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"roster": ROSTER[:2]}, errors.TooFewClients),
        ({"roster": (*ROSTER, ROSTER[0])}, errors.BadParameter),
        ({"bound": 0}, errors.BadParameter),
        ({"bound": 2**60}, errors.NoParametersFit),
        ({"bound": 2**45}, errors.NoParametersFit),
        ({"session": b""}, errors.BadParameter),
    ],
)
def test_setups_that_are_refused(changes, error):
    with pytest.raises(error):
        ThresholdSetup(**{"roster": ROSTER, "vector_length": 5, "bound": 9, "session": bytes(32)} | changes)


@pytest.mark.parametrize("bound", [1, 2**15, 2**40, MOST])
def test_no_sum_can_wrap_around(bound):
    modulus = ThresholdSetup(ROSTER, 5, bound, bytes(32)).plain_modulus
    assert is_prime(modulus)
    assert modulus > 2 * 3 * bound
    assert modulus.bit_length() <= 48
    assert modulus > (6 * bound) << 20 or modulus.bit_length() == 48
    assert modulus % 2**17 == 1


def test_many_parties_leave_room_for_flooding():
    crowd = tuple(Member(f"p{i}", Identity.generate(os.urandom).public) for i in range(2000))
    setup = ThresholdSetup(crowd, 5, 2**30, bytes(32))
    assert 2 * 2000 * 2**30 < setup.plain_modulus < 2**58 // 2000
    with pytest.raises(errors.NoParametersFit):
        ThresholdSetup(crowd, 5, 2**36, bytes(32))


class Opened:
    """An OpenFHE whose parts fuse to whatever numbers are given."""

    BINARY = None

    def __init__(self, values):
        self.values = values

    def DeserializeCiphertextString(self, *_):
        return self

    def MultipartyDecryptFusion(self, _):
        return self

    def GetRingDimension(self):
        return 2**14

    def SetLength(self, _):
        pass

    def GetPackedValue(self):
        return self.values


@pytest.mark.parametrize(
    ("entry", "possible"), [(27, True), (-27, True), (28, False), (2**62, False), (-(2**63), False)]
)
def test_a_sum_that_these_parties_can_not_have_is_refused(monkeypatch, entry, possible):
    setup, partials = ThresholdSetup(ROSTER, 2, 9, bytes(32)), []
    for index, identity in enumerate(IDENTITIES):
        party = ThresholdParty.__new__(ThresholdParty)
        party._index, party._identity, party._setup = index, identity, setup
        partials.append(party._signed(threshold.PartKind.PARTIAL, (1).to_bytes(4, "little") + b"x"))
    fake = Opened([0, entry])
    monkeypatch.setattr(threshold, "_context", lambda _: (fake, fake))
    monkeypatch.setattr(threshold, "_survives", lambda *_: None)
    if possible:
        assert open_sum(setup, partials).tolist() == [0, entry]
    else:
        with pytest.raises(errors.SumOffGrid, match="no sum of 3 vectors within ±9 has"):
            open_sum(setup, partials)


@needs_openfhe
@pytest.mark.parametrize(("clients", "length", "bound"), [(3, 1, 1), (5, 9000, 2**20), (3, 50, MOST)])
def test_all_together_open_the_exact_sum(clients, length, bound):
    rng = np.random.default_rng(length)
    vectors = {f"p{i}": rng.integers(-bound, bound + 1, length) for i in range(clients)}
    vectors["p0"][0] = vectors["p1"][0] = bound
    np.testing.assert_array_equal(simulate_threshold(vectors, bound), sum(vectors.values()))


@needs_openfhe
def test_everything_happens_once_and_with_everybody():
    setup, made, key = parties()
    inputs = [party.encrypt(key, np.full(10, i)) for i, party in enumerate(made)]
    with pytest.raises(errors.SecondInput):
        made[0].encrypt(key, np.zeros(10, int))
    with pytest.raises(errors.CallOutOfOrder):
        made[0].extend_key(None)
    with pytest.raises(errors.TooFewSurvivors):
        made[0].partially_open(inputs[:2])
    partials = [party.partially_open(inputs) for party in made]
    with pytest.raises(errors.SecondOpening):
        made[0].partially_open(inputs)
    with pytest.raises(errors.TooFewSurvivors):
        open_sum(setup, partials[:2])
    np.testing.assert_array_equal(open_sum(setup, partials), np.full(10, 3))


@needs_openfhe
def test_two_of_three_parts_do_not_open_the_sum():
    _, made, key = parties()
    fhe = require_openfhe()
    inputs = [party.encrypt(key, np.full(10, 100)) for party in made]
    partials = [party.partially_open(inputs) for party in made]
    context = made[0]._context
    chunks = [made[0]._chunks(partial[39:-64]) for partial in partials[:2]]
    plain = context.MultipartyDecryptFusion([fhe.DeserializeCiphertextString(one[0], fhe.BINARY) for one in chunks])
    plain.SetLength(10)
    assert plain.GetPackedValue()[:10] != [300] * 10


@needs_openfhe
def test_hostile_parts_are_named_and_kill_nobody():
    setup, made, key = parties()
    inputs = [party.encrypt(key, np.zeros(10, int)) for party in made]
    other = parties()[2]
    for data, error in (
        (b"", errors.MalformedMessage),
        (inputs[1][:-1], errors.MalformedMessage),
        (inputs[1] + b"\0", errors.MalformedMessage),
        (inputs[0], errors.OutOfOrder),
        (key, errors.OutOfOrder),
        (inputs[1][:-1] + bytes([inputs[1][-1] ^ 1]), errors.BadSignature),
        (inputs[1][:100] + bytes([inputs[1][100] ^ 1]) + inputs[1][101:], errors.BadSignature),
        (other, errors.ReplayedMessage),
    ):
        with pytest.raises(error):
            made[0].partially_open([inputs[0], data, inputs[2]])
    rubbish = made[1]._signed(2, (4).to_bytes(4, "little") + b"\xff" * 4)
    with pytest.raises(errors.BadCiphertext, match="does not read"):
        made[0].partially_open([inputs[0], rubbish, inputs[2]])
    np.testing.assert_array_equal(open_sum(setup, [party.partially_open(inputs) for party in made]), np.zeros(10))
