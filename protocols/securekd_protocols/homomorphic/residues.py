"""Ciphertexts as arrays of residues: their one encoding, and their sum.

A vector's ciphertexts are an array of shape (ciphertexts, 2, primes, N): for each ciphertext two polynomials, for each
of them and each prime of q the residues of its N coefficients (or of their transform; addition is the same). On the
wire each residue is a little-endian integer of its prime's byte width. Whoever receives them checks that every residue
is reduced, so that each ciphertext has one encoding, and adds them up without any library for encryption: hostile bytes
are numbers in range before SEAL sees them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import BadCiphertext, TransparentCiphertext
from securekd_protocols.homomorphic.scheme import DEGREE, byte_width
from securekd_protocols.wire import Bytes

Residues = NDArray[np.uint64]

_RESEND = "drop the message and have it sent again"


def encoded_bytes(ciphertexts: int, moduli: Sequence[int]) -> int:
    """How many bytes so many ciphertexts take."""
    return ciphertexts * 2 * DEGREE * sum(map(byte_width, moduli))


def encode_residues(residues: Residues, moduli: Sequence[int]) -> bytes:
    """Write ciphertexts, shape (count, 2, primes, N), as bytes."""
    planes = []
    for index, prime in enumerate(moduli):
        width = byte_width(prime)
        plane = np.ascontiguousarray(residues[:, :, index], "<u8").view(np.uint8)
        planes.append(plane.reshape(*residues.shape[:2], DEGREE, 8)[..., :width].reshape(*residues.shape[:2], -1))
    return np.concatenate(planes, axis=2).tobytes()


def decode_residues(data: Bytes, ciphertexts: int, moduli: Sequence[int]) -> Residues:
    """Read what `encode_residues` wrote.

    Args:
        data: From anybody.
        ciphertexts: How many there have to be.
        moduli: The primes.

    Returns:
        A new array of shape (ciphertexts, 2, primes, N).

    Raises:
        BadCiphertext: Another number of bytes, or a residue that is not below its prime.
        TransparentCiphertext: A second polynomial is zero, so that the first is the plaintext in the clear.
    """
    size = encoded_bytes(ciphertexts, moduli)
    if len(data) != size:
        raise BadCiphertext(f"{len(data)} bytes of ciphertext where {ciphertexts} have {size}", _RESEND)
    widths = [byte_width(prime) for prime in moduli]
    rows = np.frombuffer(data, np.uint8).reshape(ciphertexts, 2, DEGREE * sum(widths))
    residues = np.zeros((ciphertexts, 2, len(widths), DEGREE), "<u8")
    start = 0
    for index, (prime, width) in enumerate(zip(moduli, widths, strict=True)):
        plane = rows[:, :, start : start + DEGREE * width].reshape(ciphertexts, 2, DEGREE, width)
        residues[:, :, index].view(np.uint8).reshape(ciphertexts, 2, DEGREE, 8)[..., :width] = plane
        start += DEGREE * width
        largest = int(residues[:, :, index].max())
        if largest >= prime:
            raise BadCiphertext(f"residue {largest} modulo {prime} is not reduced", _RESEND)
    if not residues[:, 1].any(axis=(1, 2)).all():
        raise TransparentCiphertext("a ciphertext whose second polynomial is zero hides nothing", _RESEND)
    return residues


def add_residues(total: Residues, other: Residues, moduli: Sequence[int]) -> None:
    """Add ciphertexts to ciphertexts, in place; both are reduced, and so is the sum."""
    total += other
    primes = np.array(moduli, np.uint64)[:, None]
    np.minimum(total, total - primes, out=total)  # below the prime, the difference wraps around to a huge number
