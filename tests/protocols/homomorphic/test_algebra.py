"""Residues, packing and tags against naive twins."""

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from securekd_protocols.errors import (
    BadCiphertext,
    NoParametersFit,
    NotTheSurvivorsSum,
    SumOffGrid,
    TransparentCiphertext,
)
from securekd_protocols.homomorphic import SchemeName, choose_scheme
from securekd_protocols.homomorphic.packing import pack, unpack
from securekd_protocols.homomorphic.pads import add_pads, no_pads, open_slots, reduced, seal_slots, tag_coefficients
from securekd_protocols.homomorphic.residues import add_residues, decode_residues, encode_residues
from securekd_protocols.homomorphic.scheme import DEGREE, chain_of
from securekd_protocols.keys import Binding, Label, derive

BOTH = pytest.mark.parametrize("name", SchemeName)
CHAINS = pytest.mark.parametrize(
    "moduli", [chain_of(c) for c in ((32,), (40,), (48,), (56,), (24, 16), (46, 16), (40, 24))]
)
BINDING = Binding(bytes(32), hashlib.sha256(b"key").digest())


def residues_of(moduli, count, seed):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, prime, (count, 2, DEGREE), np.uint64) for prime in moduli], axis=2)


@CHAINS
def test_residues_have_one_encoding(moduli):
    residues = residues_of(moduli, 2, 1)
    residues[0, 0, :, 0], residues[0, 0, :, 1] = 0, np.array(moduli, np.uint64) - 1
    data = encode_residues(residues, moduli)
    again = decode_residues(data, 2, moduli)
    np.testing.assert_array_equal(again, residues)
    naive = b"".join(
        int(r).to_bytes(-(-p.bit_length() // 8), "little")
        for ciphertext in residues
        for polynomial in ciphertext
        for row, p in zip(polynomial, moduli, strict=True)
        for r in row[:3]
    )
    width = -(-moduli[0].bit_length() // 8)
    assert data[: 3 * width] == naive[: 3 * width]


@CHAINS
def test_sums_are_sums_modulo_each_prime(moduli):
    first, second = residues_of(moduli, 1, 1), residues_of(moduli, 1, 2)
    total = first.copy()
    add_residues(total, second, moduli)
    for index, prime in enumerate(moduli):
        naive = [(int(a) + int(b)) % prime for a, b in zip(first[0, 0, index], second[0, 0, index], strict=True)]
        assert total[0, 0, index].tolist() == naive


@CHAINS
def test_what_is_not_reduced_or_hides_nothing_is_refused(moduli):
    residues = residues_of(moduli, 1, 3)
    data = encode_residues(residues, moduli)
    for wrong in (b"", data[:-1], data + b"\0", data + data):
        with pytest.raises(BadCiphertext, match="bytes of ciphertext"):
            decode_residues(wrong, 1, moduli)
    unreduced = residues.copy()
    unreduced[0, 1, -1, -1] = moduli[-1]
    with pytest.raises(BadCiphertext, match="not reduced"):
        decode_residues(encode_residues(unreduced, moduli), 1, moduli)
    residues[0, 1] = 0
    with pytest.raises(TransparentCiphertext, match="hides nothing"):
        decode_residues(encode_residues(residues, moduli), 1, moduli)


@BOTH
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_sums_survive_packing(name, data):
    clients, bound = data.draw(st.integers(1, 200)), 2 ** data.draw(st.integers(0, 18))
    length, present = data.draw(st.integers(1, 9000)), data.draw(st.integers(1, clients))
    try:
        scheme = choose_scheme(name, clients, bound, length)
    except NoParametersFit:
        assume(False)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    vectors = rng.integers(-bound, bound + 1, (present, length))
    vectors[:, 0], vectors[:, -1] = bound, -bound
    total = sum(pack(scheme, vector) for vector in vectors)
    np.testing.assert_array_equal(unpack(scheme, total, present, length), vectors.sum(axis=0))
    if name is SchemeName.BFV:
        assert total.max() < scheme.slot_modulus


@BOTH
def test_sums_that_no_honest_clients_have_are_refused(name):
    scheme = choose_scheme(name, 5, 10, 30)
    vector = np.full(30, 10)
    with pytest.raises(SumOffGrid, match="no sum of 2 vectors"):
        unpack(scheme, sum(pack(scheme, vector) for _ in range(3)), 2, 30)
    with pytest.raises(SumOffGrid, match="padding"):
        unpack(scheme, pack(scheme, vector), 1, 29)


def sealed_by(scheme, secrets, seed):
    """Slots of some clients' vectors, their sum in the scheme's own arithmetic, the plain sum, and the sum of pads."""
    coefficients = tag_coefficients(scheme, BINDING)
    rng, everybody = np.random.default_rng(seed), no_pads(1)
    slots, values = [], []
    for owner, secret in secrets.items():
        own = no_pads(1)
        for pads in (own, everybody):
            add_pads(pads, secret, BINDING, owner)
        values.append(pack(scheme, rng.integers(-1000, 1001, 100)))
        slots.append(seal_slots(scheme, values[-1], coefficients, reduced(scheme, own)))
    return slots, arithmetic(scheme, sum(slots)), sum(values), reduced(scheme, everybody)


def arithmetic(scheme, slots):
    return slots % scheme.slot_modulus if scheme.name is SchemeName.BFV else slots  # slots of CKKS do not wrap


@BOTH
@settings(max_examples=20, deadline=None)
@given(clients=st.integers(3, 8), seed=st.integers(0, 1000))
def test_the_survivors_sum_opens_and_nothing_else(name, clients, seed):
    scheme = choose_scheme(name, 8, 1000, 100)
    coefficients = tag_coefficients(scheme, BINDING)
    secrets = {i: bytes([i]) * 32 for i in range(clients)}
    slots, total, expected, pads = sealed_by(scheme, secrets, seed)
    np.testing.assert_array_equal(open_slots(scheme, total, coefficients, pads), expected)
    one_changed = total.copy()
    one_changed[0, int(np.random.default_rng(seed).integers(0, DEGREE))] += 1
    cheats = {
        "a single ciphertext": slots[0],
        "one left out": total - slots[1],
        "one counted twice": total + slots[1],
        "one slot changed": one_changed,
        "tags of another": np.concatenate([slots[0][:, : scheme.entries], total[:, scheme.entries :]], axis=1),
    }
    for cheat in cheats.values():
        with pytest.raises(NotTheSurvivorsSum, match="not the sum"):
            open_slots(scheme, arithmetic(scheme, cheat), coefficients, pads)
    fewer = sealed_by(scheme, dict(list(secrets.items())[:-1]), seed)[3]
    with pytest.raises(NotTheSurvivorsSum):
        open_slots(scheme, total, coefficients, fewer)


@BOTH
def test_multiples_of_the_slot_modulus_change_nothing(name):
    """A server that adds p times a client's ciphertext changes no residue, and so must not change what is released."""
    scheme = choose_scheme(name, 8, 1000, 100)
    slots, total, expected, pads = sealed_by(scheme, {i: bytes([i]) * 32 for i in range(4)}, 1)
    again = arithmetic(scheme, total + scheme.slot_modulus * slots[0])
    np.testing.assert_array_equal(open_slots(scheme, again, tag_coefficients(scheme, BINDING), pads), expected)


@BOTH
def test_slots_are_uniform_whatever_the_vector(name):
    """Even who can decrypt a client's ciphertext sees uniform residues: chi-squared over 64 bins, false alarm 1e-6."""
    scheme = choose_scheme(name, 5, 10, 30)
    for value in (0, 10):
        own = no_pads(25)
        add_pads(own, b"secret".ljust(32), BINDING, 3)
        entries = np.full((25, scheme.entries), value)
        slots = seal_slots(scheme, entries, tag_coefficients(scheme, BINDING), reduced(scheme, own))
        bins = np.bincount((slots % scheme.slot_modulus * 64 // scheme.slot_modulus).ravel(), minlength=64)
        assert ((bins - slots.size / 64) ** 2 / (slots.size / 64)).sum() < chi2.isf(1e-6, 63)


def test_pads_and_tags_against_a_twin_in_python_integers():
    scheme = choose_scheme(SchemeName.BFV, 100, 2**15, 100)
    coefficients = tag_coefficients(scheme, BINDING)
    entries = np.random.default_rng(0).integers(0, scheme.slot_modulus, (1, scheme.entries))
    total, numbers = no_pads(1), [0] * DEGREE
    for owner in range(3):
        add_pads(total, bytes([owner]) * 32, BINDING, owner)
        seed = derive(bytes([owner]) * 32, Label.SLOT_PADS, BINDING, owner, size=32)
        stream = Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor().update(bytes(16 * DEGREE))
        for i in range(DEGREE):
            numbers[i] = (numbers[i] + int.from_bytes(stream[16 * i : 16 * i + 16], "little")) % scheme.slot_modulus
    assert reduced(scheme, total)[0].tolist() == numbers
    slots = seal_slots(scheme, entries, coefficients, reduced(scheme, total))[0].tolist()
    blinded = [(e + r) % scheme.slot_modulus for e, r in zip(entries[0].tolist(), numbers, strict=False)]
    assert slots[: scheme.entries] == blinded
    for row, pad, tag in zip(coefficients.tolist(), numbers[scheme.entries :], slots[scheme.entries :], strict=True):
        assert tag == (sum(a * u for a, u in zip(row, blinded, strict=True)) + pad) % scheme.slot_modulus


def test_pads_differ_by_client_secret_session_and_key():
    other = Binding(bytes(32), hashlib.sha256(b"another key").digest())
    made = []
    for secret, binding, owner in (
        (bytes(32), BINDING, 0),
        (bytes(32), BINDING, 1),
        (b"\1" * 32, BINDING, 0),
        (bytes(32), other, 0),
        (bytes(32), Binding(b"\1" * 32, BINDING.transcript), 0),
    ):
        made.append(no_pads(1))
        add_pads(made[-1], secret, binding, owner)
    assert len({pads.tobytes() for pads in made}) == len(made)
