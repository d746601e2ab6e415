"""The rings in which inputs, masks and sums live, and the one loop that everything waits for.

A signed integer v is the ring element v mod 2^bits. There are four rings: 2^32 is the rule, 2^64 is for precision, and
2^24 and 2^16 save bytes where the range allows. As long as clients × (magnitude + noise tail) stays below half of the
ring, the sum of the inputs is read back exactly; `prove_no_overflow` sees to that before a session begins.

A mask is a keystream of AES-128 in counter mode, read as little-endian words: what GCM (NIST SP 800-38D, section 7.1)
encrypts zeros to, under a key and a nonce of 12 bytes that both come from HKDF, so that no table over one nonce helps
against many keys at once. GCM's tag is not used. Its counter is: OpenSSL computes that keystream faster with the tag's
hash than CTR's without, by a factor of two on processors with vector AES. Elements of 2^24 are computed with as 32-bit
words, whose highest byte does not travel: dropping it is a homomorphism, and leaves a uniform mask uniform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from securekd_protocols.errors import BadParameter, NotIntegers, RingTooSmall, ValueOutOfRange, WrongLength
from securekd_protocols.keys import NONCE_BYTES, Binding, Label, derive
from securekd_protocols.wire import Bytes

Words = NDArray[np.unsignedinteger]
_CHUNK_BYTES = 1 << 18  # a chunk of the sum and of the keystream stay in the second-level cache
_ZEROS = bytes(_CHUNK_BYTES)


@dataclass(frozen=True)
class Ring:
    """The integers modulo 2^bits.

    Attributes:
        bits: 16, 24, 32 or 64.
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (16, 24, 32, 64):
            raise BadParameter(f"a ring of {self.bits} bits", "choose 16, 24, 32 or 64")

    @property
    def half(self) -> int:
        """What no sum may reach."""
        return 1 << (self.bits - 1)

    @property
    def value_bytes(self) -> int:
        """Bytes of an element on the wire: 2, 3, 4 or 8."""
        return self.bits // 8

    @property
    def word(self) -> np.dtype[np.unsignedinteger]:
        """The numpy type in which elements are computed with."""
        return np.dtype({16: "<u2", 24: "<u4", 32: "<u4", 64: "<u8"}[self.bits])

    def pack(self, words: Words) -> memoryview:
        """The bytes of a vector on the wire: little-endian elements; no copy but in 2^24."""
        whole = np.ascontiguousarray(words, self.word)
        if self.bits == 24:
            whole = np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 4)[:, :3])
        return whole.data.cast("B")

    def unpack(self, data: Bytes) -> Words:
        """Read what `pack` wrote; no copy but in 2^24, and then read-only."""
        if self.bits != 24:
            return np.frombuffer(data, self.word)
        parts = np.zeros((len(data) // 3, 4), np.uint8)
        parts[:, :3] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return parts.reshape(-1).view(self.word)

    def signed(self, words: Words) -> NDArray[np.int64]:
        """Read ring elements as the signed integers in [−2^(bits−1), 2^(bits−1)) that they stand for."""
        spare = 8 * self.word.itemsize - self.bits
        shifted = words << self.word.type(spare) if spare else words
        return shifted.view(np.dtype(f"<i{self.word.itemsize}")).astype(np.int64) >> spare


def prove_no_overflow(ring: Ring, clients: int, magnitude: int, noise_tail: int = 0) -> None:
    """Refuse parameters under which a sum could leave the ring's signed range.

    Args:
        ring: Where the sum lives.
        clients: How many inputs are summed at most.
        magnitude: Largest absolute value of an encoded entry, before noise.
        noise_tail: Largest absolute value of the noise that a client adds to an entry.

    Raises:
        RingTooSmall: clients × (magnitude + noise tail) is not below half of the ring.
    """
    reach = clients * (magnitude + noise_tail)
    if reach >= ring.half:
        raise RingTooSmall(
            f"{clients} clients × (magnitude {magnitude} + noise tail {noise_tail}) = {reach} "
            f"is not below 2^{ring.bits - 1}",
            f"keep magnitude and tail at most {(ring.half - 1) // clients} together, or take a larger ring",
        )


def smallest_ring(clients: int, magnitude: int, noise_tail: int = 0) -> Ring:
    """The smallest ring in which no sum can wrap around.

    Raises:
        RingTooSmall: Not even 2^64 is enough.
    """
    for bits in (16, 24, 32):
        if clients * (magnitude + noise_tail) < 1 << (bits - 1):
            return Ring(bits)
    prove_no_overflow(Ring(64), clients, magnitude, noise_tail)
    return Ring(64)


@dataclass(frozen=True)
class Mask:
    """One keystream to add to a vector, or to take from it.

    Attributes:
        key: AES-128 key, 16 bytes.
        nonce: 12 bytes; the counter block of stream block i is the nonce, then i + 2 in 4 bytes, big-endian.
        subtract: Take it away instead of adding it.
    """

    key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    subtract: bool

    def negated(self) -> Mask:
        """The mask that undoes this one."""
        return Mask(self.key, self.nonce, not self.subtract)


def pair_mask(secret: bytes, binding: Binding, owner: int, peer: int) -> Mask:
    """The mask that `owner` applies for `peer`; `peer` applies its negative (Bonawitz et al. 2017, section 4).

    Args:
        secret: The raw X25519 secret of the two mask keys.
        binding: Session and transcript after the share stage.
        owner: Index of the client whose vector is masked.
        peer: Index of the other one. The smaller index adds.

    Returns:
        The mask.
    """
    stream = derive(secret, Label.PAIR_MASK, binding, min(owner, peer), max(owner, peer), size=16 + NONCE_BYTES)
    return Mask(stream[:16], stream[16:], subtract=owner > peer)


def self_mask(seed: bytes, binding: Binding, owner: int) -> Mask:
    """The mask that a client adds to its own vector, which survivors help to take away again."""
    stream = derive(seed, Label.SELF_MASK, binding, owner, size=16 + NONCE_BYTES)
    return Mask(stream[:16], stream[16:], subtract=False)


def encode(
    ring: Ring, vector: NDArray[np.signedinteger] | NDArray[np.unsignedinteger], length: int, bound: int
) -> Words:
    """Turn signed integers into ring elements.

    Args:
        ring: Where they go.
        vector: Any numpy integer type, shape (length,).
        length: The agreed length.
        bound: The agreed bound on absolute values, magnitude and noise tail together.

    Returns:
        A new array of shape (length,), which the caller may mask in place.

    Raises:
        NotIntegers: The array holds something else.
        WrongLength: The shape is not (length,).
        ValueOutOfRange: An entry is larger than the bound.
    """
    return check_vector(vector, length, bound).astype(ring.word)


def check_vector(
    vector: NDArray[np.signedinteger] | NDArray[np.unsignedinteger], length: int, bound: int
) -> NDArray[np.signedinteger] | NDArray[np.unsignedinteger]:
    """Refuse an input that is not as agreed, as `encode` does; give it back uncopied."""
    values = np.asarray(vector)
    if not np.issubdtype(values.dtype, np.integer):
        raise NotIntegers(f"the vector's type is {values.dtype}", "encode floats with FixedPoint first")
    if values.shape != (length,):
        raise WrongLength(f"the vector's shape is {values.shape}, not ({length},)", "flatten or pad it as agreed")
    low, high = int(values.min()), int(values.max())
    if high > bound or low < -bound:
        worst = high if high > bound else low
        raise ValueOutOfRange(f"value {worst} is beyond ±{bound}", "clip it, or agree on a larger magnitude or tail")
    return values


def apply_masks(elements: Words, masks: Sequence[Mask]) -> None:
    """Add (or take away) keystreams to a vector, in place.

    All masks go over one chunk before the next chunk is touched; the keystream is never longer than a chunk.

    Args:
        elements: Contiguous array of a ring's words, shape (d,).
        masks: Any number of them.
    """
    streams = [
        (
            Cipher(algorithms.AES(mask.key), modes.GCM(mask.nonce)).encryptor(),
            np.subtract if mask.subtract else np.add,
        )
        for mask in masks
    ]
    width = elements.dtype.itemsize
    buffer = bytearray(_CHUNK_BYTES + 16)  # update_into asks for one block of slack
    words = np.frombuffer(buffer, elements.dtype, _CHUNK_BYTES // width)
    zeros = memoryview(_ZEROS)
    for start in range(0, elements.size, words.size):
        chunk = elements[start : start + words.size]
        stream_words, plain = words[: chunk.size], zeros[: width * chunk.size]
        for encryptor, operation in streams:
            encryptor.update_into(plain, buffer)
            operation(chunk, stream_words, out=chunk)
