"""Keys: who somebody is, what two clients share, and what is derived from it.

Identities are Ed25519 (RFC 8032) and outlive sessions; everything else is fresh in each session. Two X25519 key pairs
(RFC 7748) per client give pairwise secrets, and HKDF-SHA256 (RFC 5869) turns each secret into keys, with the session id
as salt and, in its info string, a label of its own for each use, the transcript hash, and the two clients' indices.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from securekd_protocols.errors import LowOrderPoint, NonCanonicalKey, TamperedShare
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.wire import Bytes

KEY_BYTES = 32
SIGNATURE_BYTES = 64
NONCE_BYTES = 12
SEAL_OVERHEAD = NONCE_BYTES + 16
TAG_BYTES = 16
_TAGGED_AT_ONCE = 1 << 28  # a vector can be 2^31 bytes long, one more than OpenSSL takes in one call
_FIELD_PRIME = 2**255 - 19


class Label(bytes, Enum):
    """Domain separation: what a hash, a key or a signature is for. No label is the beginning of another."""

    SESSION = b"securekd-protocols/1 session id\x00"
    COMMITMENTS = b"securekd-protocols/1 transcript commitments\x00"
    KEYS = b"securekd-protocols/1 transcript keys\x00"
    SHARERS = b"securekd-protocols/1 transcript sharers\x00"
    SURVIVORS = b"securekd-protocols/1 transcript survivors\x00"
    MESSAGE = b"securekd-protocols/1 message signature\x00"
    MESSAGE_TAG = b"securekd-protocols/1 message tag\x00"
    SEED_COMMITMENT = b"securekd-protocols/1 seed commitment\x00"
    GRAPH_COMMITMENT = b"securekd-protocols/1 graph commitment\x00"
    GRAPH_SEED = b"securekd-protocols/1 graph seed\x00"
    GRAPH_PLACE = b"securekd-protocols/1 graph place\x00"
    INPUT_TAG = b"securekd-protocols/1 input tag\x00"
    SHARE_BOX = b"securekd-protocols/1 share box\x00"
    PAIR_MASK = b"securekd-protocols/1 pair mask\x00"
    SELF_MASK = b"securekd-protocols/1 self mask\x00"
    HOMOMORPHIC_SESSION = b"securekd-protocols/1 homomorphic session id\x00"
    HOMOMORPHIC_MESSAGE = b"securekd-protocols/1 homomorphic message signature\x00"
    HOMOMORPHIC_KEY = b"securekd-protocols/1 homomorphic key digest\x00"
    TAG_COEFFICIENTS = b"securekd-protocols/1 tag coefficients\x00"
    SLOT_PADS = b"securekd-protocols/1 slot pads\x00"
    THRESHOLD_PART = b"securekd-protocols/1 threshold part\x00"


@dataclass(frozen=True)
class Binding:
    """The state of a session to which a derived key belongs.

    Attributes:
        session_id: 32 bytes.
        transcript: 32 bytes, the transcript hash at the stage where the key is used.
    """

    session_id: bytes
    transcript: bytes


@dataclass(frozen=True)
class Identity:
    """A long-lived Ed25519 key pair, by which others know a client or the server.

    Attributes:
        private: The 32-byte seed. It is not shown in `repr`.
    """

    private: bytes = field(repr=False)

    @classmethod
    def generate(cls, random_bytes: RandomBytes) -> Identity:
        """Draw a new identity; `random_bytes` is `os.urandom` outside tests."""
        return cls(random_bytes(KEY_BYTES))

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private)

    @cached_property
    def public(self) -> bytes:
        """The 32-byte public key, which others put on their roster."""
        return self._key.public_key().public_bytes_raw()

    def __reduce__(self) -> tuple[type[Identity], tuple[bytes]]:
        return Identity, (self.private,)  # what is cached can not be copied, and need not be

    def sign(self, message: bytes) -> bytes:
        """Sign a message; 64 bytes."""
        return self._key.sign(message)


def signature_holds(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the holder of `public` has signed `message`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class AgreementKey:
    """An X25519 key pair of one session.

    Attributes:
        private: The 32-byte scalar, clamped where `generate` made it. It is not shown in `repr`.
    """

    private: bytes = field(repr=False)

    @classmethod
    def generate(cls, random_bytes: RandomBytes) -> AgreementKey:
        """Draw a fresh key pair, and clamp it, so that each key has one private spelling."""
        return cls(_clamped(random_bytes(KEY_BYTES)))

    @property
    def is_clamped(self) -> bool:
        """Whether no bit is set that X25519 ignores, and all that it sets are."""
        return self.private == _clamped(self.private)

    @cached_property
    def _key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.private)

    @cached_property
    def public(self) -> bytes:
        """The 32-byte public key."""
        return self._key.public_key().public_bytes_raw()

    def __reduce__(self) -> tuple[type[AgreementKey], tuple[bytes]]:
        return AgreementKey, (self.private,)

    def agree(self, peer_public: bytes) -> bytes:
        """Compute the raw shared secret with a peer; it goes through HKDF before any use.

        Raises:
            LowOrderPoint: The shared secret is zero.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError as error:
            raise LowOrderPoint(
                f"public key {peer_public.hex()} has low order", "leave its owner out of the session"
            ) from error


_LOW_ORDER = frozenset(
    u.to_bytes(32, "little")
    for u in (
        0,
        1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
        _FIELD_PRIME - 1,
    )
)  # every reduced coordinate whose order divides 8, on the curve or its twist (RFC 7748, section 6.1)


