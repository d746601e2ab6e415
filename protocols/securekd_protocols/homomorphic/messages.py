"""The messages of a homomorphic session: one frame for all, and the bodies' encodings.

    offset  size  field
         0     4  magic, "SKDH"
         4     1  version, 1
         5     1  kind
         6     2  sender: index on the roster, 0xFFFF for the server, 0xFFFE for the decryptor
         8    32  session id
        40     4  length L of the body
        44     L  body
    44 + L    64  Ed25519 signature over label ‖ SHA-256(header ‖ body; of an input, the body's first 64 bytes)

An input's body is the client's agreement key, SHA-256(salt ‖ ciphertexts), the salt, and the ciphertexts. Its
signature covers the first two, so that the decryptor can verify a client's receipt without the ciphertexts, which it
must not see.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import (
    BadSignature,
    MalformedMessage,
    OutOfOrder,
    ReplayedMessage,
    UnknownSender,
    UnknownVersion,
)
from securekd_protocols.homomorphic.parameters import HomomorphicParameters, HomomorphicPolicy
from securekd_protocols.keys import KEY_BYTES, SIGNATURE_BYTES, Identity, Label, signature_holds
from securekd_protocols.parameters import LONGEST_NAME, MOST_CLIENTS
from securekd_protocols.wire import Bytes, Reader, Writer

MAGIC, VERSION = b"SKDH", 1
SERVER, DECRYPTOR = 0xFFFF, 0xFFFE
HASH_BYTES = 32
_HEADER = struct.Struct("<4sBBH32sI")
HEADER_BYTES = _HEADER.size
OVERHEAD = HEADER_BYTES + SIGNATURE_BYTES
_RECEIPT = struct.Struct(f"<H{KEY_BYTES}s{HASH_BYTES}s{SIGNATURE_BYTES}s")
SALT_BYTES = 32
_INPUT_FRONT = KEY_BYTES + HASH_BYTES
_LONGEST_INVITATION = 512 + MOST_CLIENTS * (4 + LONGEST_NAME + KEY_BYTES)
_RESEND = "drop the message and have it sent again"


class Kind(IntEnum):
    """What a message is, as the byte on the wire."""

    INVITATION = 0
    KEY = 1
    INPUT = 2
    OPEN = 3
    SUM = 4


@dataclass(frozen=True)
class Frame:
    """A frame taken apart; whether its signature holds is not yet known.

    Attributes:
        kind: What the body is.
        sender: Index on the roster, `SERVER` or `DECRYPTOR`.
        session_id: 32 bytes.
        body: A view into the received bytes.
        digest: What is signed, SHA-256.
        signature: 64 bytes.
    """

    kind: Kind
    sender: int
    session_id: bytes
    body: memoryview
    digest: bytes
    signature: bytes


def seal_frame(kind: Kind, sender: int, session_id: bytes, body: bytes, identity: Identity) -> bytes:
    """Build and sign a frame."""
    head = _HEADER.pack(MAGIC, VERSION, kind, sender, session_id, len(body))
    return b"".join((head, body, identity.sign(Label.HOMOMORPHIC_MESSAGE.value + _digest(kind, head, body))))


def parse_frame(data: Bytes, parameters: HomomorphicParameters | None) -> Frame:
    """Take a frame apart; cheap until the size is known to fit.

    Args:
        data: One whole frame, from anybody.
        parameters: The session's, or None before the invitation, when nothing but one is read.

    Raises:
        MalformedMessage: No frame, or not of the size that its kind has.
        UnknownVersion: A frame of another version.
    """
    view = memoryview(data)
    if len(view) < OVERHEAD:
        raise MalformedMessage(f"{len(view)} bytes, fewer than any frame's {OVERHEAD}", _RESEND)
    magic, version, kind_byte, sender, session_id, length = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise MalformedMessage(f"a frame that begins with {bytes(magic)!r}, not {MAGIC!r}", _RESEND)
    if version != VERSION:
        raise UnknownVersion(f"version {version}, and only {VERSION} is known", "use the same release on both sides")
    try:
        kind = Kind(kind_byte)
    except ValueError as error:
        raise MalformedMessage(f"a frame of unknown kind {kind_byte}", _RESEND) from error
    if length != len(view) - OVERHEAD or length > body_cap(kind, parameters):
        raise MalformedMessage(f"{kind.name}: a body of {length} bytes in a frame of {len(view)}", _RESEND)
    body = view[HEADER_BYTES : HEADER_BYTES + length]
    digest = _digest(kind, view[:HEADER_BYTES], body)
    return Frame(kind, sender, session_id, body, digest, bytes(view[HEADER_BYTES + length :]))


def body_cap(kind: Kind, parameters: HomomorphicParameters | None) -> int:
    """Largest body of a kind, in bytes."""
    if parameters is None:
        return _LONGEST_INVITATION if kind is Kind.INVITATION else 0
    return {
        Kind.INVITATION: len(parameters.encoded),
        Kind.KEY: 2 * (KEY_BYTES + parameters.scheme.public_key_bytes),  # room to tell what a longer one is
        Kind.INPUT: _INPUT_FRONT + SALT_BYTES + parameters.input_bytes,
        Kind.OPEN: 2 + parameters.clients * _RECEIPT.size + parameters.input_bytes,
        Kind.SUM: 2 + 2 * parameters.clients + 8 * parameters.vector_length,
    }[kind]


def authenticate(frame: Frame, parameters: HomomorphicParameters) -> None:
    """Check that a frame is of this session and signed by whom it names.

    Raises:
        ReplayedMessage: It is of another session.
        UnknownSender: There is no such participant.
        BadSignature: The signature does not hold.
    """
    if frame.session_id != parameters.session_id:
        raise ReplayedMessage(f"{frame.kind.name} of another session", "drop it")
    if frame.sender == SERVER:
        public = parameters.server_public
    elif frame.sender == DECRYPTOR:
        public = parameters.decryptor_public
    elif frame.sender < parameters.clients:
        public = parameters.roster[frame.sender].public
    else:
        raise UnknownSender(f"no client has index {frame.sender}", _RESEND)
    check_signature(frame, public)


def check_signature(frame: Frame, public: bytes) -> None:
    """Check that the holder of one Ed25519 key has signed a frame, or raise `BadSignature`."""
    if not signature_holds(public, frame.signature, Label.HOMOMORPHIC_MESSAGE.value + frame.digest):
        raise BadSignature(f"{frame.kind.name} in the name of {frame.sender} is not signed by it", "drop the message")


def accept_invitation(frame: Frame, policy: HomomorphicPolicy) -> HomomorphicParameters:
    """What client and decryptor do with their first message: read the parameters, if they come from the known server.

    Raises:
        OutOfOrder: It is no invitation by a server.
        BadSignature: The known server has not signed it.
        MalformedMessage: It is no encoding of parameters, or its session id is not their hash.
        ProtocolError: Parameters that are not safe, or not what the policy asks for.
    """
    if frame.kind is not Kind.INVITATION or frame.sender != SERVER:
        raise OutOfOrder(f"{frame.kind.name} from {frame.sender} before any invitation", "drop it")
    check_signature(frame, policy.local.server_public)
    parameters = HomomorphicParameters.decode(frame.body)
    if frame.session_id != parameters.session_id:
        raise MalformedMessage("an invitation whose session id is not the hash of its parameters", "drop it")
    policy.check(parameters)
    return parameters


@dataclass(frozen=True)
class Input:
    """Client to server: its encrypted vector.

    Attributes:
        agreement: Its X25519 key of this session, 32 bytes.
        digest: SHA-256 of salt and ciphertexts.
        salt: 32 fresh bytes, which the decryptor never sees: a digest without them would let it test guesses at what
            was encrypted, under a key that it has made for the purpose.
        ciphertexts: As `residues.encode_residues` writes them.
    """

    agreement: bytes
    digest: bytes
    salt: bytes
    ciphertexts: Bytes

    @classmethod
    def of(cls, agreement: bytes, salt: bytes, ciphertexts: Bytes) -> Input:
        """With the digest that belongs to the rest."""
        return cls(agreement, _salted(salt, ciphertexts), salt, ciphertexts)

    def encode(self) -> bytes:
        """Key, digest, salt, ciphertexts."""
        return b"".join((self.agreement, self.digest, self.salt, self.ciphertexts))

    @classmethod
    def decode(cls, body: Bytes) -> Input:
        """Read a body, or raise `MalformedMessage`; the digest is compared."""
        reader = Reader(body, "input")
        agreement, digest, salt = reader.fixed(KEY_BYTES), reader.fixed(HASH_BYTES), reader.fixed(SALT_BYTES)
        ciphertexts = reader.view(len(body) - _INPUT_FRONT - SALT_BYTES)
        if _salted(salt, ciphertexts) != digest:
            raise reader.malformed("ciphertexts that are not those that were signed")
        return cls(agreement, digest, salt, ciphertexts)


@dataclass(frozen=True)
class Receipt:
    """That a client has sent an input, for the decryptor: what it signed, without the ciphertexts.

    Attributes:
        client: Index on the roster.
        agreement: Its X25519 key of this session, 32 bytes.
        digest: SHA-256 of its salt and ciphertexts.
        signature: 64 bytes.
    """

    client: int
    agreement: bytes
    digest: bytes
    signature: bytes

    def check(self, parameters: HomomorphicParameters) -> None:
        """Verify the client's signature under its input, or raise `BadSignature`."""
        size = _INPUT_FRONT + SALT_BYTES + parameters.input_bytes
        head = _HEADER.pack(MAGIC, VERSION, Kind.INPUT, self.client, parameters.session_id, size)
        signed = Label.HOMOMORPHIC_MESSAGE.value + _digest(Kind.INPUT, head, self.agreement + self.digest)
        if not signature_holds(parameters.roster[self.client].public, self.signature, signed):
            raise BadSignature(f"the receipt of client {self.client} is not signed by it", "drop the message")


