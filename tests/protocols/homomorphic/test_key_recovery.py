"""Li and Micciancio 2021, section 3: who sees a raw CKKS decryption of a known ciphertext has the secret key.

An approximate decryption m̃ is c₀ + c₁·s + nothing: encoding it again gives back the very polynomial, so that
s = (encode(m̃) − c₀)/c₁. The attack is played against what SEAL decrypts, where it recovers the key, and against what
the decryptor releases, where it recovers nothing.
"""

import numpy as np

from securekd_protocols.homomorphic import SchemeName
from securekd_protocols.homomorphic.messages import Input, Kind, Open, parse_frame
from securekd_protocols.homomorphic.residues import decode_residues
from securekd_protocols.homomorphic.scheme import DEGREE
from tests.protocols.homomorphic.harness import parties


def session():
    """A session, the sum's one ciphertext as the server holds it, and the tools to look at it."""
    made = parties(SchemeName.CKKS)
    keys = made.decryptor._keys.decryption
    request = made.request()
    asked = Open.decode(parse_frame(request, made.parameters).body, made.parameters)
    total = decode_residues(asked.ciphertexts, 1, made.parameters.scheme.moduli)[0]
    return made, keys, request, total


def encode(keys, values, scale):
    """The residues of a plaintext, transformed, as SEAL encodes complex slots."""
    seal, engine = keys._engine.seal, keys._engine
    plain = seal.Plaintext()
    engine.encoder.encode(list(values), float(scale), plain)
    return np.array([plain.data(i) for i in range(DEGREE)], dtype=object)


def solve(total, encoded, prime):
    """s = (m − c0) / c1, coefficient by coefficient, since the transform turns products of polynomials into that."""
    c0, c1 = (total[i, 0].astype(object) for i in (0, 1))
    return [(m - a) * pow(int(b), -1, prime) % prime for m, a, b in zip(encoded, c0, c1, strict=True)]


def opens(made, keys, secret, frame):
    """Whether a supposed key decrypts a client's own ciphertext to its (blinded) slots, as the genuine key does."""
    prime = made.parameters.scheme.moduli[0]
    ciphertexts = Input.decode(parse_frame(frame, made.parameters).body).ciphertexts
    client = decode_residues(ciphertexts, 1, (prime,))
    truth = keys.decrypt(client)[0, : DEGREE // 2]
    c0, c1 = (client[0][i, 0].astype(object) for i in (0, 1))
    message = [(int(a) + int(b) * s) % prime for a, b, s in zip(c0, c1, secret, strict=True)]
    seal, engine = keys._engine.seal, keys._engine
    # A ciphertext (message, 0-like) is decrypted with any key: c1 = 0 is put in by hand, here where nobody refuses it.
    residues = np.zeros((2, 1, DEGREE), np.uint64)
    residues[0, 0] = np.array(message, dtype=np.uint64)
    plain = seal.Plaintext()
    keys._decryptor.decrypt(engine.load(seal.Ciphertext(engine.context), keys._description, residues), plain)
    slots = np.array(engine.encoder.decode_complex(plain))
    return bool((np.abs(slots.real - truth) < 0.5).all())


def test_a_raw_decryption_gives_the_key_away():
    made, keys, _, total = session()
    seal, engine, scheme = keys._engine.seal, keys._engine, made.parameters.scheme
    plain = seal.Plaintext()
    keys._decryptor.decrypt(engine.load(seal.Ciphertext(engine.context), keys._description, total), plain)
    raw = engine.encoder.decode_complex(plain)  # what a careless decryptor would hand out
    secret = solve(total, encode(keys, raw, scheme.scale), scheme.moduli[0])
    assert all(opens(made, keys, secret, frame) for frame in made.inputs)


def test_what_the_decryptor_releases_does_not():
    made, keys, request, total = session()
    scheme = made.parameters.scheme
    (reply,) = made.decryptor.receive(request)
    made.server.receive(reply)
    assert parse_frame(reply, made.parameters).kind is Kind.SUM
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors))
    # The server gets that sum alone. Grant it the blinded sum too, tags and all, exact as it would be on the grid.
    slots = keys.decrypt(total[None])[0]
    values = (slots[: DEGREE // 2] + 1j * slots[DEGREE // 2 :]).tolist()
    secret = solve(total, encode(keys, values, scheme.scale), scheme.moduli[0])
    assert not any(opens(made, keys, secret, frame) for frame in made.inputs)
