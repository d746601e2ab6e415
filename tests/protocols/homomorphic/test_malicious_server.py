"""What a server can do to ciphertexts without a key, done with SEAL's own evaluator: nothing of it is opened.

Whoever can add ciphertexts and multiply them by public polynomials can try to single a client out. Pads and tags stand
against that; each of these attacks gives the server a single client's vector, or part of it, where they are missing.
"""

import numpy as np
import pytest

from securekd_protocols.errors import NotTheSurvivorsSum, SumOffGrid
from securekd_protocols.homomorphic import SchemeName
from securekd_protocols.homomorphic.messages import Input, Kind, Open, parse_frame
from securekd_protocols.homomorphic.residues import add_residues, decode_residues, encode_residues
from securekd_protocols.homomorphic.scheme import DEGREE
from tests.protocols.homomorphic.harness import parties

BOTH = pytest.mark.parametrize("name", SchemeName)
REFUSED = (NotTheSurvivorsSum, SumOffGrid)


def ciphertexts_of(made):
    scheme = made.parameters.scheme
    return [
        decode_residues(Input.decode(parse_frame(frame, made.parameters).body).ciphertexts, 1, scheme.moduli)
        for frame in made.inputs
    ]


def ask(made, residues):
    """Ask the decryptor to open something else than the sum, with everybody's genuine receipts."""
    asked = Open.decode(parse_frame(made.request(), made.parameters).body, made.parameters)
    body = Open(asked.receipts, encode_residues(residues, made.parameters.scheme.moduli)).encode()
    return made.decryptor.receive(made.signed_by_server(Kind.OPEN, body))


def added(made, *parts):
    total = parts[0].copy()
    for part in parts[1:]:
        add_residues(total, part, made.parameters.scheme.moduli)
    return total


def times_monomial(residues, moduli, power):
    """Multiply a BFV ciphertext by X^power, which any server can do, and which adds no noise."""
    rolled = np.roll(residues, power, axis=-1)
    for index, prime in enumerate(moduli):
        head = rolled[:, :, index, :power]
        head[...] = (prime - head) % prime
    return rolled


@BOTH
def test_the_honest_sum_is_opened(name):
    made = parties(name)
    (reply,) = ask(made, added(made, *ciphertexts_of(made)))
    made.server.receive(reply)
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors))


@BOTH
@pytest.mark.parametrize("attack", ["one client alone", "one left out", "one doubled", "one subtracted", "one thrice"])
def test_no_other_sum_is_opened(name, attack):
    made = parties(name)
    first, *rest = ciphertexts_of(made)
    moduli = np.array(made.parameters.scheme.moduli, np.uint64)[:, None]
    negative = (moduli - rest[0]) % moduli
    chosen = {
        "one client alone": [first],
        "one left out": rest,
        "one doubled": [first, first, *rest],
        "one subtracted": [first, negative, *rest[1:]],
        "one thrice": [first, first, first],
    }[attack]
    with pytest.raises(REFUSED):
        ask(made, added(made, *chosen))


def test_multiplied_by_a_monomial():
    made = parties(SchemeName.BFV)
    first, *rest = ciphertexts_of(made)
    moduli = made.parameters.scheme.moduli
    for power in (1, 2048):
        made = parties(SchemeName.BFV)
        first, *rest = ciphertexts_of(made)
        with pytest.raises(REFUSED):
            ask(made, added(made, first, *(times_monomial(one, moduli, power) for one in rest)))