@dataclass(frozen=True)
class Open:
    """Server to decryptor: the sum to open, and whose inputs are in it.

    Attributes:
        receipts: In ascending order of clients.
        ciphertexts: The sum, as `residues.encode_residues` writes it.
    """

    receipts: tuple[Receipt, ...]
    ciphertexts: Bytes

    def encode(self) -> bytes:
        """Count, receipts, ciphertexts."""
        rows = [(one.client, one.agreement, one.digest, one.signature) for one in self.receipts]
        return Writer().rows(_RECEIPT, rows).fixed(self.ciphertexts).finish()

    @classmethod
    def decode(cls, body: Bytes, parameters: HomomorphicParameters) -> Open:
        """Read a body, or raise `MalformedMessage`; signatures are not checked."""
        reader = Reader(body, "open")
        receipts = tuple(Receipt(*row) for row in reader.rows(parameters.clients, _RECEIPT))
        reader.ascending([one.client for one in receipts], parameters.clients)
        message = cls(receipts, reader.view(parameters.input_bytes))
        reader.finish()
        return message


@dataclass(frozen=True, eq=False)
class HomomorphicSum:
    """Decryptor to server, and what a session yields.

    Attributes:
        total: Exact sum of the survivors' vectors, int64, shape (vector_length,).
        survivors: Indices of the clients in the sum, ascending.
    """

    total: NDArray[np.int64]
    survivors: tuple[int, ...]

    def encode(self) -> bytes:
        """A set of indices, and 8 bytes for each entry."""
        return Writer().indices(self.survivors).fixed(self.total.astype("<i8").tobytes()).finish()

    @classmethod
    def decode(cls, body: Bytes, parameters: HomomorphicParameters) -> HomomorphicSum:
        """Read a body, or raise `MalformedMessage`."""
        reader = Reader(body, "sum")
        survivors = reader.indices(parameters.clients)
        total = np.frombuffer(reader.view(8 * parameters.vector_length), "<i8").astype(np.int64)
        reader.finish()
        return cls(total, survivors)


def _salted(salt: bytes, ciphertexts: Bytes) -> bytes:
    digest = hashlib.sha256(salt)
    digest.update(ciphertexts)
    return digest.digest()


def _digest(kind: Kind, head: Bytes, body: Bytes) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(body[:_INPUT_FRONT] if kind is Kind.INPUT else body)
    return digest.digest()
