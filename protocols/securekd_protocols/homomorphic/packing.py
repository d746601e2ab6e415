"""From a vector of integers to the slots of ciphertexts, and from a sum's slots back.

BFV slots are the plaintext's coefficients, integers modulo the prime p. Each holds `digits` values: a value v within ±B
travels as the digit v + B, and digits stand in radix 2nB + 1, which no sum of n digits reaches. CKKS slots are complex
numbers, whose real and imaginary parts each hold one value as it is; parts are counted as two slots here, reals first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import SumOffGrid
from securekd_protocols.homomorphic.scheme import Scheme, SchemeName

Entries = NDArray[np.int64]


def pack(scheme: Scheme, vector: NDArray[np.int64]) -> Entries:
    """Lay a vector out in slots.

    Args:
        scheme: The session's parameters.
        vector: Integers of shape (d,), within ±scheme.bound.

    Returns:
        Shape (ciphertexts, scheme.entries); what the vector does not fill is as if it were zeros.
    """
    rows = scheme.ciphertexts(len(vector))
    whole = np.zeros(rows * scheme.entries * scheme.digits, np.int64)
    whole[: len(vector)] = vector
    if scheme.name is SchemeName.CKKS:
        return whole.reshape(rows, scheme.entries)
    digits = (whole + scheme.bound).reshape(scheme.digits, rows, scheme.entries)
    entries: Entries = digits[-1].copy()
    for digit in digits[-2::-1]:
        entries *= scheme.radix
        entries += digit
    return entries


def unpack(scheme: Scheme, entries: Entries, summands: int, vector_length: int) -> NDArray[np.int64]:
    """Read a sum's slots.

    Args:
        scheme: The session's parameters.
        entries: Shape (ciphertexts, scheme.entries).
        summands: How many vectors are in the sum.
        vector_length: d.

    Returns:
        The sum, shape (d,).

    Raises:
        SumOffGrid: A value that no sum of so many vectors within the bound has.
    """
    if scheme.name is SchemeName.CKKS:
        values = entries.reshape(-1)
    else:
        rest, digits = entries.copy(), []
        for _ in range(scheme.digits - 1):
            rest, digit = np.divmod(rest, scheme.radix)
            digits.append(digit)
        values = np.concatenate([part.reshape(-1) for part in (*digits, rest)]) - summands * scheme.bound
    if not possible_sum(values, summands, scheme.bound) or values[vector_length:].any():
        raise SumOffGrid(
            f"an entry that no sum of {summands} vectors within ±{scheme.bound} has, or padding that is not zero",
            "take part in a new session; a client has encrypted what it must not",
        )
    return values[:vector_length]


def possible_sum(values: NDArray[np.int64], summands: int, bound: int) -> bool:
    """Whether so many vectors within ±bound can have a sum with these entries."""
    return bool(values.max() <= summands * bound and values.min() >= -summands * bound)  # abs(−2^63) is negative
