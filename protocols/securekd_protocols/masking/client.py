"""The client: bytes in, bytes out, and never a second answer.

    client = MaskingClient(identity, policy)
    replies = client.receive(invitation)      # checks the invitation against the policy, advertises fresh keys
    client.submit(vector)                     # once, at any time before the share delivery comes
    replies = client.receive(…)               # and so on, until client.state is UNMASKED

What is refused before it is acted upon (malformed, unsigned, replayed, out of order) leaves the client as it was, so
that a hostile network can not end a session by injecting rubbish. A genuine message with wrong content ends it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.errors import (
    CallOutOfOrder,
    InconsistentSurvivors,
    LiveClientCalledDead,
    MalformedMessage,
    OutOfOrder,
    ProtocolError,
    ReplayedMessage,
    SecondInput,
    SecondUnmaskRequest,
    TooFewSurvivors,
    TranscriptMismatch,
    UnknownSender,
)
from securekd_protocols.frame import (
    FRAME_IN_LIST,
    SERVER,
    Frame,
    Header,
    check_signature,
    parse_frame,
    seal_frame,
    verify_frame,
)
from securekd_protocols.keys import Binding, Identity
from securekd_protocols.masking.secrets import (
    PairSecrets,
    SessionSecrets,
    agree_with_all,
    check_advertise,
    masks_of,
    open_boxes,
    seal_shares,
)
from securekd_protocols.messages import (
    Advertise,
    Consistency,
    FrameList,
    HeldShare,
    Kind,
    Limits,
    MaskedInput,
    ShareDelivery,
    SharePair,
    SurvivorList,
    Unmask,
)
from securekd_protocols.parameters import MOST_CLIENTS, SessionParameters
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.ring import Ring, apply_masks, encode
from securekd_protocols.states import CLIENT_STEP, ClientState, ClientStep
from securekd_protocols.transcript import with_keys, with_sharers, with_survivors
from securekd_protocols.wire import Bytes

_GIVE_UP = "leave the session; the server can go on without this client if enough others last"
_BEFORE_INVITATION = Limits(MOST_CLIENTS, 0)


@dataclass
class _Session:
    """What a client knows once it has accepted an invitation."""

    parameters: SessionParameters
    limits: Limits
    index: int
    transcript: bytes
    secrets: SessionSecrets
    own_advertise: Advertise
    pairs: dict[int, PairSecrets] = field(default_factory=dict)
    held: dict[int, SharePair] = field(default_factory=dict)
    sharers: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()

    @property
    def binding(self) -> Binding:
        return Binding(self.parameters.session_id, self.transcript)


class MaskingClient:
    """One client in one session.

    Args:
        identity: Its long-lived signing key.
        policy: What it insists on.
        insecure_randomness_for_tests: Replaces the operating system's generator by something predictable.
    """

    def __init__(
        self, identity: Identity, policy: LocalPolicy, *, insecure_randomness_for_tests: RandomBytes | None = None
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._random = insecure_randomness_for_tests or os.urandom
        self._state = ClientState.INVITED
        self._accepted: _Session | None = None
        self._parameters: SessionParameters | None = None
        self._input: Ring | None = None
        self._submitted = False

    @property
    def state(self) -> ClientState:
        """Where this client stands."""
        return self._state

    @property
    def parameters(self) -> SessionParameters:
        """What was agreed on by accepting the invitation.

        Raises:
            CallOutOfOrder: No invitation has been accepted yet.
        """
        if self._parameters is None:
            raise CallOutOfOrder("no invitation has been accepted", "pass the server's invitation to receive() first")
        return self._parameters

    def submit(self, vector: NDArray[np.signedinteger] | NDArray[np.unsignedinteger]) -> None:
        """Give the input, once, after the invitation and before the share delivery.

        Args:
            vector: Integers of shape (vector_length,), each within ±magnitude. It is copied.

        Raises:
            SecondInput: An input was given before. A vector that is refused does not count.
            NotIntegers, WrongLength, ValueOutOfRange: See `ring.encode`.
            CallOutOfOrder: No invitation has been accepted, or the session is over for this client.
        """
        parameters = self.parameters
        if self._state is ClientState.ABORTED:
            raise CallOutOfOrder("this client has left the session", "take part in a new one")
        if self._submitted:
            raise SecondInput("this session already has its input", "use a new session for another vector")
        self._input = encode(vector, parameters.vector_length, parameters.magnitude)
        self._submitted = True

    def receive(self, data: Bytes) -> list[bytes]:
        """Take one message of the server; give what is to be sent to it.

        Args:
            data: One whole frame.

        Returns:
            The frames to send, in order.

        Raises:
            RemoteProtocolError: The message is refused; after `state` has become `ABORTED`, the session is over.
            UnknownClient: The invitation does not name this client.
            CallOutOfOrder: The shares have come and no input was submitted: submit it, and pass them again.
        """
        frame = self._authenticate(data)
        step = self._step(frame)
        if step.reads is Kind.SHARE_DELIVERY and self._input is None:
            raise CallOutOfOrder("the shares have come and there is no input", "submit() it, then pass them again")
        try:
            reply = self._accept(frame) if step.reads is Kind.INVITATION else self._answer(frame)
        except ProtocolError:
            if step.state is not ClientState.INVITED:
                self._end(ClientState.ABORTED)
            raise
        self._state = step.then
        if step.then is ClientState.UNMASKED:
            self._end(step.then)
        return [reply]

    def _authenticate(self, data: Bytes) -> Frame:
        """Refuse whatever the server of this session has not signed."""
        parameters = self._parameters
        limits = _BEFORE_INVITATION if parameters is None else Limits(parameters.clients, parameters.vector_length)
        frame = parse_frame(data, limits)
        name = frame.header.kind.name
        if parameters is not None and frame.header.session_id != parameters.session_id:
            raise ReplayedMessage(f"{name} of another session", "drop it")
        if frame.header.sender != SERVER:
            raise UnknownSender(f"{name} from client {frame.header.sender}, not from the server", "drop it")
        check_signature(frame, self._policy.server_public)
        return frame

    def _step(self, frame: Frame) -> ClientStep:
        """Find the table's row for a message, or refuse it."""
        kind = frame.header.kind
        step = CLIENT_STEP.get(self._state)
        if step is not None and step.reads is kind:
            return step
        if kind is Kind.CONSISTENCY_PROOF and self._state is ClientState.UNMASKED:
            raise SecondUnmaskRequest("unmasking shares were asked for again", "do not trust this server any further")
        raise OutOfOrder(f"{kind.name} while {self._state.value}", "drop it")

    def _accept(self, frame: Frame) -> bytes:
        """Check an invitation, draw fresh keys, and advertise them."""
        parameters = SessionParameters.decode(frame.body)
        if frame.header.session_id != parameters.session_id:
            raise MalformedMessage("an invitation whose session id is not the hash of its parameters", _GIVE_UP)
        self._policy.check(parameters)
        index = parameters.index_of(self._identity.public)
        secrets = SessionSecrets.generate(self._random)
        self._parameters = parameters
        session = self._accepted = _Session(
            parameters=parameters,
            limits=Limits(parameters.clients, parameters.vector_length),
            index=index,
            transcript=parameters.session_id,
            secrets=secrets,
            own_advertise=secrets.advertise(parameters.session_id, index),
        )
        return self._send(session, Kind.ADVERTISE, session.own_advertise.encode())

    def _answer(self, frame: Frame) -> bytes:
        """Act upon a genuine message that is due; any error in here ends the session."""
        session, kind = self._session, frame.header.kind
        if frame.header.transcript != session.transcript:
            error = InconsistentSurvivors if kind is Kind.CONSISTENCY_PROOF else TranscriptMismatch
            raise error(f"{kind.name}: the server tells this client another story than before", _GIVE_UP)
        match kind:
            case Kind.KEY_BOOK:
                return self._on_key_book(session, FrameList.decode(frame.body, session.limits, FRAME_IN_LIST))
            case Kind.SHARE_DELIVERY:
                return self._on_share_delivery(session, ShareDelivery.decode(frame.body, session.limits))
            case Kind.SURVIVOR_LIST:
                return self._on_survivor_list(session, SurvivorList.decode(frame.body, session.limits))
            case _:
                return self._on_consistency_proof(session, FrameList.decode(frame.body, session.limits, FRAME_IN_LIST))

    def _on_key_book(self, session: _Session, book: FrameList) -> bytes:
        advertised = {
            frame.header.sender: Advertise.decode(frame.body, session.limits)
            for frame in _client_frames(session, book, Kind.ADVERTISE)
        }
        if advertised.get(session.index) != session.own_advertise:
            raise TranscriptMismatch("the key book does not hold this client's own keys", _GIVE_UP)
        _enough(session, len(advertised), "have advertised keys")
        owners: dict[bytes, int] = {}
        for index, message in advertised.items():
            check_advertise(index, message, owners)
        session.pairs = agree_with_all(session.secrets, session.index, advertised)
        session.transcript = with_keys(session.transcript, advertised)
        threshold = session.parameters.threshold
        own, shares = seal_shares(
            session.secrets, session.index, threshold, session.pairs, session.binding, self._random
        )
        session.held[session.index] = own
        return self._send(session, Kind.SHARES, shares.encode())

    def _on_share_delivery(self, session: _Session, delivery: ShareDelivery) -> bytes:
        sharers, others = delivery.sharers, set(delivery.sharers) - {session.index}
        if session.index not in sharers or not others <= session.pairs.keys():
            raise MalformedMessage(f"shares of clients {sharers}, who are not those that take part", _GIVE_UP)
        if {box.peer for box in delivery.boxes} != others:
            raise MalformedMessage("not one box from each other client that has shared", _GIVE_UP)
        _enough(session, len(sharers), "have shared")
        session.held |= open_boxes(session.index, delivery.boxes, session.pairs, session.binding)
        session.sharers = sharers
        session.transcript = with_sharers(session.transcript, sharers)
        words, self._input = self._input, None
        if words is None:
            raise CallOutOfOrder("no input was submitted", "submit() it first")
        apply_masks(words, masks_of(session.secrets, session.index, sharers, session.pairs, session.binding))
        return self._send(session, Kind.MASKED_INPUT, MaskedInput(words).encode())

    def _on_survivor_list(self, session: _Session, message: SurvivorList) -> bytes:
        survivors = message.survivors
        if not set(survivors) <= set(session.sharers):
            raise InconsistentSurvivors(f"survivors {survivors}, of whom some have never shared", _GIVE_UP)
        if session.index not in survivors:
            raise LiveClientCalledDead("the server tells this client that it has dropped out", _GIVE_UP)
        _enough(session, len(survivors), "have survived")
        session.survivors = survivors
        session.transcript = with_survivors(session.transcript, survivors)
        return self._send(session, Kind.CONSISTENCY, Consistency().encode())

    def _on_consistency_proof(self, session: _Session, proof: FrameList) -> bytes:
        signers = [frame.header.sender for frame in _client_frames(session, proof, Kind.CONSISTENCY)]
        if not set(signers) <= set(session.survivors):
            raise InconsistentSurvivors(f"signatures of clients {signers}, of whom some are called dead", _GIVE_UP)
        _enough(session, len(signers), "have signed the survivor set")
        dropped = sorted(set(session.sharers) - set(session.survivors))
        seeds = tuple(HeldShare(owner, session.held[owner].seed) for owner in session.survivors)
        keys = tuple(HeldShare(owner, session.held[owner].key) for owner in dropped)
        return self._send(session, Kind.UNMASK, Unmask(seeds, keys).encode())

    def _send(self, session: _Session, kind: Kind, body: Bytes) -> bytes:
        header = Header(kind, session.index, session.parameters.session_id, session.transcript)
        return seal_frame(header, body, self._identity)

    @property
    def _session(self) -> _Session:
        if self._accepted is None:
            raise CallOutOfOrder(f"the session is {self._state.value}", "take part in a new one")
        return self._accepted

    def _end(self, state: ClientState) -> None:
        """Let go of everything secret. (Python gives no way to overwrite it in memory.)"""
        self._state = state
        self._input = None
        self._accepted = None