def test_others_slots_erased_by_a_public_mask():
    """Multiply everybody else by a plaintext that is 0 in the values' slots and 1 in the tags': only one remains.

    In CKKS; no polynomial does that to the coefficients that BFV's slots are.
    """
    made = parties(SchemeName.CKKS)
    scheme = made.parameters.scheme
    keys = made.decryptor._keys.decryption
    engine, seal = keys._engine, keys._engine.seal
    mask = np.zeros(DEGREE, np.int64)
    mask[scheme.entries :] = 1
    plain = seal.Plaintext()
    engine.encoder.encode((mask[: DEGREE // 2] + 1j * mask[DEGREE // 2 :]).tolist(), 2.0**14, plain)
    evaluator = seal.Evaluator(engine.context)
    first, *rest = ciphertexts_of(made)
    masked = []
    for one in rest:
        cipher = engine.load(seal.Ciphertext(engine.context), keys._description, one[0])
        evaluator.multiply_plain_inplace(cipher, plain)
        masked.append(engine.residues_of(cipher, len(scheme.moduli))[1][None])
    with pytest.raises(REFUSED):
        ask(made, added(made, first, *masked))


@pytest.mark.parametrize("clients", [4, 40])
def test_a_multiple_of_the_slot_modulus_tells_nothing(clients):
    """In CKKS a server can add p times one ciphertext, which no tag sees: what is opened is the sum all the same."""
    made = parties(SchemeName.CKKS, clients, magnitude=3)
    first, *rest = ciphertexts_of(made)
    scheme = made.parameters.scheme
    times_p = first.astype(object) * scheme.slot_modulus % np.array(scheme.moduli, object)[:, None]
    try:
        (reply,) = ask(made, added(made, first, *rest, times_p.astype(np.uint64)))
    except REFUSED:
        return  # the error, times p, was too large
    made.server.receive(reply)
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors))


def test_a_multiple_of_the_slot_modulus_is_noise_in_bfv():
    made = parties(SchemeName.BFV)
    first, *rest = ciphertexts_of(made)
    scheme = made.parameters.scheme
    times_p = first.astype(object) * scheme.slot_modulus % np.array(scheme.moduli, object)[:, None]
    with pytest.raises(REFUSED):
        ask(made, added(made, first, *rest, times_p.astype(np.uint64)))


@pytest.mark.parametrize("power", [1, 2048, 4095])
def test_one_client_multiplied_by_a_polynomial(power):
    """Multiply a client by 1 + X^k, which moves its values over each other: it has its pads, and they do not cancel."""
    made = parties(SchemeName.BFV, 4, magnitude=1)
    first, *rest = ciphertexts_of(made)
    with pytest.raises(REFUSED):
        ask(made, added(made, first, times_monomial(first, made.parameters.scheme.moduli, power), *rest))


def test_one_slot_shifted_modulo_p():
    """A server can add to the residues modulo p what it likes; without adding to the tags it is told of it."""
    made = parties(SchemeName.BFV, 4)
    scheme = made.parameters.scheme
    total = added(made, *ciphertexts_of(made))
    total[0, 0, 0, 7] = (total[0, 0, 0, 7] + np.uint64(5)) % np.uint64(scheme.slot_modulus)
    with pytest.raises(NotTheSurvivorsSum):
        ask(made, total)


@BOTH
def test_a_refusal_keeps_no_key_alive(name):
    made = parties(name)
    with pytest.raises(REFUSED) as caught:
        ask(made, ciphertexts_of(made)[0])
    frame = caught.value.__traceback__
    while frame is not None:
        assert not any(type(one).__name__ in ("_Keys", "DecryptionKey") for one in frame.tb_frame.f_locals.values())
        frame = frame.tb_next
    assert caught.value.__context__ is None


@BOTH
def test_ciphertexts_of_two_chunks_exchanged(name):
    made = parties(name, vector_length=30_000)
    scheme = made.parameters.scheme
    count = made.parameters.ciphertexts
    assert count >= 2
    total = None
    for frame in made.inputs:
        ciphertexts = Input.decode(parse_frame(frame, made.parameters).body).ciphertexts
        one = decode_residues(ciphertexts, count, scheme.moduli)
        total = one.copy() if total is None else added(made, total, one)
    total[[0, 1]] = total[[1, 0]]
    with pytest.raises(NotTheSurvivorsSum):
        ask(made, total)
