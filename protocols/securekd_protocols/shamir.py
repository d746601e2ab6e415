"""Shamir's secret sharing of 256-bit secrets (Shamir 1979), in Python integers modulo the prime 2^256 + 297.

The secret is the constant term of a polynomial of degree threshold − 1 with uniform coefficients; the share of the
client with index i is the polynomial's value at i + 1. Fewer than threshold shares say nothing about the secret.
Nothing here detects a wrong share: whoever recovers a secret compares it with what its owner committed to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from securekd_protocols.errors import MalformedMessage, TamperedShare
from securekd_protocols.randomness import RandomBytes

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
_FACTORS = 4
_COEFFICIENT_BYTES = 48  # reduced modulo PRIME: the distance from uniform is below 2^-127


def split(secret: bytes, threshold: int, holders: Sequence[int], random_bytes: RandomBytes) -> dict[int, int]:
    """Share a secret among the clients with the given indices.

    Args:
        secret: 32 bytes, read as a little-endian integer.
        threshold: How many shares recover it.
        holders: Distinct client indices, from 0 on.
        random_bytes: Source of the coefficients, asked for 48 bytes for each.

    Returns:
        The share of each holder, an integer in [0, PRIME).
    """
    coefficients = [int.from_bytes(random_bytes(_COEFFICIENT_BYTES), "little") % PRIME for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "little"))
    shares = {}
    for holder in holders:
        point, value = holder + 1, 0
        for coefficient in coefficients:
            value = (value * point + coefficient) % PRIME
        shares[holder] = value
    return shares


def combine(shares: Mapping[int, int]) -> bytes:
    """Recover a secret from exactly as many shares as the threshold asks for.

    Args:
        shares: Share by holder index.

    Returns:
        The 32 bytes of the secret; of something else if a share is wrong.

    Raises:
        TamperedShare: What the shares recover is not a 256-bit secret.
    """
    holders = tuple(sorted(shares))
    coefficients = _lagrange_at_zero(holders)
    value = sum(c * shares[h] for c, h in zip(coefficients, holders, strict=True)) % PRIME
    if value >> (8 * SECRET_BYTES):
        raise TamperedShare(f"shares of clients {holders} recover no 256-bit secret", "end the session and start anew")
    return value.to_bytes(SECRET_BYTES, "little")


def encode_share(share: int) -> bytes:
    """Encode a share as 33 little-endian bytes."""
    return share.to_bytes(SHARE_BYTES, "little")


def decode_share(data: bytes | memoryview) -> int:
    """Decode a share.

    Raises:
        MalformedMessage: The integer is not below the prime, or the size is wrong.
    """
    value = int.from_bytes(data, "little")
    if len(data) != SHARE_BYTES or value >= PRIME:
        raise MalformedMessage(f"a share of {len(data)} bytes that is no field element", "end the session")
    return value


@lru_cache(maxsize=1024)
def _lagrange_at_zero(holders: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange coefficients for the value at zero; one set serves every secret that the same holders recover.

    The coefficient of x is Π(y) / (x · Π_{y≠x}(y − x)) over the other points y, with one Π(y) for all and one modular
    inversion for all (Montgomery's trick).
    """
    points = np.array(holders, np.int64) + 1
    everything = math.prod(points.tolist()) % PRIME
    factors = np.ones((len(points), -(-len(points) // _FACTORS) * _FACTORS), np.int64)
    factors[:, : len(points)] = points - points[:, None]
    np.fill_diagonal(factors, points)
    products = factors.reshape(len(points), -1, _FACTORS).prod(axis=2)  # below 2^63, since indices are below 2^15
    denominators = [math.prod(row) % PRIME for row in products.tolist()]
    before = [1]
    for denominator in denominators:
        before.append(before[-1] * denominator % PRIME)
    inverse, coefficients = pow(before.pop(), -1, PRIME), []
    for denominator, product in zip(reversed(denominators), reversed(before), strict=True):
        coefficients.append(everything * inverse * product % PRIME)
        inverse = inverse * denominator % PRIME
    return tuple(reversed(coefficients))
