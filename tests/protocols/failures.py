"""One scenario for each failure that can be detected: what is done to whom, and the error that must come of it.

Each function gives a vector: the participant, its identity, policy and randomness, and its steps. A step is one of
{"receive": bytes}, {"submit": values}, {"save": name}, {"restore": name}, {"diary": bytes} (from here on the policy has
that one), {"close": true}; all but the last succeed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from securekd_protocols.books import CommitBook, FrameList
from securekd_protocols.diary import CohortRule, Diary
from securekd_protocols.keys import Identity
from securekd_protocols.masking.server import MaskingServer
from securekd_protocols.messages import (
    Kind,
    ShareDelivery,
    SurvivorList,
)
from securekd_protocols.parameters import Member
from securekd_protocols.states import ServerState
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session, message_to

Vector = dict[str, object]
FAILURES: dict[str, Callable[[], Vector]] = {}
RING = {"n": 8, "d": 2, "graph": SMALL_RING, "threshold": SMALL_RING_THRESHOLD}


def failure(name: str) -> Callable[[Callable[[], Vector]], Callable[[], Vector]]:
    """Enter a scenario under its name."""

    def enter(make: Callable[[], Vector]) -> Callable[[], Vector]:
        FAILURES[name] = make
        return make

    return enter


def new_session(**kwargs: object) -> Session:
    return Session(**({"n": 5, "d": 2} | kwargs), record=True)


def at_client(session: Session, error: str, *last: Vector, index: int = 0, after: str = "aborted", **policy) -> Vector:
    """A vector about a client: everything that it was given so far, and then the last steps."""
    steps: list[Vector] = []
    for data in session.down.get(index, []):
        steps.append({"receive": data.hex()})
        if data[5] == Kind.INVITATION:
            steps.append({"submit": session.vectors[index].tolist()})
    return {
        "participant": f"client {index}",
        "identity": session.identities[index].private.hex(),
        "random": session.streams[f"client {index}"].given.hex(),
        "policy": {
            "server_public": session.operator.public.hex(),
            "known": {member.name: member.public.hex() for member in session.parameters.roster},
            "context": b"digits".hex(),
            "round_number": 7,
            "colluders": 1,
        }
        | policy,
        "steps": [*steps, *last],
        "error": error,
        "after": after,
    }


def at_server(session: Session, error: str, *last: Vector, after: str) -> Vector:
    """A vector about the server."""
    steps = [{"close": True} if data is None else {"receive": data.hex()} for data in session.server_log]
    return {
        "participant": "server",
        "identity": session.operator.private.hex(),
        "random": session.streams["server"].given.hex(),
        "parameters": session.parameters.encoded.hex(),
        "steps": [*steps, *last],
        "error": error,
        "after": after,
    }


def receive(data: bytes) -> Vector:
    return {"receive": data.hex()}


# --- survivor sets ----------------------------------------------------------------------------------------------------


def two_camps() -> tuple[Session, dict[bool, list[bytes]]]:
    """Clients 0, 1, 2 are told that all are alive, clients 3 and 4 that client 0 is dead."""
    session = new_session().until(ServerState.SIGNATURES)
    transcript = session.transcript_of(session.inbox[0].data)
    signatures: dict[bool, list[bytes]] = {True: [], False: []}
    for index in range(5):
        alive = index < 3
        body = SurvivorList((0, 1, 2, 3, 4) if alive else (1, 2, 3, 4)).encode()
        message = session.forged(Kind.SURVIVOR_LIST, body, transcript)
        session.down[index].append(message)
        signatures[alive] += session.clients[index].receive(message)
    return session, signatures


@failure("alive-and-dead")
def _() -> Vector:
    session, signatures = two_camps()
    frames = sorted(signatures[True] + signatures[False], key=lambda data: data[6])
    body = FrameList(tuple(frames)).encode()
    proof = session.forged(Kind.CONSISTENCY_PROOF, body, session.transcript_of(signatures[False][0]))
    return at_client(session, "InconsistentSurvivors", receive(proof), index=3)


@failure("survivors-differ-between-clients")
def _() -> Vector:
    session, signatures = two_camps()
    return at_client(session, "InconsistentSurvivors", receive(session.proof(signatures[True])), index=3)


@failure("too-few-agree-on-the-survivors")
def _() -> Vector:
    session, signatures = two_camps()
    return at_client(session, "TooFewSurvivors", receive(session.proof(signatures[True])))


@failure("second-unmask-request")
def _() -> Vector:
    session = new_session().until(ServerState.FINISHED)
    other = session.forged(Kind.CONSISTENCY_PROOF, FrameList(()).encode(), bytes(32))
    return at_client(session, "SecondUnmaskRequest", receive(other), after="unmasked")


@failure("second-survivor-list")
def _() -> Vector:
    session = new_session().until(ServerState.UNMASKING)
    transcript = session.transcript_of(session.down[0][-1])
    other = session.forged(Kind.SURVIVOR_LIST, SurvivorList((0, 1, 2, 3)).encode(), transcript)
    return at_client(session, "OutOfOrder", receive(other), after="signed")


@failure("live-client-called-dead")
def _() -> Vector:
    session = new_session().until(ServerState.SIGNATURES)
    transcript = session.transcript_of(session.inbox[0].data)
    message = session.forged(Kind.SURVIVOR_LIST, SurvivorList((1, 2, 3, 4)).encode(), transcript)
    return at_client(session, "LiveClientCalledDead", receive(message))


@failure("too-few-survivors")
def _() -> Vector:
    session = new_session().until(ServerState.SIGNATURES)
    transcript = session.transcript_of(session.inbox[0].data)
    message = session.forged(Kind.SURVIVOR_LIST, SurvivorList((0, 1, 2)).encode(), transcript)
    return at_client(session, "TooFewSurvivors", receive(message))


@failure("too-few-survivors-at-the-server")
def _() -> Vector:
    session = new_session().until(ServerState.MASKED_INPUTS)
    for data in session.answers()[:3]:
        session.to_server(data)
    return at_server(session, "TooFewSurvivors", {"close": True}, after="aborted")


@failure("cohort-too-close-to-an-earlier-one")
def _() -> Vector:
    session = new_session()
    diary = Diary(CohortRule(3))
    names = frozenset(member.name for member in session.parameters.roster)
    diary.sign(b"earlier".ljust(32), names)
    session.until(ServerState.MASKED_INPUTS)
    session.stage(silent={4})
    last = receive(message_to(0, session.inbox))
    return at_client(session, "CohortRefused", last, diary=diary.save().hex(), smallest_difference=3)


@failure("restored-client-signs-another-survivor-set")
def _() -> Vector:
    session = new_session().until(ServerState.SIGNATURES)
    listed = message_to(0, session.inbox)
    other = session.forged(Kind.SURVIVOR_LIST, SurvivorList((0, 1, 2, 3)).encode(), session.transcript_of(listed))
    steps = ({"save": "old"}, receive(listed), {"restore": "old"}, receive(other))
    return at_client(session, "SignedBefore", *steps, diary=Diary().save().hex(), smallest_difference=1)


@failure("restored-client-takes-a-second-input")
def _() -> Vector:
    session = new_session().until(ServerState.SHARES)
    steps = ({"save": "old"}, receive(message_to(0, session.inbox)), {"restore": "old"}, {"submit": [1, 2]})
    return at_client(session, "SecondInput", *steps, after="advertised")


@failure("restored-client-masks-for-other-sharers")
def _() -> Vector:
    session = new_session().until(ServerState.MASKED_INPUTS)
    genuine = message_to(0, session.inbox)
    delivery = ShareDelivery.decode(session.body_of(genuine), session.limits)
    fewer = ShareDelivery((0, 1, 2, 3), tuple(box for box in delivery.boxes if box.peer < 4)).encode()
    other = session.forged(Kind.SHARE_DELIVERY, fewer, session.transcript_of(genuine))
    steps = ({"save": "old"}, receive(other), {"restore": "old"}, receive(genuine))
    return at_client(session, "AnsweredBefore", *steps, diary=Diary().save().hex())


@failure("restored-client-shares-among-other-keys")
def _() -> Vector:
    session = new_session().until(ServerState.SHARES)
    genuine = message_to(0, session.inbox)
    fewer = session.proof([frame for frame in session.frames_in(genuine) if frame[6] < 4])
    steps = ({"save": "old"}, receive(fewer), {"restore": "old"}, receive(genuine))
    return at_client(session, "AnsweredBefore", *steps, diary=Diary().save().hex())


@failure("restored-client-reveals-for-another-graph")
def _() -> Vector:
    session = new_session(**RING).until(ServerState.KEYS)
    genuine = message_to(0, session.inbox)
    book = CommitBook.decode(session.body_of(genuine), session.limits)
    body = CommitBook(book.commitments | {7: bytes(32)}).encode()
    other = session.forged(Kind.COMMIT_BOOK, body, session.transcript_of(genuine))
    steps = ({"save": "old"}, receive(other), {"restore": "old"}, receive(genuine))
    return at_client(session, "AnsweredBefore", *steps, diary=Diary().save().hex())


@failure("restored-client-with-an-older-diary")
def _() -> Vector:
    session = new_session().until(ServerState.SHARES)
    steps = ({"save": "old"}, {"diary": Diary().save().hex()}, {"restore": "old"})
    return at_client(session, "BadSavedState", *steps, diary=Diary().save().hex(), after="advertised")


@failure("restored-client-with-another-client-s-diary")
def _() -> Vector:
    session = new_session().until(ServerState.SHARES)
    diary, parameters = Diary(), session.parameters
    diary.begin(parameters.round_number, parameters.session_id, 16, client=1)
    transcript = session.clients[0]._accepted.transcript
    diary.answer(parameters.round_number, parameters.session_id, Kind.ADVERTISE, transcript)
    steps = ({"save": "old"}, {"diary": diary.save().hex()}, {"restore": "old"})
    return at_client(session, "BadSavedState", *steps, diary=Diary().save().hex(), after="advertised")


# --- invitations ------------------------------------------------------------------------------------------------------


def invitation(session: Session, **change: object) -> bytes:
    """An invitation to parameters that are safe in themselves, but not what was meant."""
    parameters = replace(session.parameters, **change)
    return MaskingServer(parameters, session.operator).invitation()


def unsafe_invitation(session: Session, offset: int, value: int, size: int) -> bytes:
    """An invitation in whose parameters one number is changed to something unsafe."""
    body = bytearray(session.parameters.encoded)
    body[offset : offset + size] = value.to_bytes(size, "little")
    return session.forged(Kind.INVITATION, bytes(body), session.parameters.session_id)


THRESHOLD, LENGTH, MAGNITUDE, DEGREE = 104, 108, 112, 137  # where these stand in the parameters


@failure("threshold-that-two-halves-can-reach")
def _() -> Vector:
    session = new_session()
    return at_client(session, "ThresholdUnsafe", receive(unsafe_invitation(session, THRESHOLD, 3, 2)), after="invited")


@failure("ring-too-small-for-the-sum")
def _() -> Vector:
    session = new_session()
    data = unsafe_invitation(session, MAGNITUDE, 2**31 // 5 + 1, 8)
    return at_client(session, "RingTooSmall", receive(data), after="invited")


@failure("graph-that-falls-apart")
def _() -> Vector:
    session = new_session(**RING)
    return at_client(session, "GraphUnsafe", receive(unsafe_invitation(session, DEGREE, 2, 2)), after="invited")


@failure("graph-that-trusts-the-server")
def _() -> Vector:
    session = new_session(**RING)
    data = invitation(session, graph=replace(SMALL_RING, malicious_server=False), threshold=2)
    return at_client(session, "PolicyRefused", receive(data), after="invited")


@failure("fewer-survivors-than-the-policy-asks-for")
def _() -> Vector:
    session = new_session()
    data = receive(invitation(session))
    return at_client(session, "PolicyRefused", data, after="invited", lowest_threshold=5)


@failure("less-noise-than-the-policy-asks-for")
def _() -> Vector:
    session = new_session()
    data = receive(invitation(session))
    return at_client(session, "PolicyRefused", data, after="invited", lowest_noise_variance=9)


@failure("wider-clipping-than-the-policy-asks-for")
def _() -> Vector:
    session = new_session()
    data = receive(invitation(session))
    return at_client(session, "PolicyRefused", data, after="invited", highest_magnitude=50)


@failure("sock-puppets")
def _() -> Vector:
    session = new_session()
    puppets = tuple(Member(f"client {i}", Identity(bytes([i]) * 32).public) for i in range(1, 5))
    data = receive(invitation(session, roster=(session.parameters.roster[0], *puppets)))
    return at_client(session, "PolicyRefused", data, after="invited")


@failure("another-context")
def _() -> Vector:
    session = new_session()
    data = receive(invitation(session, context=bytes(32)))
    return at_client(session, "ContextMismatch", data, after="invited")


@failure("not-invited")
def _() -> Vector:
    session = new_session()
    stranger = Member("client 0", Identity(b"s" * 32).public)
    data = receive(invitation(session, roster=(stranger, *session.parameters.roster[1:])))
    vector = at_client(session, "UnknownClient", data, after="invited")
    known = {"client 0": stranger.public.hex()}
    return vector | {"policy": {**vector["policy"], "known": {**vector["policy"]["known"], **known}}}


@failure("too-many-restarts")
def _() -> Vector:
    session = new_session(**RING)
    diary = Diary()
    for number in range(SMALL_RING.restarts):
        diary.begin(7, bytes([number]) * 32, SMALL_RING.restarts, client=0)
    data = receive(session.inbox[0].data)
    return at_client(session, "TooManyRestarts", data, after="invited", diary=diary.save().hex(), smallest_difference=1)


@failure("one-invitation-accepted-too-often")
def _() -> Vector:
    session = new_session()
    diary = Diary()
    for _ in range(16):
        diary.begin(7, session.parameters.session_id, 16, client=0)
    data = receive(session.inbox[0].data)
    return at_client(session, "TooManyRestarts", data, after="invited", diary=diary.save().hex())


@failure("graph-for-fewer-restarts-than-the-policy-allows")
def _() -> Vector:
    session = new_session(**RING)
    data = receive(invitation(session, graph=replace(SMALL_RING, restarts=15)))
    return at_client(session, "PolicyRefused", data, after="invited")


@failure("cohort-rule-in-a-k-regular-graph")
def _() -> Vector:
    session = new_session(**RING)
    data = receive(session.inbox[0].data)
    return at_client(session, "PolicyRefused", data, after="invited", diary=Diary().save().hex(), smallest_difference=3)


@failure("more-colluders-than-the-cohort-rule-fits")
def _() -> Vector:
    session = new_session()
    data = receive(invitation(session, colluders=2))
    return at_client(session, "PolicyRefused", data, after="invited", diary=Diary().save().hex(), smallest_difference=3)
