"""What a decryptor could learn beyond the sum: in BFV nothing, whatever its key; in CKKS single values.

In BFV the ciphertext that it is sent is an encryption of zero, which has nothing to do with the inputs, and their
blinded sum modulo p. In CKKS sums do not wrap around, and plaintexts are rounded; both tell single clients apart.
"""

import hashlib

import numpy as np
import pytest

from securekd_protocols.homomorphic import SchemeName, choose_scheme
from securekd_protocols.homomorphic.messages import Input, Open, parse_frame
from securekd_protocols.homomorphic.pads import add_pads, centred, no_pads, reduced
from securekd_protocols.homomorphic.residues import add_residues, decode_residues, encode_residues
from securekd_protocols.homomorphic.scheme import DEGREE
from securekd_protocols.homomorphic.seal import DecryptionKey, EncryptionKey
from tests.protocols.homomorphic.harness import Parties, parameters_of, parties


class Replayed:
    """An encryptor that gives encryptions of zero which SEAL has made before, one after the other."""

    def __init__(self, key, recorded):
        self._engine, self._recorded = key._engine, iter(recorded)

    def encrypt_zero(self, cipher):
        self._engine.load(cipher, *next(self._recorded))


def zeros_of(key, count):
    """Descriptions and residues of fresh encryptions of zero."""
    engine, made = key._engine, []
    for _ in range(count):
        cipher = engine.seal.Ciphertext(engine.context)
        key._encryptor.encrypt_zero(cipher)
        made.append(engine.residues_of(cipher, len(engine.scheme.moduli)))
    return made


def chosen_key(scheme):
    """A public key by a decryptor that wants to see noise: the first polynomial zero, the second a constant."""
    moduli = (*scheme.moduli, scheme.special)
    residues = np.zeros((1, 2, len(moduli), DEGREE), np.uint64)
    residues[:, 1] = 1
    return encode_residues(residues, moduli)


@pytest.mark.parametrize("honest", [True, False])
def test_bfv_shows_the_blinded_sum_and_nothing_of_its_summands(honest):
    scheme = choose_scheme(SchemeName.BFV, 3, 1000, 100)
    key = EncryptionKey(scheme, DecryptionKey(scheme).public_key if honest else chosen_key(scheme))
    zeros = zeros_of(key, 3)
    rng = np.random.default_rng(1)
    inputs = list(rng.integers(0, scheme.slot_modulus, (3, 1, DEGREE)))
    shift = rng.integers(0, scheme.slot_modulus, (1, DEGREE))
    others = [(inputs[1] + shift) % scheme.slot_modulus, (inputs[0] - shift) % scheme.slot_modulus, inputs[2]]
    totals = []
    for vectors in (inputs, others):
        key._encryptor = Replayed(key, zeros)
        total, *rest = (key.encrypt(vector) for vector in vectors)
        for one in rest:
            add_residues(total, one, scheme.moduli)
        totals.append(total)
    np.testing.assert_array_equal(*totals)
    key._encryptor = Replayed(key, zeros)
    bare = sum(key.encrypt(np.zeros((1, DEGREE), np.int64)).astype(object) for _ in range(3))
    bare[0, 0, 0] += sum(vector.astype(object) for vector in inputs)[0]
    assert (bare % np.array(scheme.moduli, object)[:, None] == totals[0]).all()


def test_receipts_say_nothing_of_ciphertexts():
    """A key that leaves ciphertexts few choices would let its maker try values until a plain digest fits."""
    made = parties(SchemeName.BFV)
    request = made.request()
    asked = Open.decode(parse_frame(request, made.parameters).body, made.parameters)
    for frame, receipt in zip(made.inputs, asked.receipts, strict=True):
        sent = Input.decode(parse_frame(frame, made.parameters).body)
        assert bytes(sent.salt) not in request
        assert receipt.digest == hashlib.sha256(sent.salt + bytes(sent.ciphertexts)).digest()
        assert receipt.digest != hashlib.sha256(sent.ciphertexts).digest()


def test_ckks_shows_a_curious_decryptor_single_values():
    """The integer sum tells how many blinded values wrapped around; where one client's could have, it was that one."""
    parameters = parameters_of(3, SchemeName.CKKS, vector_length=4000, magnitude=20_000)
    vectors = list(np.random.default_rng(1).integers(-20_000, 20_001, (3, 4000)))
    made = Parties(parameters, vectors)
    scheme, keys = parameters.scheme, made.decryptor._keys
    modulus, binding, pads = scheme.slot_modulus, keys.offer.binding(parameters), []
    for index, frame in enumerate(made.inputs):
        pad = no_pads(1)
        add_pads(pad, keys.agreement.agree(Input.decode(parse_frame(frame, parameters).body).agreement), binding, index)
        pads.append(reduced(scheme, pad)[0, :4000])
    asked = Open.decode(parse_frame(made.request(), parameters).body, parameters)
    seen = keys.decryption.decrypt(decode_residues(asked.ciphertexts, 1, scheme.moduli))[0, :4000]
    total = centred((seen - sum(pads)) % modulus, modulus)

    def wraps(value):
        return np.stack([(value + pad - centred((value + pad) % modulus, modulus)) // modulus for pad in pads])

    fewest = wraps(-parameters.bound)
    doubtful = wraps(parameters.bound) > fewest
    wrapped = (total + sum(pads) - seen) // modulus - fewest.sum(axis=0)
    told = right = 0
    for slot in np.flatnonzero(doubtful.sum(axis=0) == 1):
        client = int(doubtful[:, slot].argmax())
        limit = (modulus // 2 - int(pads[client][slot]) + parameters.bound) % modulus - parameters.bound
        told += 1
        right += (vectors[client][slot] > limit) == bool(wrapped[slot])
    assert told > 1000
    assert right == told
