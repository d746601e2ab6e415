"""Primitives against published vectors, and what the key schedule separates."""

import hmac
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from securekd_protocols.errors import LowOrderPoint, NonCanonicalKey, TamperedShare
from securekd_protocols.keys import (
    AgreementKey,
    Binding,
    Identity,
    Label,
    check_canonical,
    check_order,
    derive,
    input_tag,
    input_tag_holds,
    message_tag,
    seal,
    signature_holds,
    unseal,
)
from securekd_protocols.randomness import InsecureSeededRandomness, KeystreamRandomness
from securekd_protocols.ring import Mask, Ring, apply_masks

WORD = Ring(32).word

VECTORS = Path(__file__).parents[1] / "vectors"
BINDING = Binding(b"s" * 32, b"t" * 32)


def published(name):
    return json.loads((VECTORS / name).read_text())["vectors"]


@pytest.mark.parametrize("case", published("primitive-x25519.json"))
def test_x25519(case):
    key = AgreementKey(bytes.fromhex(case["scalar"]))
    assert key.agree(bytes.fromhex(case["point"])).hex() == case["result"]


@pytest.mark.parametrize("case", published("primitive-hkdf-sha256.json"))
def test_hkdf(case):
    secret, salt, info, result = (bytes.fromhex(case[name]) for name in ("secret", "salt", "info", "result"))
    assert HKDF(SHA256(), len(result), salt, info).derive(secret) == result
    assert slow_hkdf(secret, salt, info, len(result)) == result


