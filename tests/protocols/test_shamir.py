from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols.errors import MalformedMessage, TamperedShare
from securekd_protocols.randomness import InsecureSeededRandomness
from securekd_protocols.shamir import PRIME, combine, decode_share, encode_share, split


def interpolate_at_zero(points):
    """Slow twin: Newton's divided differences."""
    xs, coefficients = [x for x, _ in points], [y for _, y in points]
    for level in range(1, len(points)):
        for i in range(len(points) - 1, level - 1, -1):
            difference = coefficients[i] - coefficients[i - 1]
            coefficients[i] = difference * pow(xs[i] - xs[i - level], -1, PRIME) % PRIME
    value = 0
    for x, coefficient in zip(reversed(xs), reversed(coefficients), strict=True):
        value = (value * -x + coefficient) % PRIME
    return value


def test_the_prime_is_the_smallest_above_every_secret():
    assert PRIME > 2**256 - 1
    for base in (2, 3, 5, 7, 11, 13):
        assert pow(base, PRIME - 1, PRIME) == 1
    for smaller in range(2**256, PRIME):
        assert smaller % 2 == 0 or pow(3, smaller - 1, smaller) != 1  # base 2 is fooled by 2^256 + 1


@settings(max_examples=40)
@given(st.binary(min_size=32, max_size=32), st.integers(3, 9), st.data())
def test_any_threshold_of_shares_recovers(secret, n, data):
    threshold = data.draw(st.integers(2, n))
    holders = data.draw(st.lists(st.integers(0, 9999), min_size=n, max_size=n, unique=True))
    shares = split(secret, threshold, holders, InsecureSeededRandomness(secret))
    chosen = data.draw(st.permutations(holders))[:threshold]
    assert combine({h: shares[h] for h in chosen}) == secret
    points = [(h + 1, shares[h]) for h in chosen]
    assert interpolate_at_zero(points) == int.from_bytes(secret, "little")


def test_fewer_shares_than_the_threshold_fit_every_secret():
    secret = bytes(range(32))
    shares = split(secret, 3, range(5), InsecureSeededRandomness(b"x"))
    for pair in combinations(range(5), 2):
        for guess in (0, 1, 2**255):  # a share that a third holder could have had, if the secret were the guess
            points = [(0, guess), *((h + 1, shares[h]) for h in pair)]
            third = next(h for h in range(5) if h not in pair)
            value = 0
            for i, (x, y) in enumerate(points):
                term = y
                for j, (z, _) in enumerate(points):
                    if i != j:
                        term = term * (third + 1 - z) * pow(x - z, -1, PRIME) % PRIME
                value = (value + term) % PRIME
            recovered = {pair[0]: shares[pair[0]], pair[1]: shares[pair[1]], third: value}
            assert int.from_bytes(combine(recovered), "little") == guess


@given(st.integers(0, PRIME - 1))
def test_share_encoding(share):
    assert decode_share(encode_share(share)) == share


@pytest.mark.parametrize("data", [PRIME.to_bytes(33, "little"), b"\xff" * 33, bytes(32), bytes(34)])
def test_shares_that_are_no_field_elements(data):
    with pytest.raises(MalformedMessage):
        decode_share(data)


def test_what_is_no_secret_is_refused():
    with pytest.raises(TamperedShare):
        combine({0: PRIME - 1, 1: PRIME - 1, 2: PRIME - 1})
