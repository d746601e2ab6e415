"""The ring Z/2^32 in which inputs, masks and sums live, and the one loop that everything waits for.

A signed integer v is the ring element v mod 2^32; four little-endian bytes on the wire. As long as clients × magnitude
stays below half of the ring, the sum of the inputs is read back exactly.

A mask is an AES-128-CTR keystream (NIST SP 800-38A, section 6.5) over a 128-bit big-endian counter, read as
little-endian 32-bit words. Key and initial counter block both come from HKDF, so that no table over one counter helps
against many keys at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from securekd_protocols.errors import NotIntegers, RingTooSmall, ValueOutOfRange, WrongLength
from securekd_protocols.keys import Binding, Label, derive

Ring = NDArray[np.uint32]
WORD = np.dtype("<u4")
HALF = 2**31
_CHUNK_WORDS = 1 << 16  # 256 KiB: a chunk of the sum and of the keystream stay in the second-level cache
_ZEROS = bytes(WORD.itemsize * _CHUNK_WORDS)


@dataclass(frozen=True)
class Mask:
    """One keystream to add to a vector, or to take from it.

    Attributes:
        key: AES-128 key, 16 bytes.
        counter: Initial counter block, 16 bytes.
        subtract: Take it away instead of adding it.
    """

    key: bytes = field(repr=False)
    counter: bytes = field(repr=False)
    subtract: bool

    def negated(self) -> Mask:
        """The mask that undoes this one."""
        return Mask(self.key, self.counter, not self.subtract)


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
    stream = derive(secret, Label.PAIR_MASK, binding, min(owner, peer), max(owner, peer), size=32)
    return Mask(stream[:16], stream[16:], subtract=owner > peer)


def self_mask(seed: bytes, binding: Binding, owner: int) -> Mask:
    """The mask that a client adds to its own vector, which survivors help to take away again."""
    stream = derive(seed, Label.SELF_MASK, binding, owner, size=32)
    return Mask(stream[:16], stream[16:], subtract=False)


def prove_no_overflow(clients: int, magnitude: int) -> None:
    """Refuse parameters under which a sum could leave [−2^31, 2^31).

    Args:
        clients: How many inputs are summed at most.
        magnitude: Largest absolute value of an input's entry.

    Raises:
        RingTooSmall: clients × magnitude is not below half of the ring.
    """
    if clients * magnitude >= HALF:
        raise RingTooSmall(
            f"{clients} clients × magnitude {magnitude} = {clients * magnitude} is not below 2^31",
            f"keep the magnitude at most {(HALF - 1) // clients}, by a coarser step or a smaller clipping range",
        )


def encode(vector: NDArray[np.signedinteger] | NDArray[np.unsignedinteger], length: int, magnitude: int) -> Ring:
    """Turn signed integers into ring elements.

    Args:
        vector: Any numpy integer type, shape (length,).
        length: The agreed length.
        magnitude: The agreed bound on absolute values.

    Returns:
        A new array of shape (length,), which the caller may mask in place.

    Raises:
        NotIntegers: The array holds something else.
        WrongLength: The shape is not (length,).
        ValueOutOfRange: An entry is larger than the magnitude.
    """
    values = np.asarray(vector)
    if not np.issubdtype(values.dtype, np.integer):
        raise NotIntegers(f"the vector's type is {values.dtype}", "encode floats with FixedPoint first")
    if values.shape != (length,):
        raise WrongLength(f"the vector's shape is {values.shape}, not ({length},)", "flatten or pad it as agreed")
    low, high = int(values.min()), int(values.max())
    if high > magnitude or low < -magnitude:
        worst = high if high > magnitude else low
        raise ValueOutOfRange(f"value {worst} is beyond ±{magnitude}", "clip it, or agree on a larger magnitude")
    return values.astype(WORD)


def decode(elements: Ring) -> NDArray[np.int64]:
    """Read ring elements as the signed integers in [−2^31, 2^31) that they stand for."""
    return elements.view(np.dtype("<i4")).astype(np.int64)


def apply_masks(elements: Ring, masks: Sequence[Mask]) -> None:
    """Add (or take away) keystreams to a vector, in place.

    All masks go over one chunk before the next chunk is touched; the keystream is never longer than a chunk.

    Args:
        elements: Contiguous `WORD` array, shape (d,).
        masks: Any number of them.
    """
    streams = [
        (
            Cipher(algorithms.AES(mask.key), modes.CTR(mask.counter)).encryptor(),
            np.subtract if mask.subtract else np.add,
        )
        for mask in masks
    ]
    buffer = bytearray(len(_ZEROS) + 16)  # update_into asks for one block of slack
    words = np.frombuffer(buffer, WORD, _CHUNK_WORDS)
    zeros = memoryview(_ZEROS)
    for start in range(0, elements.size, _CHUNK_WORDS):
        chunk = elements[start : start + _CHUNK_WORDS]
        stream_words, plain = words[: chunk.size], zeros[: WORD.itemsize * chunk.size]
        for encryptor, operation in streams:
            encryptor.update_into(plain, buffer)
            operation(chunk, stream_words, out=chunk)
