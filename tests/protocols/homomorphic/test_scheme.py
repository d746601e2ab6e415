"""The chosen parameters: secure by the table, and exact by measurement as well as by proof."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols.errors import BadParameter, NoParametersFit
from securekd_protocols.homomorphic import SchemeName, choose_scheme
from securekd_protocols.homomorphic.residues import add_residues
from securekd_protocols.homomorphic.scheme import (
    DEGREE,
    GRID_TOLERANCE,
    MOST_MODULUS_BITS,
    bfv_noise,
    ckks_error,
    is_prime,
    prime_from,
)
from securekd_protocols.homomorphic.seal import DecryptionKey, EncryptionKey, require_seal

BOTH = pytest.mark.parametrize("name", SchemeName)


@BOTH
@given(clients=st.integers(1, 10_000), bound=st.integers(1, 2**24), length=st.integers(1, 2**28))
def test_every_choice_is_secure_and_has_room(name, clients, bound, length):
    try:
        scheme = choose_scheme(name, clients, bound, length)
    except NoParametersFit:
        assert name is SchemeName.CKKS
        assert clients * max(clients * bound, 2**15) > 2**25
        return
    modulus = math.prod(scheme.moduli)
    assert (modulus * scheme.special).bit_length() <= MOST_MODULUS_BITS
    assert len({*scheme.moduli, scheme.special}) == len(scheme.moduli) + 1
    assert scheme.slot_modulus**scheme.tags >= 2**80
    assert scheme.tags >= 5
    assert is_prime(scheme.slot_modulus)
    assert 2 * clients * bound < scheme.slot_modulus < 2**46  # a sum is known by its residue
    coefficients = scheme.ciphertexts(length) * DEGREE
    if name is SchemeName.BFV:
        slot, scale = scheme.moduli
        assert (2 * clients * bound + 1) ** scheme.digits <= slot == scheme.slot_modulus
        # Of p's steps, the noise takes a quarter, SEAL's rounding to 8p steps at most 3/16, and half of one is wrong.
        assert bfv_noise(clients, coefficients) / scale + 1.5 * slot / scheme.plain_modulus <= 7 / 16
    else:
        assert ckks_error(clients, coefficients) <= scheme.scale / 4
        assert 2 * math.sqrt(2) * scheme.scale * clients * scheme.slot_modulus / 2 < modulus


@BOTH
def test_the_table_of_the_standard_is_kept_by_seal_too(name):
    seal = require_seal()
    scheme = choose_scheme(name, 100, 2**15, 10**6)
    DecryptionKey(scheme)  # refuses parameters below 128 bits
    assert seal.CoeffModulus.MaxBitCount(DEGREE, seal.SEC_LEVEL_TYPE.TC128) == MOST_MODULUS_BITS
    own = [m.value() for m in seal.CoeffModulus.Create(DEGREE, [m.bit_length() for m in scheme.moduli])]
    assert sorted(own) == sorted(scheme.moduli)


def test_primes():
    assert [n for n in range(60) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]
    # Strong pseudoprimes to the first bases (OEIS A014233), and 2^61 - 1.
    assert not any(map(is_prime, (2047, 1373653, 25326001, 3215031751, 2152302898747, 3474749660383, 341550071728321)))
    assert is_prime(2**61 - 1)
    assert prime_from(2) == 2
    assert prime_from(65536) == 65537


@BOTH
def test_what_cannot_be_exact_is_refused(name):
    with pytest.raises(NoParametersFit, match="coarser"):
        choose_scheme(name, 10_000, 2**40, 10)
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(BadParameter, match="at least 1"):
            choose_scheme(name, *wrong)


@BOTH
@settings(max_examples=10, deadline=None)
@given(clients=st.integers(1, 60), exponent=st.integers(0, 20), sign=st.sampled_from((-1, 1)))
def test_the_largest_sums_come_out_exactly(name, clients, exponent, sign):
    bound = 2**exponent
    try:
        scheme = choose_scheme(name, clients, bound, DEGREE)
    except NoParametersFit:
        return
    key = DecryptionKey(scheme)
    slots = np.full((1, DEGREE), sign * bound if name is SchemeName.CKKS else (scheme.slot_modulus - 1) // clients)
    encryption = EncryptionKey(scheme, key.public_key)
    total = encryption.encrypt(slots)
    for _ in range(clients - 1):
        add_residues(total, encryption.encrypt(slots), scheme.moduli)
    np.testing.assert_array_equal(key.decrypt(total), clients * slots)


@BOTH
def test_the_measured_error_is_below_the_bound_and_not_far_below(name):
    """Fixed sizes; the bounds hold except with probability 2^-40, and are within 60 times of what one sees."""
    scheme = choose_scheme(name, 100, 2**15, DEGREE)
    key, seal = DecryptionKey(scheme), require_seal()
    encryption = EncryptionKey(scheme, key.public_key)
    total = encryption.encrypt(np.zeros((1, DEGREE), np.int64))
    for _ in range(99):
        add_residues(total, encryption.encrypt(np.zeros((1, DEGREE), np.int64)), scheme.moduli)
    engine = key._engine
    cipher = engine.load(seal.Ciphertext(engine.context), key._description, total[0])
    if name is SchemeName.BFV:
        budget = key._decryptor.invariant_noise_budget(cipher)  # log2(q / (2 t · noise)), rounded down
        noise = math.prod(scheme.moduli) / (2 * scheme.plain_modulus) / 2.0**budget
        assert noise / 60 < bfv_noise(100, DEGREE)
        assert noise / 2 < bfv_noise(100, DEGREE)
        assert budget >= 1
        return
    plain = seal.Plaintext()
    key._decryptor.decrypt(cipher, plain)
    error = np.abs(np.array(engine.encoder.decode_complex(plain)).real).max()
    bound = ckks_error(100, DEGREE) / scheme.scale
    assert bound / 60 < error < bound < GRID_TOLERANCE
