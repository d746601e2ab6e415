"""Tags that add up: how the decryptor knows what it opens, without seeing what goes into it.

A server that holds all ciphertexts could hand one of them, or a sum of its own making, to the decryptor. So every
client adds linear tags to each ciphertext's slots (the homomorphic authenticator of Agrawal and Boneh 2009, section 3,
over 𝔽_p), and each tag is blinded by a pad that only this client and the decryptor know:

    tag_j = ⟨a_j, slots⟩ + pad_j   (mod p),   j = 1 … tags

The coefficients a_j are public, fixed by the session and the decryptor's key. The decrypted sum's tags must be
⟨a_j, sum⟩ plus the pads of exactly the named survivors. A client left out, counted twice, or named and not added in,
leaves an unknown pad in the equation, which then holds with probability p^−tags ≤ 2⁻⁸⁰; and a session's key opens once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from securekd_protocols.errors import NotTheSurvivorsSum
from securekd_protocols.homomorphic.packing import Entries
from securekd_protocols.homomorphic.scheme import Scheme
from securekd_protocols.keys import Binding, Label, derive

Coefficients = NDArray[np.int64]


def tag_coefficients(scheme: Scheme, binding: Binding) -> Coefficients:
    """The public a_j, 16 bits each, shape (tags, entries): an AES-128-CTR keystream keyed by session and key."""
    stream = _keystream(derive(b"", Label.TAG_COEFFICIENTS, binding, size=32), 2 * scheme.tags * scheme.entries)
    return np.frombuffer(stream, "<u2").astype(np.int64).reshape(scheme.tags, scheme.entries)


def pads(scheme: Scheme, ciphertexts: int, secret: bytes, binding: Binding, owner: int) -> Entries:
    """What blinds a client's tags, shape (ciphertexts, tags): 128 bits of keystream each, modulo p.

    Args:
        scheme: The session's parameters.
        ciphertexts: How many the vector takes.
        secret: The raw X25519 secret of this client and the decryptor.
        binding: Session, and digest of the decryptor's key.
        owner: The client's index.
    """
    count = ciphertexts * scheme.tags
    stream = _keystream(derive(secret, Label.TAG_PADS, binding, owner, size=32), 16 * count)
    numbers = [int.from_bytes(stream[i : i + 16], "little") % scheme.tag_modulus for i in range(0, len(stream), 16)]
    return np.array(numbers, np.int64).reshape(ciphertexts, scheme.tags)


def append_tags(scheme: Scheme, entries: Entries, coefficients: Coefficients, pad: Entries) -> Entries:
    """Give slots their tags: shape (ciphertexts, N). In CKKS a tag is the residue nearest to zero."""
    tags = (_products(scheme, entries, coefficients) + pad) % scheme.tag_modulus
    if not scheme.plain_modulus:
        tags -= np.where(2 * tags > scheme.tag_modulus, scheme.tag_modulus, 0)
    return np.concatenate([entries, tags], axis=1)


def check_tags(
    scheme: Scheme, slots: Entries, coefficients: Coefficients, pads_of_survivors: Sequence[Entries]
) -> Entries:
    """Take the tags from a decrypted sum, if they are those of the survivors' sum.

    Args:
        scheme: The session's parameters.
        slots: Shape (ciphertexts, N).
        coefficients: As `tag_coefficients` gives them.
        pads_of_survivors: One array for each survivor.

    Returns:
        Shape (ciphertexts, entries).

    Raises:
        NotTheSurvivorsSum: A tag does not hold.
    """
    entries = slots[:, : scheme.entries]
    due = _products(scheme, entries, coefficients)
    for pad in pads_of_survivors:
        due = (due + pad) % scheme.tag_modulus
    if ((slots[:, scheme.entries :] - due) % scheme.tag_modulus).any():
        raise NotTheSurvivorsSum(
            f"what was decrypted is not the sum of the {len(pads_of_survivors)} vectors that the server names",
            "open nothing; the server has changed ciphertexts, or a client's are not its own",
        )
    return entries


def _products(scheme: Scheme, entries: Entries, coefficients: Coefficients) -> Entries:
    """⟨a_j, slots⟩ mod p, shape (ciphertexts, tags); slots below 2^46 times 16 bits stay below 2^62."""
    return np.stack(
        [((entries * row) % scheme.tag_modulus).sum(axis=1) % scheme.tag_modulus for row in coefficients], axis=1
    )


def _keystream(seed: bytes, size: int) -> bytes:
    return Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor().update(bytes(size))