def _client_frames(session: _Session, message: FrameList, kind: Kind) -> list[Frame]:
    """Authenticate the other clients' frames that the server passes on, all of one kind and one transcript."""
    frames = [parse_frame(data, session.limits) for data in message.frames]
    senders = [frame.header.sender for frame in frames]
    if senders != sorted(set(senders)):
        raise MalformedMessage(f"frames of clients {senders}, not each once and in order", _GIVE_UP)
    for frame in frames:
        header = frame.header
        if header.kind is not kind:
            raise MalformedMessage(f"{header.kind.name} passed on as {kind.name}", _GIVE_UP)
        if header.session_id != session.parameters.session_id:
            raise ReplayedMessage(f"{kind.name} of client {header.sender} from another session", _GIVE_UP)
        if header.sender == SERVER:
            raise UnknownSender(f"{kind.name} from the server, as if it were a client", _GIVE_UP)
        verify_frame(frame, session.parameters)
        if header.transcript != session.transcript:
            error = InconsistentSurvivors if kind is Kind.CONSISTENCY else TranscriptMismatch
            raise error(f"client {header.sender} was told another story than this one", _GIVE_UP)
    return frames


def _enough(session: _Session, count: int, what: str) -> None:
    threshold = session.parameters.threshold
    if count < threshold:
        raise TooFewSurvivors(f"{count} clients {what}, the threshold is {threshold}", _GIVE_UP)
