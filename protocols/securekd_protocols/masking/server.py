"""The server: it collects a stage, closes it, and in the end knows the sum.

    server = MaskingServer(parameters, identity)
    send server.invitation() to everybody invited
    outgoing = server.receive(data)           # for each message that comes
    outgoing = server.close_phase()           # when the caller's patience is at its end
    server.result                             # once server.state is FINISHED

A stage closes by itself when everybody who is left has answered. A message that is refused changes nothing: a client
can not end the session for the others, except by a wrong share at the very end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import (
    BadParameter,
    CallOutOfOrder,
    InconsistentSurvivors,
    MalformedMessage,
    OutOfOrder,
    ProtocolError,
    ReplayedMessage,
    TooFewSurvivors,
    TranscriptMismatch,
    UnknownSender,
)
from securekd_protocols.frame import SERVER, Frame, Header, parse_frame, seal_frame, verify_frame
from securekd_protocols.keys import Binding, Identity, check_order
from securekd_protocols.masking.recovery import leftover_masks
from securekd_protocols.masking.secrets import check_advertise
from securekd_protocols.messages import (
    Advertise,
    Box,
    Consistency,
    FrameList,
    Kind,
    Limits,
    MaskedInput,
    ShareDelivery,
    Shares,
    SurvivorList,
    Unmask,
)
from securekd_protocols.parameters import SessionParameters
from securekd_protocols.ring import WORD, apply_masks, decode
from securekd_protocols.states import SERVER_STEP, ServerState, ServerStep
from securekd_protocols.transcript import with_keys, with_sharers, with_survivors
from securekd_protocols.wire import Bytes

_DROP = "drop the message"


@dataclass(frozen=True)
class Outgoing:
    """A message to send.

    Attributes:
        recipient: Index of a client on the roster.
        data: The frame.
    """

    recipient: int
    data: bytes


@dataclass(frozen=True)
class MaskedSum:
    """What a session yields.

    Attributes:
        total: Exact sum of the survivors' vectors, int64, shape (vector_length,).
        survivors: Indices of the clients in the sum, ascending.
    """

    total: NDArray[np.int64]
    survivors: tuple[int, ...]


class MaskingServer:
    """The server in one session.

    Args:
        parameters: What clients are asked to agree on.
        identity: The signing key that belongs to `parameters.server_public`.

    Raises:
        BadParameter: It does not.
    """

    def __init__(self, parameters: SessionParameters, identity: Identity) -> None:
        if identity.public != parameters.server_public:
            raise BadParameter("the identity is not the server's of the parameters", "pass the matching identity")
        self._parameters = parameters
        self._identity = identity
        self._limits = Limits(parameters.clients, parameters.vector_length)
        self._state = ServerState.KEYS
        self._transcript = parameters.session_id
        self._left: frozenset[int] = frozenset(range(parameters.clients))
        self._answered: dict[int, bytes] = {}  # digest of each answer to the open stage, to tell a replay
        self._advertised: dict[int, Advertise] = {}
        self._key_owners: dict[bytes, int] = {}
        self._passed_on: dict[int, bytes] = {}  # whole frames that other clients will verify
        self._boxes: dict[int, list[Box]] = {}
        self._mask_binding = Binding(parameters.session_id, b"")
        self._sharers: tuple[int, ...] = ()
        self._survivors: tuple[int, ...] = ()
        self._unmask: dict[int, Unmask] = {}
        self._sum = np.zeros(parameters.vector_length, WORD)

    @property
    def state(self) -> ServerState:
        """What the server is collecting."""
        return self._state

    @property
    def waiting_for(self) -> frozenset[int]:
        """Clients whose answers would close the open stage; empty after the end."""
        return self._left - self._answered.keys() if self._state in SERVER_STEP else frozenset()

    @property
    def result(self) -> MaskedSum:
        """The sum.

        Raises:
            CallOutOfOrder: The session is not finished.
        """
        if self._state is not ServerState.FINISHED:
            raise CallOutOfOrder(f"the server is still at {self._state.value}", "finish the session first")
        return MaskedSum(decode(self._sum), self._survivors)

    def invitation(self) -> bytes:
        """The signed parameters, the same bytes for every client."""
        return self._seal(Kind.INVITATION, self._parameters.encoded)

    def receive(self, data: Bytes) -> list[Outgoing]:
        """Take one message of a client.

        Args:
            data: One whole frame.

        Returns:
            What to send now: nothing until the stage closes.

        Raises:
            RemoteProtocolError: The message is refused, and the session is as it was before. Only a `TamperedShare`
                that shows when the masks are taken away ends the session (`state` is then `ABORTED`).
        """
        frame = self._authenticate(data)
        step = self._check_order(frame)
        self._take(frame, bytes(data) if frame.header.kind in (Kind.ADVERTISE, Kind.CONSISTENCY) else b"")
        self._answered[frame.header.sender] = frame.digest
        return [] if self.waiting_for else self._close(step)

    def close_phase(self) -> list[Outgoing]:
        """Wait no longer: whoever has not answered the open stage has dropped out.

        Returns:
            What to send now.

        Raises:
            TooFewSurvivors: Fewer than the threshold are left; the session is over.
            TamperedShare: See `receive`.
            CallOutOfOrder: The session is over already.
        """
        step = SERVER_STEP.get(self._state)
        if step is None:
            raise CallOutOfOrder(f"the session is {self._state.value}", "begin a new one")
        return self._close(step)

    def _authenticate(self, data: Bytes) -> Frame:
        frame = parse_frame(data, self._limits)
        if frame.header.session_id != self._parameters.session_id:
            raise ReplayedMessage(f"{frame.header.kind.name} of another session", _DROP)
        if frame.header.sender == SERVER:
            raise UnknownSender(f"{frame.header.kind.name} in the server's own name", _DROP)
        verify_frame(frame, self._parameters)
        return frame

    def _check_order(self, frame: Frame) -> ServerStep:
        step = SERVER_STEP.get(self._state)
        sender, kind = frame.header.sender, frame.header.kind
        if self._answered.get(sender) == frame.digest:
            raise ReplayedMessage(f"{kind.name} of client {sender} for the second time", _DROP)
        if step is None or kind is not step.collects or sender in self._answered:
            raise OutOfOrder(f"{kind.name} of client {sender} while collecting {self._state.value}", _DROP)
        if sender not in self._left:
            raise OutOfOrder(f"{kind.name} of client {sender}, which has dropped out", _DROP)
        if frame.header.transcript != self._transcript:
            error = InconsistentSurvivors if kind in (Kind.CONSISTENCY, Kind.UNMASK) else TranscriptMismatch
            raise error(f"{kind.name}: client {sender} was told another story than this server's", _DROP)
        return step

    def _take(self, frame: Frame, whole: bytes) -> None:
        """Decode and keep one answer; raises before anything is changed."""
        sender = frame.header.sender
        match frame.header.kind:
            case Kind.ADVERTISE:
                message = Advertise.decode(frame.body, self._limits)
                check_order(message.share_key)
                check_order(message.mask_key)
                check_advertise(sender, message, self._key_owners)
                self._advertised[sender] = message
                self._passed_on[sender] = whole
            case Kind.SHARES:
                boxes = Shares.decode(frame.body, self._limits).boxes
                if {box.peer for box in boxes} != self._advertised.keys() - {sender}:
                    raise MalformedMessage(f"client {sender} does not share with exactly the others", _DROP)
                for box in boxes:
                    self._boxes.setdefault(box.peer, []).append(Box(sender, box.sealed))
            case Kind.MASKED_INPUT:
                self._sum += MaskedInput.decode(frame.body, self._limits).words
            case Kind.CONSISTENCY:
                Consistency.decode(frame.body, self._limits)
                self._passed_on[sender] = whole
            case _:
                self._unmask[sender] = self._check_unmask(Unmask.decode(frame.body, self._limits), sender)

    def _check_unmask(self, message: Unmask, sender: int) -> Unmask:
        seeds = tuple(held.owner for held in message.seeds)
        keys = {held.owner for held in message.keys}
        if seeds != self._survivors or keys != set(self._sharers) - set(self._survivors):
            raise MalformedMessage(f"client {sender} answers for others than it was asked about", _DROP)
        return message

    def _close(self, step: ServerStep) -> list[Outgoing]:
        """Close the open stage and open the next one."""
        left, threshold = frozenset(self._answered), self._parameters.threshold
        self._answered = {}
        self._left = left
        if len(left) < threshold:
            self._state = ServerState.ABORTED
            raise TooFewSurvivors(
                f"{len(left)} clients left after the stage {step.stage.value!r}, and the threshold is {threshold}",
                "begin a new session, with more clients or more patience",
            )
        outgoing = [] if step.sends is None else self._send_all(step.sends, self._bodies(step.sends, left))
        self._advance(step, left)
        self._state = step.then
        return outgoing

    def _bodies(self, kind: Kind, left: frozenset[int]) -> dict[int, bytes]:
        """What each client left is to read, under the transcript that it holds."""
        match kind:
            case Kind.KEY_BOOK | Kind.CONSISTENCY_PROOF:
                body = FrameList(tuple(self._passed_on[index] for index in sorted(left))).encode()
                self._passed_on = {}
            case Kind.SHARE_DELIVERY:
                return {index: self._delivery(index, left) for index in sorted(left)}
            case _:
                body = SurvivorList(tuple(sorted(left))).encode()
        return dict.fromkeys(sorted(left), body)

    def _delivery(self, recipient: int, sharers: frozenset[int]) -> bytes:
        boxes = sorted(self._boxes[recipient], key=lambda box: box.peer)
        return ShareDelivery(tuple(sorted(sharers)), tuple(boxes)).encode()

    def _advance(self, step: ServerStep, left: frozenset[int]) -> None:
        """Take what the closed stage has settled into the transcript."""
        match step.collects:
            case Kind.ADVERTISE:
                self._transcript = with_keys(self._transcript, self._advertised)
            case Kind.SHARES:
                self._sharers, self._boxes = tuple(sorted(left)), {}
                self._transcript = with_sharers(self._transcript, left)
                self._mask_binding = Binding(self._parameters.session_id, self._transcript)
            case Kind.MASKED_INPUT:
                self._survivors = tuple(sorted(left))
                self._transcript = with_survivors(self._transcript, left)
            case Kind.UNMASK:
                self._take_masks_away()
            case _:
                pass

    def _take_masks_away(self) -> None:
        try:
            masks = leftover_masks(
                self._unmask, self._parameters.threshold, self._advertised, self._survivors, self._mask_binding
            )
        except ProtocolError:
            self._state = ServerState.ABORTED
            raise
        apply_masks(self._sum, masks)

    def _send_all(self, kind: Kind, bodies: dict[int, bytes]) -> list[Outgoing]:
        """Seal each distinct body once."""
        sealed: dict[bytes, bytes] = {}
        for body in bodies.values():
            if body not in sealed:
                sealed[body] = self._seal(kind, body)
        return [Outgoing(index, sealed[body]) for index, body in bodies.items()]

    def _seal(self, kind: Kind, body: bytes) -> bytes:
        header = Header(kind, SERVER, self._parameters.session_id, self._transcript)
        return seal_frame(header, body, self._identity)