def slow_hkdf(secret, salt, info, size):
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    block, output = b"", b""
    for counter in range(1, 2 + size // 32):
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        output += block
    return output[:size]


def test_derive_is_hkdf_with_session_as_salt_and_everything_else_in_the_info():
    info = b"securekd-protocols/1 pair mask\0" + b"s" * 32 + b"t" * 32 + b"\x03\x00\x05\x01"
    derived = derive(b"k" * 32, Label.PAIR_MASK, BINDING, 3, 261, size=32)
    assert derived == slow_hkdf(b"k" * 32, b"s" * 32, info, 32)


@pytest.mark.parametrize("case", published("primitive-aes-gcm.json"))
def test_masks_are_the_keystream_of_gcm_read_as_little_endian_words(case):
    words = np.zeros(len(case["plaintext"]) // 8, WORD)
    apply_masks(words, [Mask(bytes.fromhex(case["key"]), bytes.fromhex(case["nonce"]), False)])
    plaintext, ciphertext = (np.frombuffer(bytes.fromhex(case[name]), WORD) for name in ("plaintext", "ciphertext"))
    assert (words == plaintext ^ ciphertext).all()


@pytest.mark.parametrize("case", published("primitive-ed25519.json"))
def test_identities_are_ed25519(case):
    identity = Identity(bytes.fromhex(case["private"]))
    signature = identity.sign(bytes.fromhex(case["message"]))
    assert (identity.public.hex(), signature.hex()) == (case["public"], case["signature"])
    assert signature_holds(identity.public, signature, b"")
    assert not signature_holds(identity.public, signature, b"x")
    assert not signature_holds(bytes(31), signature, b"")


LOW_ORDER = [  # every u that gives zero: 0, 1, the two points of order 8, p - 1, and p, p + 1 (which are not reduced)
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
]


@pytest.mark.parametrize("u", LOW_ORDER)
def test_low_order_points_are_refused(u):
    point = u.to_bytes(32, "little")
    with pytest.raises(LowOrderPoint):
        check_order(point)
    with pytest.raises(LowOrderPoint):
        AgreementKey(b"k" * 32).agree(point)


@pytest.mark.parametrize("u", [2**255 - 19, 2**255 - 18, 2**255 + 9, 2**256 - 1])
def test_second_spellings_are_refused(u):
    with pytest.raises(NonCanonicalKey):
        check_canonical(u.to_bytes(32, "little"))


def test_no_label_begins_another():
    labels = [label.value for label in Label]
    assert not any(a != b and b.startswith(a) for a in labels for b in labels)


def test_private_parts_are_not_shown():
    key = b"\x5a" * 32
    for shown in (Identity(key), AgreementKey(key), Mask(key[:16], key[16:], False)):
        assert "ZZ" not in repr(shown)


def test_boxes_open_for_their_one_recipient_session_and_direction():
    random = InsecureSeededRandomness(b"box")
    sealed = seal(b"k" * 32, BINDING, 1, 2, b"shares", random)
    assert unseal(b"k" * 32, BINDING, 1, 2, sealed) == b"shares"
    for secret, binding, sender, recipient, box in [
        (b"K" * 32, BINDING, 1, 2, sealed),
        (b"k" * 32, Binding(b"S" * 32, b"t" * 32), 1, 2, sealed),
        (b"k" * 32, Binding(b"s" * 32, b"T" * 32), 1, 2, sealed),
        (b"k" * 32, BINDING, 2, 1, sealed),
        (b"k" * 32, BINDING, 1, 3, sealed),
        (b"k" * 32, BINDING, 1, 2, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (b"k" * 32, BINDING, 1, 2, sealed[:5]),
        (b"k" * 32, BINDING, 1, 2, b""),
    ]:
        with pytest.raises(TamperedShare):
            unseal(secret, binding, sender, recipient, box)


def test_an_input_tag_is_gmac_and_of_one_vector_session_and_client(monkeypatch):
    secret, binding, words = b"s" * 32, Binding(b"i" * 32, b"t" * 32), bytes(range(100))
    key = derive(secret, Label.INPUT_TAG, binding, 3, size=32)
    tag = input_tag(secret, binding, 3, words)
    assert tag == AESGCM(key).encrypt(bytes(12), b"", words)
    monkeypatch.setattr("securekd_protocols.keys._TAGGED_AT_ONCE", 24)  # as the longest vectors are: in pieces
    assert tag == input_tag(secret, binding, 3, memoryview(words))
    assert input_tag_holds(tag, secret, binding, 3, words)
    for other in (
        (secret, binding, 3, words[:-1] + b"x"),
        (secret, binding, 4, words),
        (secret, Binding(b"i" * 32, b"u" * 32), 3, words),
        (b"u" * 32, binding, 3, words),
    ):
        assert not input_tag_holds(tag, *other)


def test_a_message_tag_is_hmac_and_of_one_message_session_and_client():
    secret, binding, message = b"s" * 32, Binding(b"i" * 32, b"t" * 32), b"shares"
    tag = message_tag(secret, binding, 3, message)
    key = derive(secret, Label.MESSAGE_TAG, binding, 3, size=64)
    assert tag == hmac.digest(key, message, "sha512")
    others = [
        message_tag(secret, binding, 3, b"share"),
        message_tag(secret, binding, 4, message),
        message_tag(secret, Binding(b"j" * 32, b"t" * 32), 3, message),
        message_tag(secret, Binding(b"i" * 32, b"u" * 32), 3, message),
        message_tag(b"u" * 32, binding, 3, message),
    ]
    assert len({tag, *others}) == 6


def test_sources_give_what_is_asked_and_do_not_repeat():
    stream = KeystreamRandomness()
    assert len({stream(16) for _ in range(50)} | {KeystreamRandomness()(16) for _ in range(50)}) == 100
    seeded = InsecureSeededRandomness(b"a")
    assert [len(seeded(size)) for size in (0, 1, 32, 33)] == [0, 1, 32, 33]
    assert InsecureSeededRandomness(b"a")(40) == InsecureSeededRandomness(b"a")(40)
    assert InsecureSeededRandomness(b"a")(40) != InsecureSeededRandomness(b"b")(40)


def test_key_pairs_travel_between_processes():
    for key in (Identity(bytes(range(32))), AgreementKey(bytes(range(32)))):
        public = key.public
        assert pickle.loads(pickle.dumps(key)) == key
        assert pickle.loads(pickle.dumps(key)).public == public
