"""Streams: secret ones are fresh, seeded ones repeat, and no two purposes share one."""

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from securekd.randomness import Csprng, Randomness


def test_keystream_is_chacha20() -> None:
    # RFC 8439 appendix A.1, test vector 1: zero key, zero nonce, zero counter.
    assert Csprng(bytes(32)).read(16).hex() == "76b8e0ada0f13d90405d6ae55386bd28"
    assert Csprng(b"\x01" * 32).read(64) == Cipher(ChaCha20(b"\x01" * 32, bytes(16)), None).encryptor().update(
        bytes(64)
    )


def test_os_streams_differ_each_time() -> None:
    randomness = Randomness("os", 0)
    assert randomness.secret("a").read(32) != randomness.secret("a").read(32)


def test_seeded_streams_repeat_and_depend_on_seed_and_every_label() -> None:
    def keys(*labels):
        return Randomness("seeded", 5).secret(*labels).read(32)

    assert keys("a", 1) == keys("a", 1)
    different = [("a", 1), ("a", 2), ("a", "1"), ("a1",), ("b", 1), ("a",), ("a", 1, 1)]
    assert all(keys(*x) != keys(*y) for x, y in itertools.combinations(different, 2))
    assert Randomness("seeded", 6).secret("a", 1).read(32) != keys("a", 1)


def test_public_draws_repeat_in_both_modes_and_are_not_the_secret_ones() -> None:
    one, other = Randomness("os", 3), Randomness("seeded", 3)
    assert one.public("x").integers(1 << 40) == other.public("x").integers(1 << 40)
    assert one.public_seed("x") == other.public_seed("x") < 2**63
    assert other.secret("x").read(8) != other.public_seed("x").to_bytes(8, "little")


def test_uniform_stays_in_range_and_moments_are_right() -> None:
    values = Csprng(b"\x03" * 32).uniform(100_000)
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 5 / np.sqrt(12 * 100_000)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_normal_gives_as_many_as_asked(count: int) -> None:
    assert Csprng(bytes(32)).normal(count).shape == (count,)


def test_poisson_sample_at_rate_one_takes_all() -> None:
    assert Csprng(bytes(32)).poisson_sample(5, 1.0).tolist() == [0, 1, 2, 3, 4]
