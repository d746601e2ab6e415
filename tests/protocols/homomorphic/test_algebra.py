"""Residues, packing and tags against naive twins."""

import hashlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from securekd_protocols.errors import (
    BadCiphertext,
    NoParametersFit,
    NotTheSurvivorsSum,
    SumOffGrid,
    TransparentCiphertext,
)
from securekd_protocols.homomorphic import SchemeName, choose_scheme
from securekd_protocols.homomorphic.packing import pack, unpack
from securekd_protocols.homomorphic.residues import add_residues, decode_residues, encode_residues
from securekd_protocols.homomorphic.scheme import DEGREE, chain_of
from securekd_protocols.homomorphic.tags import append_tags, check_tags, pads, tag_coefficients
from securekd_protocols.keys import Binding

BOTH = pytest.mark.parametrize("name", SchemeName)
CHAINS = pytest.mark.parametrize("moduli", [chain_of(c) for c in ((32,), (40,), (48,), (56,), (32, 32), (40, 32))])
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
        assert total.max() < scheme.plain_modulus


@BOTH
def test_sums_that_no_honest_clients_have_are_refused(name):
    scheme = choose_scheme(name, 5, 10, 30)
    vector = np.full(30, 10)
    with pytest.raises(SumOffGrid, match="no sum of 2 vectors"):
        unpack(scheme, sum(pack(scheme, vector) for _ in range(3)), 2, 30)
    with pytest.raises(SumOffGrid, match="padding"):
        unpack(scheme, pack(scheme, vector), 1, 29)


@BOTH
@settings(max_examples=20, deadline=None)
@given(clients=st.integers(3, 8), seed=st.integers(0, 1000))
def test_tags_hold_for_the_survivors_sum_and_for_nothing_else(name, clients, seed):
    scheme = choose_scheme(name, 8, 1000, 100)
    coefficients = tag_coefficients(scheme, BINDING)
    rng = np.random.default_rng(seed)
    blinds = [pads(scheme, 1, bytes([i]) * 32, BINDING, i) for i in range(clients)]
    sealed = [
        append_tags(scheme, pack(scheme, rng.integers(-1000, 1001, 100)), coefficients, blind) for blind in blinds
    ]
    modulus = scheme.plain_modulus or 2**62  # slots of CKKS do not wrap
    total = sum(sealed) % modulus if scheme.plain_modulus else sum(sealed)
    np.testing.assert_array_equal(check_tags(scheme, total, coefficients, blinds), total[:, : scheme.entries])
    one_changed = total.copy()
    one_changed[0, int(rng.integers(0, DEGREE))] += 1
    cheats = {
        "a single ciphertext": sealed[0],
        "one left out": total - sealed[1],
        "one counted twice": total + sealed[1],
        "one slot changed": one_changed,
        "tags of another": np.concatenate([sealed[0][:, : scheme.entries], total[:, scheme.entries :]], axis=1),
    }
    for cheat in cheats.values():
        with pytest.raises(NotTheSurvivorsSum, match="not the sum"):
            check_tags(scheme, cheat % scheme.plain_modulus if scheme.plain_modulus else cheat, coefficients, blinds)
    with pytest.raises(NotTheSurvivorsSum):
        check_tags(scheme, total, coefficients, blinds[:-1])


def test_tags_against_a_twin_in_python_integers():
    scheme = choose_scheme(SchemeName.BFV, 100, 2**15, 100)
    coefficients = tag_coefficients(scheme, BINDING)
    rng = np.random.default_rng(0)
    entries = rng.integers(0, scheme.plain_modulus, (1, scheme.entries))
    blind = pads(scheme, 1, bytes(32), BINDING, 0)
    tags = append_tags(scheme, entries, coefficients, blind)[0, scheme.entries :]
    for row, pad, tag in zip(coefficients.tolist(), blind[0].tolist(), tags.tolist(), strict=True):
        assert tag == (sum(a * v for a, v in zip(row, entries[0].tolist(), strict=True)) + pad) % scheme.tag_modulus


def test_pads_differ_by_client_secret_session_and_key():
    scheme = choose_scheme(SchemeName.BFV, 5, 10, 30)
    other = Binding(bytes(32), hashlib.sha256(b"another key").digest())
    made = [
        pads(scheme, 1, bytes(32), BINDING, 0),
        pads(scheme, 1, bytes(32), BINDING, 1),
        pads(scheme, 1, b"\1" * 32, BINDING, 0),
        pads(scheme, 1, bytes(32), other, 0),
        pads(scheme, 1, bytes(32), Binding(b"\1" * 32, BINDING.transcript), 0),
    ]
    assert len({pad.tobytes() for pad in made}) == len(made)
