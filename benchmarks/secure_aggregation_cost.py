"""The limit: what an authenticated protocol can not do without, measured piece by piece on this machine."""

from __future__ import annotations

import gc
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PRIME = 2**256 + 297
CHUNK = 1 << 18
STEP = 2.0**-12


class CaseLike(Protocol):
    clients: int
    degree: int
    threshold: int
    length: int
    dropouts: int


@dataclass(frozen=True)
class Cost:
    """CPU seconds of the slowest part of a session, and bytes.

    Attributes:
        client_s: Of one client that lasts to the end: the median of all, or the average where that is all there is.
        server_s: Of the server.
        up: Bytes that one client sends; 0 where nothing is sent.
        down: Bytes that one client receives.
        peak_vectors: Most memory that one client allocates, in vectors of 4 bytes a value; 0 where not measured.
    """

    client_s: float
    server_s: float
    up: int = 0
    down: int = 0
    peak_vectors: float = 0.0


def typical(action: Callable[[], object], repeats: int = 5) -> float:
    """CPU seconds of the median run."""
    spent = []
    for _ in range(repeats):
        gc.collect()
        begun = time.process_time()
        action()
        spent.append(time.process_time() - begun)
    return median(spent)


def limit(case: CaseLike) -> Cost:
    """What no authenticated protocol can do without; anew, since a machine is not equally fast all the time."""
    for piece in (mask_s, addition_s, tag_s, agreement_s, verification_s, signing_s, rounding_s, hash_s, sharing_s):
        piece.cache_clear()
    return Cost(client_limit(case), server_limit(case))


def client_limit(case: CaseLike) -> float:
    """CPU seconds that no client of an authenticated protocol can do without."""
    verified = 2 * case.degree + 4
    return (
        (case.degree + 1) * mask_s(case.length)
        + case.degree * agreement_s()
        + verified * verification_s()
        + rounding_s(case.length)
        + hash_s(case.length)
        + 2 * sharing_s(case.threshold, case.degree + 1)
    )


def server_limit(case: CaseLike) -> float:
    """CPU seconds that no server of an authenticated protocol can do without.

    Each vector is added and authenticated; each message that is passed on is verified, each that goes signed; the masks
    that are left over are taken away, with an agreement for each pair of a dropout and a neighbour. (What a client
    tells the server alone needs a tag only, under the secret that the vector's tag needs too.)
    """
    left, regular = case.clients - case.dropouts, case.degree < case.clients - 1
    pairs = case.dropouts * min(case.degree, left)
    verified = (2 if regular else 1) * case.clients + left
    signed = 2 * case.clients + left + 3 if regular else case.clients + 4
    return (
        left * (addition_s(case.length) + tag_s(case.length))
        + (left + pairs) * (mask_s(case.length) + agreement_s())
        + verified * verification_s()
        + signed * signing_s()
    )


@lru_cache
def mask_s(length: int) -> float:
    """One keystream of AES-128, by GCM, whose counter mode is OpenSSL's fastest here, added to a vector.

    The part of the vector that is added to is always the same, as if it stayed in the cache for all masks.
    """
    part, zeros, buffer = np.zeros(min(length, CHUNK // 4), np.uint32), bytes(CHUNK), bytearray(CHUNK + 16)
    words, plain = np.frombuffer(buffer, np.uint32, CHUNK // 4), memoryview(zeros)

    def action() -> None:
        stream = Cipher(algorithms.AES(bytes(16)), modes.GCM(bytes(12))).encryptor()
        for start in range(0, length, words.size):
            size = min(words.size, length - start)
            stream.update_into(plain[: 4 * size], buffer)
            np.add(part[:size], words[:size], out=part[:size])

    return _many(action, length)


@lru_cache
def addition_s(length: int) -> float:
    """One vector added to another."""
    total, vector = np.zeros(length, np.uint32), np.ones(length, np.uint32)
    return _many(lambda: np.add(total, vector, out=total), length)


@lru_cache
def tag_s(length: int) -> float:
    """One AES-256-GMAC over a vector of 4 bytes a value."""
    data, key = bytes(4 * length), AESGCM(bytes(32))
    return _many(lambda: key.encrypt(bytes(12), b"", data), length)


@lru_cache
def agreement_s() -> float:
    """One X25519 agreement, keys in memory."""
    ours, theirs = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    return typical(lambda: [ours.exchange(theirs) for _ in range(200)]) / 200


@lru_cache
def verification_s() -> float:
    """One Ed25519 verification."""
    key = Ed25519PrivateKey.generate()
    signature, public = key.sign(b"x" * 70), key.public_key()
    return typical(lambda: [public.verify(signature, b"x" * 70) for _ in range(100)]) / 100


@lru_cache
def signing_s() -> float:
    """One Ed25519 signature."""
    key = Ed25519PrivateKey.generate()
    return typical(lambda: [key.sign(b"x" * 70) for _ in range(100)]) / 100


@lru_cache
def rounding_s(length: int) -> float:
    """One stochastic rounding of doubles, with 32 random bits a value from one keystream."""
    values = np.random.default_rng(0).uniform(-1, 1, length)
    result = np.empty(length, np.int64)

    def action() -> None:
        stream = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(bytes(16))).encryptor()
        for start in range(0, length, 1 << 15):
            part = values[start : start + (1 << 15)] / STEP
            coins = np.frombuffer(stream.update(bytes(4 * part.size)), np.uint32) * 2.0**-32
            part += coins
            np.floor(part, out=part)
            result[start : start + (1 << 15)] = part

    return _many(action, length)


@lru_cache
def hash_s(length: int) -> float:
    """One SHA-256 over the vector."""
    data = bytes(4 * length)
    return _many(lambda: hashlib.sha256(data).digest(), length)


@lru_cache
def sharing_s(threshold: int, holders: int) -> float:
    """One secret shared by Horner's rule in Python integers."""
    coefficients = [int.from_bytes(os.urandom(32)) for _ in range(threshold)]

    def action() -> None:
        for point in range(1, holders + 1):
            value = 0
            for coefficient in coefficients:
                value = (value * point + coefficient) % PRIME

    return typical(action)


def _many(action: Callable[[], object], length: int) -> float:
    rounds = max(1, 30_000_000 // length)  # so many that all but the first find the caches warm
    return typical(lambda: [action() for _ in range(rounds)], repeats=7) / rounds
