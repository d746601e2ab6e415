"""Ten thousand changed ciphertext messages: each is a named error, and the session goes on to the exact sum."""

import random

import numpy as np
import pytest

from securekd_protocols.errors import NotTheSurvivorsSum, ProtocolError, SumOffGrid
from securekd_protocols.homomorphic import SchemeName
from securekd_protocols.homomorphic.messages import SERVER, Input, Kind, Open, parse_frame, seal_frame
from securekd_protocols.homomorphic.scheme import DEGREE
from securekd_protocols.keys import KEY_BYTES
from tests.protocols.homomorphic.harness import IDENTITIES, OPERATOR, parties

BOTH = pytest.mark.parametrize("name", SchemeName)
MUTATIONS = 5_000  # for each scheme


def mutated(rng, data):
    """One to three changes: a bit, a byte, a cut, a repetition, an exchange, or another length."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        front = rng.random() < 0.5  # half of the changes hit the header and what is signed
        at = rng.randrange(min(200, len(changed)) if front else len(changed)) if changed else 0
        match rng.randrange(7):
            case 0 if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[at] = rng.randrange(256)
            case 2:
                del changed[at:]
            case 3:
                changed[at:at] = changed[: rng.randrange(300)]
            case 4 if changed:
                del changed[at : at + rng.randrange(1, 300)]
            case 5:
                changed[at : at + 64] = bytes(rng.randrange(256) for _ in range(64))
            case _:
                changed += bytes(rng.randrange(1, 9))
    return bytes(changed)


def signed_again(rng, made, sender):
    """A client's input with its digest or ciphertexts changed, and signed: what a malicious client can send."""
    body = bytes(parse_frame(made.inputs[sender], made.parameters).body)
    changed = body[:KEY_BYTES] + mutated(rng, body[KEY_BYTES:])
    return seal_frame(Kind.INPUT, sender, made.parameters.session_id, changed, IDENTITIES[sender])


@BOTH
def test_every_mutation_is_a_named_error(name):
    rng = random.Random(name.value)
    made = parties(name, vector_length=10)
    for number in range(MUTATIONS):
        sender = number % 4
        data = signed_again(rng, made, sender) if number % 3 == 0 else mutated(rng, made.inputs[sender])
        if data == made.inputs[sender]:
            continue
        with pytest.raises(ProtocolError):
            made.server.receive(data)
    outgoing = [out for frame in made.inputs for out in made.server.receive(frame)]
    request = outgoing[0].data
    for _ in range(MUTATIONS // 10):
        changed = mutated(rng, request)
        if changed != request:
            with pytest.raises(ProtocolError):
                made.decryptor.receive(changed)
    made.server.receive(*made.decryptor.receive(request))
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors))


def opened_or_refused(made, request):
    """Open a sum of changed ciphertexts: an error by name, or in BFV, whose low bits are noise, the sum itself."""
    try:
        (reply,) = made.decryptor.receive(request)
    except (NotTheSurvivorsSum, SumOffGrid) as error:
        return type(error)
    made.server.receive(reply)
    np.testing.assert_array_equal(made.server.result.total, sum(made.vectors))
    return None


@BOTH
def test_ciphertexts_that_a_server_has_changed_do_not_open_to_another_sum(name):
    """Well-formed, signed and wrong: this reaches SEAL."""
    rng, seen = np.random.default_rng(5), set()
    for bit in range(20):
        made = parties(name, vector_length=10)
        asked = Open.decode(parse_frame(made.request(), made.parameters).body, made.parameters)
        changed = bytearray(asked.ciphertexts)
        width = made.parameters.scheme.widths[0]
        changed[width * int(rng.integers(0, DEGREE)) + bit % (width - 1)] ^= 1
        body = Open(asked.receipts, bytes(changed)).encode()
        seen.add(opened_or_refused(made, seal_frame(Kind.OPEN, SERVER, made.parameters.session_id, body, OPERATOR)))
    assert NotTheSurvivorsSum in seen or name is SchemeName.CKKS
    assert None not in seen or name is SchemeName.BFV


@BOTH
def test_a_client_whose_ciphertexts_are_not_what_it_encrypted_ends_the_session_by_name(name):
    made = parties(name, vector_length=10)
    own = Input.decode(parse_frame(made.inputs[0], made.parameters).body)
    changed = bytearray(own.ciphertexts)
    changed[made.parameters.scheme.widths[0] - 2] ^= 1
    body = Input.of(own.agreement, own.salt, bytes(changed)).encode()
    made.inputs[0] = seal_frame(Kind.INPUT, 0, made.parameters.session_id, body, IDENTITIES[0])
    assert opened_or_refused(made, made.request()) is not None
