"""Randomness in two kinds: secret (noise, Poisson samples, rounding) and public (splits, initial weights, batches).

Secret randomness is a ChaCha20 keystream keyed by the operating system, one fresh key for each purpose. In the mode
`seeded`, meant for tests and teaching, the keys are derived from the experiment's seed instead: runs repeat, and
nothing is protected. Both kinds are derived for each purpose, client and round, so that neither the order of work nor
a resumption changes what is drawn.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

Label = str | int

# A keystream is what a cipher makes of zeros; so few at a time stay in the cache.
ZEROS = bytes(1 << 16)


class Csprng:
    """A ChaCha20 keystream (RFC 8439) read as uniform words, Gaussians and Bernoulli draws."""

    def __init__(self, key: bytes) -> None:
        """Start the stream of a 32-byte key; a key is used for one stream only, so the nonce is zero."""
        self._stream = Cipher(ChaCha20(key, bytes(16)), None).encryptor()

    def read(self, count: int) -> bytes:
        """The next `count` bytes."""
        return self._stream.update(b"\0" * count)

    def words(self, count: int) -> np.ndarray:
        """`count` uniform 64-bit words (uint64)."""
        return self.fill(np.empty(count, dtype="<u8"))

    def fill(self, words: np.ndarray) -> np.ndarray:
        """Overwrite `words` (uint64, contiguous) with uniform words, and give it back."""
        view = words.view(np.uint8).data
        for start in range(0, len(view), len(ZEROS)):
            part = view[start : start + len(ZEROS)]
            self._stream.update_into(ZEROS[: len(part)], part)
        return words

    def uniform(self, count: int) -> np.ndarray:
        """`count` float64 values, uniform on the 53-bit grid in [0, 1)."""
        values = (self.words(count) >> np.uint64(11)).view(np.int64).astype(np.float64)  # from uint64 it takes longer
        values *= 2.0**-53
        return values

    def normal(self, count: int) -> np.ndarray:
        """`count` standard Gaussians in float64 (Box and Muller 1958)."""
        half = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log(1.0 - self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def poisson_sample(self, population: int, rate: float) -> np.ndarray:
        """Indices of a Poisson sample: each of `population` enters on its own with probability `rate` (up to 2⁻⁶⁴)."""
        if rate >= 1.0:
            return np.arange(population)
        return np.flatnonzero(self.words(population) < np.uint64(int(rate * 2.0**64)))


@dataclass(frozen=True)
class Randomness:
    """Where a run's randomness comes from."""

    mode: Literal["os", "seeded"]
    seed: int

    def secret(self, *labels: Label) -> Csprng:
        """A stream that no other party may predict, for one purpose (its labels)."""
        if self.mode == "os":
            return Csprng(os.urandom(32))
        return Csprng(_derive(b"securekd/secret", self.seed, labels))

    def public(self, *labels: Label) -> np.random.Generator:
        """A repeatable generator for what needs no secrecy: initial weights, batches of public rows."""
        return np.random.default_rng(list(_derive(b"securekd/public", self.seed, labels)))

    def public_seed(self, *labels: Label) -> int:
        """A repeatable 63-bit seed, for libraries that want one."""
        return int.from_bytes(_derive(b"securekd/public", self.seed, labels)[:8], "little") >> 1


def _derive(domain: bytes, seed: int, labels: tuple[Label, ...]) -> bytes:
    parts = [domain, str(seed).encode(), *(f"{type(x).__name__}:{x}".encode() for x in labels)]
    return hashlib.sha256(b"".join(len(p).to_bytes(4, "big") + p for p in parts)).digest()
