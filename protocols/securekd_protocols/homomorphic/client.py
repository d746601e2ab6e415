"""The client of a homomorphic session: it checks, encrypts once, signs, and is done.

    client = HomomorphicClient(identity, policy)
    client.receive(invitation)                # checks the invitation against the policy
    client.submit(vector)                     # once, before the key comes
    replies = client.receive(key)             # encrypts under the decryptor's key; client.state is then SENT

A message that is refused leaves the client as it was. The vector and the client's session key are let go of once the
input is encrypted, so a client can not be made to encrypt two vectors under one pad.
"""

from __future__ import annotations

import os
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import (
    CallOutOfOrder,
    OutOfOrder,
    SecondInput,
    UnknownSender,
)
from securekd_protocols.homomorphic.key import KeyOffer
from securekd_protocols.homomorphic.messages import (
    DECRYPTOR,
    SALT_BYTES,
    Frame,
    Input,
    Kind,
    accept_invitation,
    authenticate,
    parse_frame,
    seal_frame,
)
from securekd_protocols.homomorphic.packing import pack
from securekd_protocols.homomorphic.pads import add_pads, no_pads, reduced, seal_slots, tag_coefficients
from securekd_protocols.homomorphic.parameters import HomomorphicParameters, HomomorphicPolicy
from securekd_protocols.homomorphic.residues import encode_residues
from securekd_protocols.homomorphic.seal import EncryptionKey
from securekd_protocols.keys import AgreementKey, Identity
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.ring import check_vector
from securekd_protocols.turns import TakesTurns, in_turn
from securekd_protocols.wire import Bytes


class HomomorphicClientState(Enum):
    """Where a client stands."""

    INVITED = "invited"
    ACCEPTED = "accepted"
    SENT = "sent"


class HomomorphicClient(TakesTurns):
    """One client in one session.

    Args:
        identity: Its long-lived signing key.
        policy: What it insists on.
        random_bytes: Where its session key comes from. (SEAL draws the randomness of encryption from the operating
            system by itself.)
    """

    def __init__(
        self, identity: Identity, policy: HomomorphicPolicy, *, random_bytes: RandomBytes = os.urandom
    ) -> None:
        super().__init__()
        self._identity = identity
        self._policy = policy
        self._random = random_bytes
        self._state = HomomorphicClientState.INVITED
        self._parameters: HomomorphicParameters | None = None
        self._vector: NDArray[np.int64] | None = None

    @property
    def state(self) -> HomomorphicClientState:
        """Where this client stands."""
        return self._state

    @property
    def parameters(self) -> HomomorphicParameters:
        """What was agreed on by accepting the invitation, or `CallOutOfOrder` before."""
        if self._parameters is None:
            raise CallOutOfOrder("no invitation has been accepted", "pass the server's invitation to receive() first")
        return self._parameters

    @in_turn
    def submit(self, vector: NDArray[np.signedinteger] | NDArray[np.unsignedinteger]) -> None:
        """Give the input, once, after the invitation and before the key.

        Args:
            vector: Integers of shape (vector_length,), each within ±(magnitude + noise tail). It is copied.

        Raises:
            SecondInput: An input was given before. A vector that is refused does not count.
            NotIntegers, WrongLength, ValueOutOfRange: See `ring.check_vector`.
            CallOutOfOrder: No invitation has been accepted.
        """
        parameters = self.parameters
        if self._vector is not None or self._state is HomomorphicClientState.SENT:
            raise SecondInput("this session already has its input", "use a new session for another vector")
        self._vector = check_vector(vector, parameters.vector_length, parameters.bound).astype(np.int64)

    @in_turn
    def receive(self, data: Bytes) -> list[bytes]:
        """Take one message; give what is to be sent to the server.

        Raises:
            RemoteProtocolError: The message is refused, and nothing has changed.
            UnknownClient: The invitation does not name this client.
            TooManyRestarts: This client has accepted as many invitations for the round as its policy allows.
            CallOutOfOrder: The key has come and no input was submitted: submit it, and pass the key again.
            SchemeUnavailable: TenSEAL is not installed.
        """
        frame = parse_frame(data, self._parameters)
        if self._parameters is None:
            return self._accept(frame)
        authenticate(frame, self._parameters)
        if frame.kind is not Kind.KEY or self._state is not HomomorphicClientState.ACCEPTED:
            raise OutOfOrder(f"{frame.kind.name} while {self._state.value}", "drop it")
        if frame.sender != DECRYPTOR:
            raise UnknownSender(f"a key from {frame.sender}, not from the decryptor", "drop it")
        if self._vector is None:
            raise CallOutOfOrder("the key has come and there is no input", "submit() it, then pass the key again")
        return [self._encrypt(self._parameters, self._vector, frame)]

    def _accept(self, frame: Frame) -> list[bytes]:
        parameters = accept_invitation(frame, self._policy)
        self._policy.local.accept(parameters, parameters.index_of(self._identity.public))
        self._parameters = parameters
        self._state = HomomorphicClientState.ACCEPTED
        return []

    def _encrypt(self, parameters: HomomorphicParameters, vector: NDArray[np.int64], frame: Frame) -> bytes:
        offer = KeyOffer.decode(frame.body, parameters)
        scheme, index, binding = (
            parameters.scheme,
            parameters.index_of(self._identity.public),
            offer.binding(parameters),
        )
        own = AgreementKey.generate(self._random)
        pads = no_pads(parameters.ciphertexts)
        add_pads(pads, own.agree(offer.agreement), binding, index)
        slots = seal_slots(scheme, pack(scheme, vector), tag_coefficients(scheme, binding), reduced(scheme, pads))
        residues = EncryptionKey(scheme, offer.public_key).encrypt(slots)
        data = encode_residues(residues, scheme.moduli)
        self._vector, self._state = None, HomomorphicClientState.SENT
        message = Input.of(own.public, self._random(SALT_BYTES), data)
        return seal_frame(Kind.INPUT, index, parameters.session_id, message.encode(), self._identity)
