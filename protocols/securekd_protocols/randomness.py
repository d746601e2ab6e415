"""Where random bytes come from.

A source is any callable that takes a number of bytes and returns that many. In production it is the operating system's
generator, or `KeystreamRandomness`, which stretches one operating-system key and is the quick choice for a million
stochastic roundings. A predictable source can reach a session by one keyword only, `insecure_randomness_for_tests`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

RandomBytes = Callable[[int], bytes]

_SEED_LABEL = b"securekd-protocols insecure seeded randomness"


class KeystreamRandomness:
    """A fresh AES-128-CTR keystream (NIST SP 800-38A, section 6.5), keyed once from the operating system.

    Several times quicker than asking the operating system for every byte. Not for sharing between threads.
    """

    def __init__(self) -> None:
        seed = os.urandom(32)
        self._stream = Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor()

    def __call__(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        return self._stream.update(bytes(size))


class InsecureSeededRandomness:
    """The same bytes for the same seed: for tests and test vectors, where nothing is secret.

    The stream is SHA-256(label, seed, counter) for counter 0, 1, 2, …, cut where the caller asks; each call starts a
    new block, so that a reader of the specification can follow it by hand.

    Args:
        seed: Any bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._counter = 0

    def __call__(self, size: int) -> bytes:
        """Return `size` bytes that anybody who knows the seed can compute."""
        blocks = []
        for _ in range(-(-size // 32)):
            blocks.append(hashlib.sha256(_SEED_LABEL + self._seed + self._counter.to_bytes(8, "little")).digest())
            self._counter += 1
        return b"".join(blocks)[:size]
