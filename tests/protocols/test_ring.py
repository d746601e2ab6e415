import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols.errors import BadParameter, NotIntegers, RingTooSmall, ValueOutOfRange, WrongLength
from securekd_protocols.keys import Binding
from securekd_protocols.ring import (
    Mask,
    Ring,
    apply_masks,
    encode,
    pair_mask,
    prove_no_overflow,
    self_mask,
    smallest_ring,
)

BINDING = Binding(b"s" * 32, b"t" * 32)
BITS = (16, 24, 32, 64)
rings = st.sampled_from(BITS).map(Ring)


def keystream(mask, length, width=4):
    """Slow twin: AES-ECB over nonce and counter, from 2 on, cut into words of `width` bytes."""
    ecb = Cipher(algorithms.AES(mask.key), modes.ECB()).encryptor()
    blocks = -(-width * length // 16)
    stream = ecb.update(b"".join(mask.nonce + (i + 2).to_bytes(4, "big") for i in range(blocks)))
    return [int.from_bytes(stream[width * i : width * (i + 1)], "little") for i in range(length)]


@settings(max_examples=40)
@given(
    rings,
    st.lists(st.tuples(st.binary(min_size=28, max_size=28), st.booleans()), max_size=4),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50),
)
def test_fused_masks_are_the_slow_ones(ring, streams, values):
    masks = [Mask(data[:16], data[16:], subtract) for data, subtract in streams]
    start = [value % 2**ring.bits for value in values]
    masked = np.array(start, ring.word)
    apply_masks(masked, masks)
    expected = start
    for mask in masks:
        sign = -1 if mask.subtract else 1
        words = keystream(mask, len(start), ring.word.itemsize)
        expected = [(e + sign * k) % 2**ring.bits for e, k in zip(expected, words, strict=True)]
    assert (ring.unpack(ring.pack(masked)) == np.array(expected, ring.word)).all()
    apply_masks(masked, [mask.negated() for mask in masks])
    assert (ring.unpack(ring.pack(masked)) == np.array(start, ring.word)).all()


@pytest.mark.parametrize("bits", BITS)
def test_chunks_join_without_a_seam(bits):
    ring = Ring(bits)
    length = 2 * (1 << 18) // ring.word.itemsize + 3
    mask = Mask(bytes(16), b"\xff" * 12, False)
    masked = np.zeros(length, ring.word)
    apply_masks(masked, [mask])
    assert masked.tolist() == keystream(mask, length, ring.word.itemsize)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 500), st.integers(0, 500))
def test_a_pair_s_masks_cancel(secret, a, b):
    if a == b:
        return
    words = np.zeros(9, np.uint32)
    apply_masks(words, [pair_mask(secret, BINDING, a, b)])
    assert words.any()
    apply_masks(words, [pair_mask(secret, BINDING, b, a)])
    assert not words.any()


def test_masks_differ_by_use_session_transcript_and_client():
    other_session, other_transcript = Binding(b"S" * 32, b"t" * 32), Binding(b"s" * 32, b"T" * 32)
    secret = bytes(32)
    masks = [
        pair_mask(secret, BINDING, 0, 1),
        pair_mask(secret, BINDING, 0, 2),
        pair_mask(secret, other_session, 0, 1),
        pair_mask(secret, other_transcript, 0, 1),
        self_mask(secret, BINDING, 0),
        self_mask(secret, BINDING, 1),
        self_mask(secret, other_session, 0),
        self_mask(secret, other_transcript, 0),
    ]
    assert len({mask.key for mask in masks}) == len({mask.nonce for mask in masks}) == len(masks)


@given(rings, st.lists(st.lists(st.integers(-(2**70), 2**70), min_size=6, max_size=6), min_size=1, max_size=4))
def test_sums_of_encodings_decode_to_sums(ring, rows):
    bound = (ring.half - 1) // len(rows)
    vectors = np.array([[max(-bound, min(bound, value)) for value in row] for row in rows], np.int64)
    total = np.zeros(6, ring.word)
    for vector in vectors:
        total += ring.unpack(ring.pack(encode(ring, vector, 6, bound)))
    assert (ring.signed(total) == vectors.sum(axis=0)).all()


@given(rings, st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9))
def test_elements_travel_as_little_endian_bytes(ring, values):
    reduced = [value % 2**ring.bits for value in values]
    packed = bytes(ring.pack(np.array(reduced, ring.word)))
    assert packed == b"".join(value.to_bytes(ring.bits // 8, "little") for value in reduced)
    assert ring.unpack(packed).tolist() == reduced


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint64, ">i4"])
@pytest.mark.parametrize("bits", BITS)
def test_any_integer_type(dtype, bits):
    assert Ring(bits).signed(encode(Ring(bits), np.array([0, 1, 127], dtype), 3, 127)).tolist() == [0, 1, 127]


@pytest.mark.parametrize(
    ("vector", "error"),
    [
        (np.array([1.0, 2.0]), NotIntegers),
        (np.array([True, False]), NotIntegers),
        (np.array([object(), object()]), NotIntegers),
        (np.array([[1, 2]]), WrongLength),
        (np.array([1, 2, 3]), WrongLength),
        (np.array(1), WrongLength),
        (np.array([1, 11]), ValueOutOfRange),
        (np.array([-11, 1]), ValueOutOfRange),
        (np.array([2**63, 0], np.uint64), ValueOutOfRange),
        (np.array([-(2**63), 0]), ValueOutOfRange),
    ],
)
def test_inputs_that_are_refused(vector, error):
    with pytest.raises(error):
        encode(Ring(32), vector, 2, 10)


@pytest.mark.parametrize("bits", BITS)
def test_overflow_is_proved_away_to_the_last_integer(bits):
    ring = Ring(bits)
    most = (ring.half - 1) // 8
    prove_no_overflow(ring, 8, most)
    prove_no_overflow(ring, 8, most - 5, 5)
    for magnitude, tail in ((most + 1, 0), (most, 1), (most - 5, 6)):
        with pytest.raises(RingTooSmall):
            prove_no_overflow(ring, 8, magnitude, tail)


def test_the_smallest_ring():
    assert [smallest_ring(10, m).bits for m in (3276, 3277, 838_860, 838_861, 2**27, 2**28)] == [16, 24, 24, 32, 32, 64]
    assert smallest_ring(10, 3276, 1).bits == 24
    with pytest.raises(RingTooSmall):
        smallest_ring(10, 2**60)


@pytest.mark.parametrize("bits", [0, 8, 31, 128])
def test_rings_that_there_are_not(bits):
    with pytest.raises(BadParameter):
        Ring(bits)
