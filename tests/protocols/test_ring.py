import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from securekd_protocols.errors import NotIntegers, RingTooSmall, ValueOutOfRange, WrongLength
from securekd_protocols.keys import Binding
from securekd_protocols.ring import WORD, Mask, apply_masks, decode, encode, pair_mask, prove_no_overflow, self_mask

BINDING = Binding(b"s" * 32, b"t" * 32)


def keystream(mask, length):
    """Slow twin: AES-ECB over an explicit 128-bit big-endian counter."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    ecb = Cipher(algorithms.AES(mask.key), modes.ECB()).encryptor()
    counter, stream = int.from_bytes(mask.counter, "big"), b""
    while len(stream) < 4 * length:
        stream += ecb.update((counter % 2**128).to_bytes(16, "big"))
        counter += 1
    return [int.from_bytes(stream[4 * i : 4 * i + 4], "little") for i in range(length)]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.booleans()), max_size=4),
    hnp.arrays(np.uint32, st.integers(1, 50)),
)
def test_fused_masks_are_the_slow_ones(streams, words):
    masks = [Mask(data[:16], data[16:], subtract) for data, subtract in streams]
    masked = words.astype(WORD)
    apply_masks(masked, masks)
    expected = [int(word) for word in words]
    for mask in masks:
        sign = -1 if mask.subtract else 1
        expected = [(e + sign * k) % 2**32 for e, k in zip(expected, keystream(mask, words.size), strict=True)]
    assert masked.tolist() == expected
    apply_masks(masked, [mask.negated() for mask in masks])
    assert (masked == words).all()


def test_chunks_join_without_a_seam():
    length = 2 * (1 << 16) + 3
    mask = Mask(bytes(16), b"\xff" * 16, False)  # the counter wraps at once
    masked = np.zeros(length, WORD)
    apply_masks(masked, [mask])
    assert masked.tolist() == keystream(mask, length)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 500), st.integers(0, 500))
def test_a_pair_s_masks_cancel(secret, a, b):
    if a == b:
        return
    words = np.zeros(9, WORD)
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
    assert len({mask.key for mask in masks}) == len({mask.counter for mask in masks}) == len(masks)


@given(hnp.arrays(np.int64, (4, 6), elements=st.integers(-(2**29) + 1, 2**29 - 1)))
def test_sums_of_encodings_decode_to_sums(vectors):
    total = np.zeros(6, WORD)
    for vector in vectors:
        total += encode(vector, 6, 2**29 - 1)
    assert (decode(total) == vectors.sum(axis=0)).all()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint64, ">i4"])
def test_any_integer_type(dtype):
    assert decode(encode(np.array([0, 1, 127], dtype), 3, 127)).tolist() == [0, 1, 127]


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
        encode(vector, 2, 10)


def test_overflow_is_proved_away_to_the_last_integer():
    prove_no_overflow(8, (2**31 - 1) // 8)
    with pytest.raises(RingTooSmall):
        prove_no_overflow(8, 2**28)
