"""Pads that only a client and the decryptor know, and tags that add up: why one sum opens, and no other.

A server that holds all ciphertexts could hand one of them, or a combination of its own making, to the decryptor. So a
client encrypts no value as it is. Each slot x of its ciphertexts goes in as u = x + r mod p, with a pad r from a secret
that it shares with the decryptor alone. The decryptor takes the pads of exactly the named survivors away from whatever
it has decrypted, modulo p. If that is their sum, the values come out; if it is anything else, then in every slot that
differs some pad is left, which is uniform and independent of every value.

Of an arbitrary V that the server wants opened it gets V − Σ r, hence at most Σ x = Σ u − Σ r of the named survivors,
*even if it could decrypt the ciphertexts by itself*. That needs no lattice assumption (`protocols/HOMOMORPHIC.md` lists
what it needs).

Tags tell right sums from wrong ones, so that a wrong one is refused by name. The last slots of each ciphertext hold

    tag_j = ⟨a_j, u⟩ + pad_j   (mod p),   j = 1 … tags

with public coefficients a_j (the homomorphic authenticator of Agrawal and Boneh 2009, section 3, over 𝔽_p). Whether a
tag holds depends on u and on the key, and thus tells nothing of the values.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from securekd_protocols.errors import NotTheSurvivorsSum
from securekd_protocols.homomorphic.packing import Entries
from securekd_protocols.homomorphic.scheme import DEGREE, Scheme, SchemeName
from securekd_protocols.keys import Binding, Label, derive

Coefficients = NDArray[np.int64]
Limbs = NDArray[np.uint64]
_LIMBS = 4  # of 32 bits: a pad is 128 bits of keystream modulo p < 2^46, which is uniform up to 2^-82


def tag_coefficients(scheme: Scheme, binding: Binding) -> Coefficients:
    """The public a_j, 16 bits each, shape (tags, entries): an AES-128-CTR keystream keyed by session and key."""
    stream = _keystream(derive(b"", Label.TAG_COEFFICIENTS, binding, size=32), 2 * scheme.tags * scheme.entries)
    return np.frombuffer(stream, "<u2").astype(np.int64).reshape(scheme.tags, scheme.entries)


def no_pads(ciphertexts: int) -> Limbs:
    """The sum of nobody's pads, for `add_pads`; shape (ciphertexts, N, limbs)."""
    return np.zeros((ciphertexts, DEGREE, _LIMBS), np.uint64)


def add_pads(total: Limbs, secret: bytes, binding: Binding, owner: int) -> None:
    """Add a client's pads, one for each slot, to a sum of pads, in place; they are not reduced yet.

    Args:
        total: From `no_pads`, with at most 2^31 clients' pads in it.
        secret: The raw X25519 secret of this client and the decryptor.
        binding: Session, and digest of the decryptor's key.
        owner: The client's index.
    """
    stream = _keystream(derive(secret, Label.SLOT_PADS, binding, owner, size=32), total.size * 4)
    total += np.frombuffer(stream, "<u4").reshape(total.shape)


def reduced(scheme: Scheme, total: Limbs) -> Entries:
    """A sum of pads modulo p, shape (ciphertexts, N)."""
    modulus = np.uint64(scheme.slot_modulus)
    result = total[..., -1] % modulus
    for limb in range(_LIMBS - 2, -1, -1):
        result = (result << np.uint64(16)) % modulus  # twice 16 bits: what is below 2^46 stays below 2^62
        result = ((result << np.uint64(16)) + total[..., limb]) % modulus
    return result.astype(np.int64)


def seal_slots(scheme: Scheme, entries: Entries, coefficients: Coefficients, pad: Entries) -> Entries:
    """Blind slots and give them their tags.

    Args:
        scheme: The session's parameters.
        entries: Shape (ciphertexts, scheme.entries).
        coefficients: As `tag_coefficients` gives them.
        pad: One client's, reduced; shape (ciphertexts, N).

    Returns:
        Shape (ciphertexts, N): residues in [0, p); in CKKS those nearest to zero.
    """
    blinded = (entries + pad[:, : scheme.entries]) % scheme.slot_modulus
    tags = (_products(scheme, blinded, coefficients) + pad[:, scheme.entries :]) % scheme.slot_modulus
    slots = np.concatenate([blinded, tags], axis=1)
    return centred(slots, scheme.slot_modulus) if scheme.name is SchemeName.CKKS else slots


def open_slots(scheme: Scheme, slots: Entries, coefficients: Coefficients, pad: Entries) -> Entries:
    """Take tags and pads from a decrypted sum, if it is the survivors' sum.

    Args:
        scheme: The session's parameters.
        slots: Integers of any size, shape (ciphertexts, N).
        coefficients: As `tag_coefficients` gives them.
        pad: The sum of exactly the survivors' pads, reduced; shape (ciphertexts, N).

    Returns:
        The sum's slots, shape (ciphertexts, scheme.entries): residues in [0, p); in CKKS those nearest to zero.

    Raises:
        NotTheSurvivorsSum: A tag does not hold. Whether one does depends on blinded slots only.
    """
    found = slots % scheme.slot_modulus
    blinded = found[:, : scheme.entries]
    due = _products(scheme, blinded, coefficients) + pad[:, scheme.entries :]
    if ((found[:, scheme.entries :] - due) % scheme.slot_modulus).any():
        raise NotTheSurvivorsSum(
            "what was decrypted is not the sum of the vectors that the server names",
            "open nothing; the server has changed ciphertexts, or a client's are not its own",
        )
    entries = (blinded - pad[:, : scheme.entries]) % scheme.slot_modulus
    return centred(entries, scheme.slot_modulus) if scheme.name is SchemeName.CKKS else entries


def centred(residues: Entries, modulus: int) -> Entries:
    """The residues nearest to zero."""
    return residues - np.where(2 * residues > modulus, modulus, 0)


def _products(scheme: Scheme, blinded: Entries, coefficients: Coefficients) -> Entries:
    """⟨a_j, slots⟩ mod p, shape (ciphertexts, tags); residues below 2^46 times 16 bits stay below 2^62."""
    modulus = scheme.slot_modulus
    return np.stack([((blinded * row) % modulus).sum(axis=1) % modulus for row in coefficients], axis=1)


def _keystream(seed: bytes, size: int) -> bytes:
    return Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor().update(bytes(size))
