"""The server of a homomorphic session: it adds ciphertexts, holds no secret, and has one sum opened.

    server = HomomorphicServer(parameters, identity)
    send server.invitation() to the decryptor and to everybody invited
    outgoing = server.receive(data)           # for each message that comes
    outgoing = server.close_phase()           # when the caller's patience is at its end
    server.result                             # once server.state is FINISHED

Ciphertexts are added as they come, so that memory does not grow with the number of clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from securekd_protocols.errors import (
    BadParameter,
    CallOutOfOrder,
    OutOfOrder,
    ReplayedMessage,
    SumOffGrid,
    TooFewSurvivors,
    TranscriptMismatch,
    UnknownSender,
)
from securekd_protocols.homomorphic.key import KeyOffer
from securekd_protocols.homomorphic.messages import (
    DECRYPTOR,
    SERVER,
    Frame,
    HomomorphicSum,
    Input,
    Kind,
    Open,
    Receipt,
    authenticate,
    parse_frame,
    seal_frame,
)
from securekd_protocols.homomorphic.packing import possible_sum
from securekd_protocols.homomorphic.parameters import HomomorphicParameters
from securekd_protocols.homomorphic.residues import Residues, add_residues, decode_residues, encode_residues
from securekd_protocols.keys import Identity, check_canonical, check_order
from securekd_protocols.turns import TakesTurns, in_turn
from securekd_protocols.wire import Bytes

_DROP = "drop the message"
_TELLING = 32  # bytes of a ciphertext in which no two agree


class HomomorphicServerState(Enum):
    """What a server is waiting for."""

    KEY = "the decryptor's key"
    INPUTS = "inputs"
    SUM = "the opened sum"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(frozen=True)
class Outgoing:
    """A message to send.

    Attributes:
        recipient: Index of a client on the roster, or `DECRYPTOR`.
        data: The frame.
    """

    recipient: int
    data: bytes


class HomomorphicServer(TakesTurns):
    """The server in one session.

    Args:
        parameters: What clients and decryptor are asked to agree on.
        identity: The signing key that belongs to `parameters.server_public`.

    Raises:
        BadParameter: It does not.
    """

    def __init__(self, parameters: HomomorphicParameters, identity: Identity) -> None:
        super().__init__()
        if identity.public != parameters.server_public:
            raise BadParameter(
                "the server's identity is not the one in the parameters", "pass the key that belongs there"
            )
        self.parameters = parameters
        self._identity = identity
        self._state = HomomorphicServerState.KEY
        self._receipts: dict[int, Receipt] = {}
        self._seen: set[bytes] = set()
        self._total: Residues | None = None
        self._result: HomomorphicSum | None = None

    @property
    def state(self) -> HomomorphicServerState:
        """What the server is waiting for."""
        return self._state

    @property
    def result(self) -> HomomorphicSum:
        """The opened sum, or `CallOutOfOrder` while there is none."""
        if self._result is None:
            raise CallOutOfOrder(f"no sum is open; the session is waiting for {self._state.value}", "go on")
        return self._result

    def invitation(self) -> bytes:
        """The frame that invites decryptor and clients."""
        return self._send(Kind.INVITATION, self.parameters.encoded)

    @in_turn
    def receive(self, data: Bytes) -> list[Outgoing]:
        """Take one message; give what is to be sent.

        Raises:
            SumOffGrid: The decryptor reports a sum that these clients' vectors can not have; nothing has changed.
            RemoteProtocolError: The message is refused, and nothing has changed.
        """
        frame = parse_frame(data, self.parameters)
        authenticate(frame, self.parameters)
        match (self._state, frame.kind):
            case (HomomorphicServerState.KEY, Kind.KEY):
                return self._take_key(frame, bytes(data))
            case (HomomorphicServerState.INPUTS, Kind.INPUT):
                return self._take_input(frame)
            case (HomomorphicServerState.SUM, Kind.SUM):
                return self._take_sum(frame)
        raise OutOfOrder(f"{frame.kind.name} while waiting for {self._state.value}", _DROP)

    @in_turn
    def close_phase(self) -> list[Outgoing]:
        """Wait for no more inputs.

        Raises:
            TooFewSurvivors: Fewer than the threshold have sent one; the session is over.
            CallOutOfOrder: The session is not waiting for inputs.
        """
        if self._state is not HomomorphicServerState.INPUTS:
            raise CallOutOfOrder(f"nothing to close while waiting for {self._state.value}", "go on")
        if len(self._receipts) < self.parameters.threshold or self._total is None:
            self._state = HomomorphicServerState.ABORTED
            raise TooFewSurvivors(
                f"{len(self._receipts)} inputs, and {self.parameters.threshold} are the fewest", "run the round again"
            )
        receipts = tuple(self._receipts[index] for index in sorted(self._receipts))
        request = Open(receipts, encode_residues(self._total, self.parameters.scheme.moduli))
        self._total, self._state = None, HomomorphicServerState.SUM
        return [Outgoing(DECRYPTOR, self._send(Kind.OPEN, request.encode()))]

    def _take_key(self, frame: Frame, data: bytes) -> list[Outgoing]:
        self._from_decryptor(frame)
        scheme = self.parameters.scheme
        offer = KeyOffer.decode(frame.body, self.parameters)
        decode_residues(offer.public_key, 1, (*scheme.moduli, scheme.special))
        self._state = HomomorphicServerState.INPUTS
        return [Outgoing(index, data) for index in range(self.parameters.clients)]

    def _take_input(self, frame: Frame) -> list[Outgoing]:
        if frame.sender in (SERVER, DECRYPTOR):
            raise UnknownSender(f"an input from {frame.sender:#x}, not from a client", _DROP)
        if frame.sender in self._receipts:
            raise ReplayedMessage(f"client {frame.sender} has sent its input before", _DROP)
        message = Input.decode(frame.body)
        once = {message.agreement, bytes(message.ciphertexts[-_TELLING:])}  # the end is of a second polynomial
        if once & self._seen:
            raise ReplayedMessage(f"client {frame.sender} sends what another client has sent", _DROP)
        check_canonical(message.agreement)
        check_order(message.agreement)
        residues = decode_residues(message.ciphertexts, self.parameters.ciphertexts, self.parameters.scheme.moduli)
        if self._total is None:
            self._total = residues
        else:
            add_residues(self._total, residues, self.parameters.scheme.moduli)
        self._seen |= once
        self._receipts[frame.sender] = Receipt(frame.sender, message.agreement, message.digest, frame.signature)
        return self.close_phase() if len(self._receipts) == self.parameters.clients else []

    def _take_sum(self, frame: Frame) -> list[Outgoing]:
        self._from_decryptor(frame)
        opened = HomomorphicSum.decode(frame.body, self.parameters)
        if opened.survivors != tuple(sorted(self._receipts)):
            raise TranscriptMismatch(
                "the decryptor has opened another sum than it was asked for", "trust it no further"
            )
        summands, bound = len(opened.survivors), self.parameters.bound
        if not possible_sum(opened.total, summands, bound):
            raise SumOffGrid(
                f"an entry that no sum of {summands} vectors within ±{bound} has, from the decryptor",
                "trust it no further",
            )
        self._result, self._state = opened, HomomorphicServerState.FINISHED
        return []

    def _from_decryptor(self, frame: Frame) -> None:
        if frame.sender != DECRYPTOR:
            raise UnknownSender(f"{frame.kind.name} from client {frame.sender}, not from the decryptor", _DROP)

    def _send(self, kind: Kind, body: bytes) -> bytes:
        return seal_frame(kind, SERVER, self.parameters.session_id, body, self._identity)
