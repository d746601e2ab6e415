"""The decryptor's key as it travels, and what is bound to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from securekd_protocols.errors import NotAPublicKey
from securekd_protocols.homomorphic.parameters import HomomorphicParameters
from securekd_protocols.keys import KEY_BYTES, Binding, Label, check_canonical, check_order
from securekd_protocols.wire import Bytes


@dataclass(frozen=True)
class KeyOffer:
    """Decryptor to clients: its keys of this session.

    Attributes:
        agreement: X25519, for the pads of slots and tags, 32 bytes.
        public_key: The encryption key's residues, as `residues.encode_residues` writes them.
    """

    agreement: bytes
    public_key: Bytes

    def encode(self) -> bytes:
        """Both, one behind the other."""
        return b"".join((self.agreement, self.public_key))

    @classmethod
    def decode(cls, body: Bytes, parameters: HomomorphicParameters) -> KeyOffer:
        """Read a body.

        Raises:
            NotAPublicKey: Another number of bytes. What is longer may carry a secret key, and is not looked at.
            NonCanonicalKey, LowOrderPoint: An agreement key that is no good.
        """
        size = KEY_BYTES + parameters.scheme.public_key_bytes
        if len(body) != size:
            raise NotAPublicKey(
                f"key material of {len(body)} bytes where a public key of this session has {size}",
                "never send a context: send what DecryptionKey.public_key gives"
                + ("; if this held a secret key, consider it public from now on" if len(body) > size else ""),
            )
        agreement = bytes(body[:KEY_BYTES])
        check_canonical(agreement)
        check_order(agreement)
        return cls(agreement, body[KEY_BYTES:])

    def binding(self, parameters: HomomorphicParameters) -> Binding:
        """What tags and pads are bound to: this session, and this key."""
        digest = hashlib.sha256(Label.HOMOMORPHIC_KEY.value + self.encode()).digest()
        return Binding(parameters.session_id, digest)
