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

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import (
    BadParameter,
    CallOutOfOrder,
    InconsistentSurvivors,
    OutOfOrder,
    ProtocolError,
    ReplayedMessage,
    TooFewSurvivors,
    TranscriptMismatch,
    UnknownSender,
    WithheldReveal,
)
from securekd_protocols.frame import (
    SERVER,
    TAGGED,
    Frame,
    Header,
    check_sender,
    check_tag,
    parse_frame,
    seal_frame,
    verify_frame,
)
from securekd_protocols.keys import AgreementKey, Binding, Identity
from securekd_protocols.masking.collected import Collected
from securekd_protocols.masking.recovery import leftover_masks
from securekd_protocols.masking.session import graph_kind
from securekd_protocols.messages import Kind, SurvivorList
from securekd_protocols.parameters import SessionParameters
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.ring import apply_masks
from securekd_protocols.states import SERVER_STEP, GraphKind, ServerState, ServerStep, Stage, first_server_state
from securekd_protocols.transcript import with_commitments, with_keys, with_sharers, with_survivors
from securekd_protocols.turns import TakesTurns, in_turn
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


class MaskingServer(TakesTurns):
    """The server in one session.

    Args:
        parameters: What clients are asked to agree on.
        identity: The signing key that belongs to `parameters.server_public`.
        insecure_randomness_for_tests: Replaces the operating system's generator by something predictable.

    Raises:
        BadParameter: It does not.
    """

    def __init__(
        self,
        parameters: SessionParameters,
        identity: Identity,
        *,
        insecure_randomness_for_tests: RandomBytes | None = None,
    ) -> None:
        super().__init__()
        if identity.public != parameters.server_public:
            raise BadParameter("the identity is not the server's of the parameters", "pass the matching identity")
        self._parameters = parameters
        self._identity = identity
        self._state = first_server_state(graph_kind(parameters))
        self._transcript = parameters.session_id
        self._left: frozenset[int] = frozenset(range(parameters.clients))
        self._answered: dict[int, bytes] = {}  # digest of each answer to the open stage, to tell a replay
        session_key = AgreementKey.generate(insecure_randomness_for_tests or os.urandom)
        self._collected = Collected.begin(parameters, session_key)

    @property
    def state(self) -> ServerState:
        """What the server is collecting."""
        return self._state

    @property
    @in_turn
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
        return MaskedSum(self._parameters.ring.signed(self._collected.total), self._collected.survivors)

    def invitation(self) -> bytes:
        """The signed parameters, the same bytes for every client."""
        return self._seal(Kind.INVITATION, self._parameters.encoded, self._parameters.session_id)

    @in_turn
    def receive(self, data: Bytes) -> list[Outgoing]:
        """Take one message of a client.

        Args:
            data: One whole frame.

        Returns:
            What to send now: nothing until the stage closes.

        Raises:
            RemoteProtocolError: The message is refused, and the session is as it was before. Only what shows when a
                stage closes ends it (`state` is then `ABORTED`): `TooFewSurvivors`, or a `TamperedShare` at the end.
        """
        frame = self._authenticate(data)
        step = self._check_order(frame)
        self._collected.take(frame, bytes(data) if frame.header.kind in (Kind.ADVERTISE, Kind.CONSISTENCY) else b"")
        self._answered[frame.header.sender] = frame.digest
        everybody = len(self._answered) == len(self._left)  # only those who are left can have answered
        return self._close(step) if everybody else []

    @in_turn
    def close_phase(self, stage: ServerState | None = None) -> list[Outgoing]:
        """Wait no longer: whoever has not answered the open stage has dropped out.

        Args:
            stage: What `state` was when the waiting began, for timers in a thread of their own: if that stage is closed
                by now, nothing happens. None closes whatever is open.

        Returns:
            What to send now.

        Raises:
            TooFewSurvivors: Fewer are left than any sum may have, or than the threshold around one of them; the session
                is over.
            WithheldReveal: Somebody who committed to a part of the graph seed has not revealed it; the session is over.
            TamperedShare: See `receive`.
            CallOutOfOrder: The session is over already.
        """
        if stage is not None and stage is not self._state:
            return []
        step = SERVER_STEP.get(self._state)
        if step is None:
            raise CallOutOfOrder(f"the session is {self._state.value}", "begin a new one")
        return self._close(step)

    def _authenticate(self, data: Bytes) -> Frame:
        frame = parse_frame(data, self._collected.limits)
        if frame.header.session_id != self._parameters.session_id:
            raise ReplayedMessage(f"{frame.header.kind.name} of another session", _DROP)
        if frame.header.sender == SERVER:
            raise UnknownSender(f"{frame.header.kind.name} in the server's own name", _DROP)
        if frame.header.kind in TAGGED:
            check_sender(frame.header, self._parameters.clients)
            check_tag(frame, self._collected.secret_with(frame.header.sender))
        else:
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

    def _close(self, step: ServerStep) -> list[Outgoing]:
        """Close the open stage and open the next one; whatever fails in here ends the session."""
        left, self._answered = frozenset(self._answered), {}
        try:
            self._check_left(step.stage, left)
            outgoing = self._settle(step, left)
        except ProtocolError:
            self._state = ServerState.ABORTED
            raise
        self._state = step.then
        return outgoing

    def _check_left(self, stage: Stage, left: frozenset[int]) -> None:
        """Refuse to go on with too few, or without a reveal that was committed to."""
        parameters, collected = self._parameters, self._collected
        regular = graph_kind(parameters) is GraphKind.REGULAR
        withheld = sorted(collected.commitments.keys() - left)
        if stage is Stage.ADVERTISE and withheld:
            raise WithheldReveal(f"clients {withheld} have committed and not revealed", "begin a new session")
        floor = parameters.fewest_survivors
        if regular and stage in (Stage.CONSISTENCY, Stage.UNMASK):
            floor = parameters.threshold  # from here on only shares are wanted, and their holders are counted below
        if len(left) < floor:
            raise TooFewSurvivors(
                f"{len(left)} clients left after the stage {stage.value!r}, and {floor} are needed",
                "begin a new session, with more clients or more patience",
            )
        if not regular or stage in (Stage.COMMIT, Stage.ADVERTISE):
            return
        for owner in left if stage is Stage.SHARE else collected.sharers:
            near = len(collected.graph.holders(owner) & left)
            if near < parameters.threshold and (near or owner in collected.survivors or owner in left):
                raise TooFewSurvivors(
                    f"{near} neighbours of client {owner} left after the stage {stage.value!r}, and "
                    f"{parameters.threshold} are needed",
                    "begin a new session, with more clients or more patience",
                )

    def _settle(self, step: ServerStep, left: frozenset[int]) -> list[Outgoing]:
        """Send what the closed stage has brought, under the transcript so far, and take it into the transcript."""
        collected, before = self._collected, self._transcript
        ordered = tuple(sorted(left))
        match step.stage:
            case Stage.COMMIT:
                bodies = dict.fromkeys(ordered, collected.commit_book())
                self._transcript = with_commitments(before, collected.commitments)
            case Stage.ADVERTISE:
                collected.draw_graph(before)
                bodies, collected.frames = collected.key_books(), {}
                self._transcript = with_keys(before, collected.session_key.public, collected.digests())
            case Stage.SHARE:
                collected.sharers = ordered
                bodies, collected.boxes = collected.deliveries(), {}
                self._transcript = with_sharers(before, left)
                collected.binding = Binding(self._parameters.session_id, self._transcript)
            case Stage.MASKED_INPUT:
                collected.survivors = ordered
                bodies = dict.fromkeys(ordered, SurvivorList(ordered).encode())
                self._transcript = with_survivors(before, left)
            case Stage.CONSISTENCY:
                bodies, collected.frames = collected.proofs(), {}
            case _:
                bodies = {}
                apply_masks(collected.total, leftover_masks(collected))
        self._left = frozenset(bodies) if bodies else left
        return [] if step.sends is None else self._send_all(step.sends, bodies, before)

    def _send_all(self, kind: Kind, bodies: dict[int, bytes], transcript: bytes) -> list[Outgoing]:
        """Seal each distinct body once."""
        sealed: dict[bytes, bytes] = {}
        for body in bodies.values():
            if body not in sealed:
                sealed[body] = self._seal(kind, body, transcript)
        return [Outgoing(index, sealed[body]) for index, body in bodies.items()]

    def _seal(self, kind: Kind, body: bytes, transcript: bytes) -> bytes:
        header = Header(kind, SERVER, self._parameters.session_id, transcript)
        return seal_frame(header, body, self._identity)
