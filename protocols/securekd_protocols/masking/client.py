"""The client: bytes in, bytes out, and never a second answer.

    client = MaskingClient(identity, policy)
    replies = client.receive(invitation)      # checks the invitation against the policy, advertises fresh keys
    client.submit(vector)                     # once, at any time before the share delivery comes
    replies = client.receive(…)               # and so on, until client.state is UNMASKED

What is refused before it is acted upon (malformed, not authentic, replayed, out of order) leaves the client as it was,
so that a hostile network can not end a session by injecting rubbish. A genuine message with wrong content ends it.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from securekd_protocols.books import CommitBook, FrameList, KeyBook
from securekd_protocols.errors import (
    BadSavedState,
    CallOutOfOrder,
    InconsistentSurvivors,
    MalformedMessage,
    OutOfOrder,
    ReplayedMessage,
    SecondInput,
    SecondUnmaskRequest,
    TranscriptMismatch,
    UnknownSender,
)
from securekd_protocols.frame import (
    FRAME_IN_LIST,
    SERVER,
    TAGGED,
    Frame,
    Header,
    check_signature,
    parse_frame,
    seal_frame,
    seal_tagged_frame,
)
from securekd_protocols.keys import Identity
from securekd_protocols.masking.answers import (
    on_commit_book,
    on_consistency_proof,
    on_key_book,
    on_share_delivery,
    on_survivor_list,
    own_commitment,
)
from securekd_protocols.masking.saved import SecretState, load_session, save_session
from securekd_protocols.masking.secrets import SessionSecrets
from securekd_protocols.masking.session import GIVE_UP, ClientSession, graph_kind, limits_of
from securekd_protocols.messages import Commit, Kind, Limits, ShareDelivery, SurvivorList
from securekd_protocols.parameters import MOST_CLIENTS, SessionParameters
from securekd_protocols.policy import LocalPolicy
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.ring import encode
from securekd_protocols.states import ClientState, ClientStep, client_step
from securekd_protocols.turns import TakesTurns, in_turn
from securekd_protocols.wire import Bytes

_BEFORE_INVITATION = Limits(MOST_CLIENTS, 0)


class MaskingClient(TakesTurns):
    """One client in one session.

    Args:
        identity: Its long-lived signing key.
        policy: What it insists on.
        insecure_randomness_for_tests: Replaces the operating system's generator by something predictable.
    """

    def __init__(
        self, identity: Identity, policy: LocalPolicy, *, insecure_randomness_for_tests: RandomBytes | None = None
    ) -> None:
        super().__init__()
        self._identity = identity
        self._policy = policy
        self._random = insecure_randomness_for_tests or os.urandom
        self._state = ClientState.INVITED
        self._accepted: ClientSession | None = None
        self._parameters: SessionParameters | None = None
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

    @in_turn
    def submit(self, vector: NDArray[np.signedinteger] | NDArray[np.unsignedinteger]) -> None:
        """Give the input, once, after the invitation and before the share delivery.

        Args:
            vector: Integers of shape (vector_length,), each within ±(magnitude + noise tail). It is copied.

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
        self._session.words = encode(parameters.ring, vector, parameters.vector_length, parameters.bound)
        self._submitted = True

    @in_turn
    def save(self) -> SecretState:
        """Everything that a new process needs to go on for this client; see `saved` for what may be done with it.

        Returns:
            The saved state. Its bytes are secret: whoever has them can open this client's input.

        Raises:
            CallOutOfOrder: There is no session yet or any more, or it has no input yet. A state without an input could
                be restored twice, and then mask two inputs with the same keys.
        """
        session = self._session
        if not self._submitted:
            raise CallOutOfOrder("there is no input to save", "submit() it first")
        return save_session(session, self._state, self._policy.diary is not None)

    @classmethod
    def restore(
        cls,
        state: SecretState,
        identity: Identity,
        policy: LocalPolicy,
        *,
        insecure_randomness_for_tests: RandomBytes | None = None,
    ) -> MaskingClient:
        """Go on where `save` was called, with the input that was saved and no other.

        Args:
            state: What `save` gave.
            identity: The same as before.
            policy: The same as before, with the same diary: it is the diary that keeps a client which was restored from
                an old state from telling a second story. A client that never had one counts as a colluder then.
            insecure_randomness_for_tests: See the class.

        Raises:
            BadSavedState: The bytes are damaged, of another release, or of another client; or the diary is older or
                another client's, or is not there although there was one.
            PolicyRefused, ContextMismatch: The policy is not as before, and refuses what was agreed on.
        """
        client = cls(identity, policy, insecure_randomness_for_tests=insecure_randomness_for_tests)
        client._accepted, client._state, had_diary = load_session(state)
        parameters = client._parameters = client._accepted.parameters
        index = client._accepted.index
        if parameters.roster[index].public != identity.public:
            raise BadSavedState("the state is another client's", "restore each client with its own identity")
        if had_diary and policy.diary is None:
            raise BadSavedState("a client that had a diary was to be restored without", "restore it with its diary")
        if policy.diary is not None:
            transcript = client._accepted.transcript
            policy.diary.check_restored(parameters.round_number, parameters.session_id, index, transcript)
        policy.check(parameters)
        client._submitted = True
        return client

    @in_turn
    def receive(self, data: Bytes) -> list[bytes]:
        """Take one message of the server; give what is to be sent to it.

        Args:
            data: One whole frame.

        Returns:
            The frames to send, in order.

        Raises:
            RemoteProtocolError: The message is refused; after `state` has become `ABORTED`, the session is over.
            UnknownClient: The invitation does not name this client.
            TooManyRestarts: This client has accepted as many invitations for the round as its policy allows.
            AnsweredBefore: The diary knows of another story in this session; it is over for this client, as it is after
                whatever else goes wrong in an answer, an error of `Diary.keep` among it: restore the latest state.
            CallOutOfOrder: The shares have come and no input was submitted: submit it, and pass them again.
        """
        frame = self._authenticate(data)
        if self._state is ClientState.INVITED and frame.header.kind is Kind.INVITATION:
            proposed = SessionParameters.decode(frame.body)
            step = self._step(frame, proposed)
            reply = self._accept(frame, step, proposed)
        else:
            step = self._step(frame, self._parameters)
            if step.reads is Kind.SHARE_DELIVERY and not self._submitted:
                raise CallOutOfOrder("the shares have come and there is no input", "submit() it, then pass them again")
            try:
                reply = self._answer(frame, step)
            except BaseException:  # a diary that cannot be kept, or Ctrl-C, too: no session is left half changed
                self._end(ClientState.ABORTED)
                raise
        self._state = step.then
        if step.then is ClientState.UNMASKED:
            self._end(step.then)
        return [reply]

    def _authenticate(self, data: Bytes) -> Frame:
        """Refuse whatever the server of this session has not signed."""
        parameters = self._parameters
        limits = _BEFORE_INVITATION if parameters is None else limits_of(parameters)
        frame = parse_frame(data, limits)
        name = frame.header.kind.name
        if parameters is not None and frame.header.session_id != parameters.session_id:
            raise ReplayedMessage(f"{name} of another session", "drop it")
        if frame.header.sender != SERVER:
            raise UnknownSender(f"{name} from client {frame.header.sender}, not from the server", "drop it")
        check_signature(frame, self._policy.server_public)
        return frame

    def _step(self, frame: Frame, parameters: SessionParameters | None) -> ClientStep:
        """Find the table's row for a message, or refuse it."""
        kind = frame.header.kind
        if parameters is not None:
            step = client_step(self._state, kind, graph_kind(parameters))
            if step is not None:
                return step
        if kind is Kind.CONSISTENCY_PROOF and self._state is ClientState.UNMASKED:
            raise SecondUnmaskRequest("unmasking shares were asked for again", "do not trust this server any further")
        raise OutOfOrder(f"{kind.name} while {self._state.value}", "drop it")

    def _accept(self, frame: Frame, step: ClientStep, parameters: SessionParameters) -> bytes:
        """Check an invitation, draw fresh keys, and commit or advertise."""
        if frame.header.session_id != parameters.session_id:
            raise MalformedMessage("an invitation whose session id is not the hash of its parameters", GIVE_UP)
        self._policy.check(parameters)
        index = parameters.index_of(self._identity.public)
        self._policy.accept(parameters, index)
        secrets = SessionSecrets.generate(self._random, regular=parameters.graph is not None)
        session = ClientSession.begin(parameters, index, secrets)
        body = Commit(own_commitment(session)) if step.sends is Kind.COMMIT else session.own_advertise
        reply = self._send(session, step.sends, body.encode())
        self._parameters, self._accepted = parameters, session
        return reply

    def _answer(self, frame: Frame, step: ClientStep) -> bytes:
        """Act upon a genuine message that is due; any error in here ends the session."""
        session, body = self._session, frame.body
        if frame.header.transcript != session.transcript:
            error = InconsistentSurvivors if step.reads is Kind.CONSISTENCY_PROOF else TranscriptMismatch
            raise error(f"{step.reads.name}: the server tells this client another story than before", GIVE_UP)
        match step.reads:
            case Kind.COMMIT_BOOK:
                advertise = on_commit_book(session, CommitBook.decode(body, session.limits))
                return self._send(session, step.sends, advertise.encode())
            case Kind.KEY_BOOK:
                shares = on_key_book(session, KeyBook.decode(body, session.limits, FRAME_IN_LIST), self._random)
                return self._send(session, step.sends, shares.encode())
            case Kind.SHARE_DELIVERY:
                masked = on_share_delivery(session, ShareDelivery.decode(body, session.limits))
                return self._send(session, step.sends, *masked.encode())
            case Kind.SURVIVOR_LIST:
                survivors = SurvivorList.decode(body, session.limits)
                return self._send(
                    session, step.sends, on_survivor_list(session, survivors, self._policy.diary).encode()
                )
            case _:
                proof = FrameList.decode(body, session.limits, FRAME_IN_LIST)
                return self._send(session, step.sends, on_consistency_proof(session, proof).encode())

    def _send(self, session: ClientSession, kind: Kind, *body: Bytes) -> bytes:
        parameters = session.parameters
        if self._policy.diary is not None:
            self._policy.diary.answer(parameters.round_number, parameters.session_id, kind, session.transcript)
        header = Header(kind, session.index, parameters.session_id, session.transcript)
        if kind in TAGGED:
            return seal_tagged_frame(header, body, session.server_secret)
        return seal_frame(header, body[0], self._identity)

    @property
    def _session(self) -> ClientSession:
        if self._accepted is None:
            raise CallOutOfOrder(f"the session is {self._state.value}", "take part in a new one")
        return self._accepted

    def _end(self, state: ClientState) -> None:
        """Let go of everything secret. (Python gives no way to overwrite it in memory.)"""
        self._state = state
        self._accepted = None
