"""The frame around every message: version, kind, sender, session, transcript, and what proves it the sender's.

    offset  size  field
         0     4  magic, "SKDA"
         4     1  version, 1
         5     1  kind (`messages.Kind`)
         6     2  sender: index on the roster, or 0xFFFF for the server
         8    32  session id
        40    32  transcript that the sender holds
        72     4  length L of the body
        76     L  body
    76 + L    64  Ed25519 signature over label ‖ SHA-256(everything before it; see below for masked inputs), or the tag

What a client tells the server alone once both have agreed on a secret carries an HMAC under it in the signature's
place: nobody else is to be convinced, and a tag costs a tenth of a verification. Both are over a hash since Ed25519
itself hashes twice, and with the slower SHA-512. Of a masked input, the hash takes in the header and the 16-byte GMAC
at the body's front, which authenticates the vector behind it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives import constant_time

from securekd_protocols.errors import BadSignature, MalformedMessage, UnknownSender, UnknownVersion
from securekd_protocols.keys import SIGNATURE_BYTES, TAG_BYTES, Binding, Identity, Label, message_tag, signature_holds
from securekd_protocols.messages import Kind, Limits
from securekd_protocols.parameters import SessionParameters
from securekd_protocols.wire import Bytes

MAGIC = b"SKDA"
VERSION = 1
SERVER = 0xFFFF
TAGGED = frozenset({Kind.SHARES, Kind.MASKED_INPUT, Kind.UNMASK})  # for the server alone, once keys are agreed on
_HEADER = struct.Struct("<4sBBH32s32sI")
HEADER_BYTES = _HEADER.size
OVERHEAD = HEADER_BYTES + SIGNATURE_BYTES
_SMALL_BODY = 256  # no frame inside another frame has a larger body
FRAME_IN_LIST = OVERHEAD + _SMALL_BODY
_PER_CLIENT = FRAME_IN_LIST + 4  # nothing that grows with the roster grows faster than a list of such frames

_RESEND = "drop the message and have it sent again"


@dataclass(frozen=True)
class Header:
    """What a frame says about its body.

    Attributes:
        kind: What the body is.
        sender: Index on the roster, or `SERVER`.
        session_id: 32 bytes.
        transcript: 32 bytes.
    """

    kind: Kind
    sender: int
    session_id: bytes
    transcript: bytes


@dataclass(frozen=True)
class Frame:
    """A frame taken apart; whether its signature or tag holds is not yet known.

    Attributes:
        header: As it stands.
        body: Encoding of the message, a view into the received bytes.
        digest: SHA-256 over header and body, or header and tag.
        proof: Signature or tag, 64 bytes.
    """

    header: Header
    body: memoryview
    digest: bytes
    proof: bytes


def seal_frame(header: Header, body: Bytes, identity: Identity) -> bytes:
    """Build and sign a frame of a kind that is not `TAGGED`.

    Args:
        header: What to say about the body.
        body: A message's encoding.
        identity: The sender's.

    Returns:
        The frame's bytes.
    """
    head = _head(header, len(body))
    return b"".join((head, body, identity.sign(_signed(_digest(header.kind, head, body)))))


def seal_tagged_frame(header: Header, body: tuple[Bytes, ...], secret: bytes) -> bytes:
    """Build a frame of a `TAGGED` kind.

    Args:
        header: What to say about the body.
        body: A message's encoding, in parts.
        secret: The raw X25519 secret of the client's share key and the server's session key.

    Returns:
        The frame's bytes.
    """
    head = _head(header, sum(memoryview(part).nbytes for part in body))
    return b"".join((head, *body, _tag(header, _digest(header.kind, head, body[0]), secret)))


def parse_frame(data: Bytes, limits: Limits) -> Frame:
    """Take a frame apart; cheap until the size is known to fit.

    Args:
        data: One whole frame.
        limits: The session's.

    Returns:
        The frame, not yet authenticated.

    Raises:
        MalformedMessage: No frame, or longer than any of its kind can be.
        UnknownVersion: A frame of another version.
    """
    view = memoryview(data)
    if len(view) < OVERHEAD:
        raise MalformedMessage(f"{len(view)} bytes, fewer than any frame's {OVERHEAD}", _RESEND)
    magic, version, kind_byte, sender, session_id, transcript, length = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise MalformedMessage(f"a frame that begins with {bytes(magic)!r}, not {MAGIC!r}", _RESEND)
    if version != VERSION:
        raise UnknownVersion(f"version {version}, and only {VERSION} is known", "use the same release on both sides")
    try:
        kind = Kind(kind_byte)
    except ValueError as error:
        raise MalformedMessage(f"a frame of unknown kind {kind_byte}", _RESEND) from error
    if length != len(view) - OVERHEAD or length > body_cap(kind, limits):
        raise MalformedMessage(f"{kind.name}: a body of {length} bytes in a frame of {len(view)}", _RESEND)
    body = view[HEADER_BYTES : HEADER_BYTES + length]
    digest = _digest(kind, view[:HEADER_BYTES], body)
    return Frame(Header(kind, sender, session_id, transcript), body, digest, bytes(view[HEADER_BYTES + length :]))


def verify_frame(frame: Frame, parameters: SessionParameters) -> None:
    """Check that the named sender of a frame is on the roster (or is the server) and has signed it.

    Raises:
        UnknownSender: There is no such participant.
        BadSignature: The signature does not hold.
    """
    check_sender(frame.header, parameters.clients)
    sender = frame.header.sender
    public = parameters.server_public if sender == SERVER else parameters.roster[sender].public
    check_signature(frame, public)


def check_sender(header: Header, clients: int) -> None:
    """Check that a sender is the server or one of so many clients, or raise `UnknownSender`."""
    if header.sender != SERVER and header.sender >= clients:
        raise UnknownSender(f"no client has index {header.sender}", _RESEND)


def check_signature(frame: Frame, public: bytes) -> None:
    """Check that the holder of one Ed25519 key has signed a frame, or raise `BadSignature`."""
    _refuse_unless(signature_holds(public, frame.proof, _signed(frame.digest)), frame)


def check_tag(frame: Frame, secret: bytes) -> None:
    """Check that a frame's tag was made with a secret, in time that tells nothing, or raise `BadSignature`."""
    _refuse_unless(constant_time.bytes_eq(frame.proof, _tag(frame.header, frame.digest, secret)), frame)


def body_cap(kind: Kind, limits: Limits) -> int:
    """Largest body of a kind, in bytes."""
    if kind is Kind.MASKED_INPUT:
        return TAG_BYTES + limits.vector_bytes
    if kind in (Kind.COMMIT, Kind.ADVERTISE, Kind.CONSISTENCY):
        return _SMALL_BODY
    return _SMALL_BODY + _PER_CLIENT * limits.clients


def _digest(kind: Kind, head: Bytes, body: Bytes) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(body[:TAG_BYTES] if kind is Kind.MASKED_INPUT else body)
    return digest.digest()


def _head(header: Header, size: int) -> bytes:
    return _HEADER.pack(MAGIC, VERSION, header.kind, header.sender, header.session_id, header.transcript, size)


def _signed(digest: bytes) -> bytes:
    return Label.MESSAGE.value + digest


def _tag(header: Header, digest: bytes, secret: bytes) -> bytes:
    return message_tag(secret, Binding(header.session_id, header.transcript), header.sender, digest)


def _refuse_unless(genuine: bool, frame: Frame) -> None:
    if not genuine:
        raise BadSignature(
            f"{frame.header.kind.name} in the name of participant {frame.header.sender} does not come from it",
            "drop the message; check identity keys if it comes again",
        )
