"""The decryptor: it holds the session's key, and opens one sum of enough clients' vectors, once.

    decryptor = Decryptor(identity, policy)
    replies = decryptor.receive(invitation)   # draws fresh keys; the reply goes to the server, and on to the clients
    replies = decryptor.receive(request)      # opens the sum that the server asks for; the key is then gone

It is neither the server nor an ordinary process of a client's. It gets signed receipts and one sum, no single client's
ciphertext. With BFV it learns what the server learns, the sum with its noise, even if it looks at all it has; with CKKS
it is trusted not to look (`protocols/HOMOMORPHIC.md`). Whatever is wrong with a request's signatures
leaves it as it was; once it has decrypted, the keys are gone, whether the tags held or not, so that nobody can try
twice. What it remembers beyond one session it remembers in the policy's diary: give it one.
"""

from __future__ import annotations

import os
from enum import Enum

from securekd_protocols.errors import (
    OutOfOrder,
    ProtocolError,
    SecondOpening,
    TooFewSurvivors,
    UnknownSender,
)
from securekd_protocols.homomorphic.key import KeyOffer
from securekd_protocols.homomorphic.messages import (
    DECRYPTOR,
    SERVER,
    Frame,
    HomomorphicSum,
    Kind,
    Open,
    accept_invitation,
    authenticate,
    parse_frame,
    seal_frame,
)
from securekd_protocols.homomorphic.packing import unpack
from securekd_protocols.homomorphic.pads import add_pads, no_pads, open_slots, reduced, tag_coefficients
from securekd_protocols.homomorphic.parameters import HomomorphicParameters, HomomorphicPolicy
from securekd_protocols.homomorphic.residues import Residues, decode_residues
from securekd_protocols.homomorphic.seal import DecryptionKey
from securekd_protocols.keys import AgreementKey, Identity, check_canonical, check_order
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.turns import TakesTurns, in_turn
from securekd_protocols.wire import Bytes


class DecryptorState(Enum):
    """Where a decryptor stands."""

    WAITING = "waiting for an invitation"
    READY = "ready to open"
    CLOSED = "closed"


class _Keys:
    """What a session's decryptor holds until it has opened."""

    def __init__(self, parameters: HomomorphicParameters, random_bytes: RandomBytes) -> None:
        self.agreement = AgreementKey.generate(random_bytes)
        self.decryption = DecryptionKey(parameters.scheme)
        self.offer = KeyOffer(self.agreement.public, self.decryption.public_key)


class Decryptor(TakesTurns):
    """One decryptor in one session.

    Args:
        identity: Its long-lived signing key, which clients know.
        policy: What it insists on; with a diary, cohorts that are too close to each other are refused.
        random_bytes: Where its agreement key comes from. (SEAL draws its keys from the operating system by itself.)
    """

    def __init__(
        self, identity: Identity, policy: HomomorphicPolicy, *, random_bytes: RandomBytes = os.urandom
    ) -> None:
        super().__init__()
        self._identity = identity
        self._policy = policy
        self._random = random_bytes
        self._state = DecryptorState.WAITING
        self._parameters: HomomorphicParameters | None = None
        self._keys: _Keys | None = None

    @property
    def state(self) -> DecryptorState:
        """Where this decryptor stands."""
        return self._state

    @in_turn
    def receive(self, data: Bytes) -> list[bytes]:
        """Take one message of the server; give what is to be sent to it.

        Raises:
            SecondOpening: A sum was opened before, or a try to open one has failed.
            TooFewSurvivors: Fewer receipts than the threshold.
            BadSignature: The server's, or that of a receipt.
            BadCiphertext, TransparentCiphertext: The sum is not one.
            NotTheSurvivorsSum, SumOffGrid: It does not open to the named clients' sum. The session is over.
            CohortRefused: The diary knows a cohort that is too close. The session is over.
            RemoteProtocolError: The message is refused for another reason, and nothing has changed.
            SchemeUnavailable: TenSEAL is not installed.
        """
        frame = parse_frame(data, self._parameters)
        if self._parameters is None:
            return self._accept(frame)
        authenticate(frame, self._parameters)
        if frame.sender != SERVER:
            raise UnknownSender(f"{frame.kind.name} from {frame.sender}, not from the server", "drop it")
        if frame.kind is not Kind.OPEN:
            raise OutOfOrder(f"{frame.kind.name} while {self._state.value}", "drop it")
        if self._keys is None:
            raise SecondOpening("this session's key has been used and is gone", "run a new session")
        return [self._open(self._parameters, self._keys, Open.decode(frame.body, self._parameters))]

    def _accept(self, frame: Frame) -> list[bytes]:
        parameters = accept_invitation(frame, self._policy)
        self._keys = _Keys(parameters, self._random)
        self._parameters, self._state = parameters, DecryptorState.READY
        return [self._send(parameters, Kind.KEY, self._keys.offer.encode())]

    def _open(self, parameters: HomomorphicParameters, keys: _Keys, request: Open) -> bytes:
        survivors = tuple(receipt.client for receipt in request.receipts)
        if len(survivors) < parameters.threshold:
            raise TooFewSurvivors(
                f"a sum of {len(survivors)}, and {parameters.threshold} are the fewest", "run the round again"
            )
        for receipt in request.receipts:
            receipt.check(parameters)
            check_canonical(receipt.agreement)
            check_order(receipt.agreement)
        residues = decode_residues(request.ciphertexts, parameters.ciphertexts, parameters.scheme.moduli)
        self._keys, self._state = None, DecryptorState.CLOSED  # from here on there is no second try
        try:
            if self._policy.local.diary is not None:
                cohort = frozenset(parameters.roster[index].name for index in survivors)
                self._policy.local.diary.sign(parameters.session_id, cohort)
            opened: HomomorphicSum | ProtocolError = _opened(parameters, keys, request, residues)
        except ProtocolError as error:
            opened = type(error)(error.what, error.remedy)  # raised below, with no frame in which the keys are kept
        del keys
        if isinstance(opened, ProtocolError):
            raise opened
        return self._send(parameters, Kind.SUM, opened.encode())

    def _send(self, parameters: HomomorphicParameters, kind: Kind, body: bytes) -> bytes:
        return seal_frame(kind, DECRYPTOR, parameters.session_id, body, self._identity)


def _opened(parameters: HomomorphicParameters, keys: _Keys, request: Open, residues: Residues) -> HomomorphicSum:
    scheme, binding = parameters.scheme, keys.offer.binding(parameters)
    pads = no_pads(parameters.ciphertexts)
    for receipt in request.receipts:
        add_pads(pads, keys.agreement.agree(receipt.agreement), binding, receipt.client)
    slots = keys.decryption.decrypt(residues)
    entries = open_slots(scheme, slots, tag_coefficients(scheme, binding), reduced(scheme, pads))
    total = unpack(scheme, entries, len(request.receipts), parameters.vector_length)
    return HomomorphicSum(total, tuple(receipt.client for receipt in request.receipts))