def check_canonical(public: bytes) -> None:
    """Refuse a public key (32 bytes) that is a second spelling of another one.

    Raises:
        NonCanonicalKey: The coordinate is not below 2^255 − 19.
    """
    if int.from_bytes(public, "little") >= _FIELD_PRIME:
        raise NonCanonicalKey(f"public key {public.hex()} is not reduced", "leave its owner out of the session")


def check_order(public: bytes) -> None:
    """Refuse a reduced public key (32 bytes) with which no secret can be shared, whatever the own key is.

    Raises:
        LowOrderPoint: Every clamped scalar gives a zero secret with it.
    """
    if public in _LOW_ORDER:
        raise LowOrderPoint(f"public key {public.hex()} has low order", "leave its owner out of the session")


def derive(secret: bytes, label: Label, binding: Binding, *indices: int, size: int) -> bytes:
    """Derive `size` bytes for one use with HKDF-SHA256 (RFC 5869).

    Args:
        secret: Input key material: a raw X25519 secret or a seed.
        label: The use.
        binding: Session id (the salt) and transcript (part of the info string).
        *indices: The clients that the key is for, in the order that the use prescribes.
        size: Bytes wanted.

    Returns:
        The derived bytes.
    """
    info = label.value + binding.session_id + binding.transcript + b"".join(i.to_bytes(2, "little") for i in indices)
    return HKDF(SHA256(), size, binding.session_id, info).derive(secret)


def commit_to_seed(session_id: bytes, owner: int, seed: bytes) -> bytes:
    """Commit to a self-mask seed: SHA-256 over label, session id, owner and the 32 uniform bytes of the seed."""
    return hashlib.sha256(Label.SEED_COMMITMENT.value + session_id + owner.to_bytes(2, "little") + seed).digest()


def commit_to_reveal(session_id: bytes, owner: int, reveal: bytes) -> bytes:
    """Commit to a part of the graph seed: SHA-256 over label, session id, owner and 32 uniform bytes."""
    return hashlib.sha256(Label.GRAPH_COMMITMENT.value + session_id + owner.to_bytes(2, "little") + reveal).digest()


def message_tag(secret: bytes, binding: Binding, owner: int, message: bytes) -> bytes:
    """Authenticate a client's message towards the server with HMAC-SHA-512 (RFC 2104).

    Args:
        secret: The raw X25519 secret of the owner's share key and the server's session key.
        binding: Session, and transcript that the message carries.
        owner: Whose message it is.
        message: What a signature would be over.

    Returns:
        The tag, 64 bytes: as long as a signature.
    """
    return hmac.digest(derive(secret, Label.MESSAGE_TAG, binding, owner, size=SIGNATURE_BYTES), message, "sha512")


def input_tag(secret: bytes, binding: Binding, owner: int, words: Bytes) -> bytes:
    """Authenticate a masked input towards the server with GMAC (NIST SP 800-38D, section 3), under a one-time key.

    GMAC is AES-GCM with nothing to encrypt and the vector as associated data. Each key tags one vector, so that its
    nonce can be zero.

    Args:
        secret: The raw X25519 secret of the owner's share key and the server's session key.
        binding: Session, and transcript after the share stage; the key serves one vector.
        owner: Whose input it is.
        words: The masked vector as it travels.

    Returns:
        The tag, 16 bytes.
    """
    key = derive(secret, Label.INPUT_TAG, binding, owner, size=32)
    gmac = Cipher(algorithms.AES(key), modes.GCM(bytes(NONCE_BYTES))).encryptor()
    view = memoryview(words)
    for start in range(0, len(view), _TAGGED_AT_ONCE):
        gmac.authenticate_additional_data(view[start : start + _TAGGED_AT_ONCE])
    gmac.finalize()
    return gmac.tag


def input_tag_holds(tag: bytes, secret: bytes, binding: Binding, owner: int, words: Bytes) -> bool:
    """Whether a tag is the one that `input_tag` gives; takes the same time wherever the two differ."""
    return constant_time.bytes_eq(tag, input_tag(secret, binding, owner, words))


def seal(
    secret: bytes, binding: Binding, sender: int, recipient: int, plaintext: bytes, random_bytes: RandomBytes
) -> bytes:
    """Encrypt shares from one client to another with AES-256-GCM (NIST SP 800-38D).

    The key serves one direction of one pair in one session. The nonce is random all the same, so that a client which
    is restored from an old state and draws new shares does not encrypt twice under one nonce.

    Returns:
        Nonce (12 bytes), ciphertext, tag (16 bytes).
    """
    key, associated = _box_key(secret, binding, sender, recipient)
    nonce = random_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, associated)


def unseal(secret: bytes, binding: Binding, sender: int, recipient: int, sealed: bytes) -> bytes:
    """Decrypt what `seal` made.

    Raises:
        TamperedShare: It was changed, moved, or made for another session, transcript, sender or recipient.
    """
    key, associated = _box_key(secret, binding, sender, recipient)
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except (InvalidTag, ValueError) as error:
        raise TamperedShare(
            f"the shares from client {sender} to client {recipient} do not authenticate",
            "end the session and start anew without whoever changed them",
        ) from error


def _clamped(scalar: bytes) -> bytes:
    """Set and clear the bits that X25519 prescribes (RFC 7748, section 5, decodeScalar25519)."""
    return bytes([scalar[0] & 248]) + scalar[1:31] + bytes([scalar[31] & 127 | 64])


def _box_key(secret: bytes, binding: Binding, sender: int, recipient: int) -> tuple[bytes, bytes]:
    ends = sender.to_bytes(2, "little") + recipient.to_bytes(2, "little")
    associated = Label.SHARE_BOX.value + binding.session_id + binding.transcript + ends
    return derive(secret, Label.SHARE_BOX, binding, sender, recipient, size=32), associated
