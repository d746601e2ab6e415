"""A server, or a network, that lies: every attempt ends in a named error, and nobody's two shares are given away."""

from dataclasses import replace
from itertools import combinations

import pytest

from securekd_protocols.books import FrameList
from securekd_protocols.errors import (
    BadSignature,
    ContextMismatch,
    DuplicateKey,
    InconsistentSurvivors,
    LiveClientCalledDead,
    LowOrderPoint,
    MalformedMessage,
    NonCanonicalKey,
    OutOfOrder,
    PolicyRefused,
    ReplayedMessage,
    SecondUnmaskRequest,
    TamperedShare,
    TooFewSurvivors,
    TranscriptMismatch,
    UnknownClient,
    UnknownSender,
)
from securekd_protocols.frame import SERVER, Header, seal_frame
from securekd_protocols.keys import AgreementKey, Binding, Identity, seal
from securekd_protocols.masking.client import MaskingClient
from securekd_protocols.masking.secrets import SessionSecrets
from securekd_protocols.masking.server import MaskingServer, Outgoing
from securekd_protocols.messages import (
    Advertise,
    Box,
    Kind,
    ShareDelivery,
    Shares,
    SurvivorList,
    Unmask,
)
from securekd_protocols.parameters import Member
from securekd_protocols.states import ClientState, ServerState
from tests.protocols.harness import Session, message_to


def refused(client, data, error):
    """The client refuses with this very error, and its session is over."""
    with pytest.raises(error) as caught:
        client.receive(data)
    assert type(caught.value) is error
    assert client.state is ClientState.ABORTED
    with pytest.raises(OutOfOrder):
        client.receive(data)


def ignored(client, data, error):
    """The client refuses with this very error, and stays as it was."""
    before = client.state
    with pytest.raises(error) as caught:
        client.receive(data)
    assert type(caught.value) is error
    assert client.state is before


# --- survivor sets ----------------------------------------------------------------------------------------------------


def equivocate(session, alive_for):
    """Tell the clients in `alive_for` that all have survived, and the others that client 0 has dropped out.

    Returns the signatures of both camps.
    """
    session.until(ServerState.SIGNATURES)
    everybody = range(session.parameters.clients)
    lists = {True: SurvivorList(tuple(everybody)), False: SurvivorList(tuple(everybody)[1:])}
    transcript = session.transcript_of(session.inbox[0].data)
    signatures = {True: [], False: []}
    for index in everybody:
        camp = index in alive_for
        if index == 0 and not camp:
            continue
        message = session.forged(Kind.SURVIVOR_LIST, lists[camp].encode(), transcript)
        signatures[camp] += session.clients[index].receive(message)
    return signatures


@pytest.mark.parametrize("alive_for", [c for size in (1, 2, 3, 4) for c in combinations(range(1, 5), size)])
def test_the_same_client_alive_for_some_and_dead_for_others(alive_for):
    """However the server splits the clients, at most one camp can be made to answer: never both shares of client 0."""
    session = Session(n=5)
    camp = {0, *alive_for}
    signatures = equivocate(session, camp)
    seeds, keys = 0, 0
    for index, client in enumerate(session.clients):
        own = signatures[index in camp]
        if not own:
            continue
        try:
            answer = Unmask.decode(session.body_of(client.receive(session.proof(own))[0]), session.limits)
        except TooFewSurvivors:
            assert client.state is ClientState.ABORTED
            continue
        seeds += 0 in {held.owner for held in answer.seeds}
        keys += 0 in {held.owner for held in answer.keys}
    assert min(seeds, keys) == 0
    assert max(seeds, keys) in (0, 4, 5)


def test_signatures_of_another_survivor_set_are_refused():
    session = Session(n=5)
    signatures = equivocate(session, {0, 1, 2})
    mixed = sorted(signatures[True] + signatures[False], key=lambda data: data[6])
    for index, client in enumerate(session.clients):
        transcript = session.transcript_of(signatures[index in {0, 1, 2}][0])
        proof = session.forged(Kind.CONSISTENCY_PROOF, FrameList(tuple(mixed)).encode(), transcript)
        refused(client, proof, InconsistentSurvivors)


def test_a_proof_for_another_survivor_set_is_refused():
    session = Session(n=5)
    signatures = equivocate(session, {0, 1, 2})
    refused(session.clients[3], session.proof(signatures[True]), InconsistentSurvivors)


def test_a_live_client_called_dead_to_its_face():
    session = Session(n=5).until(ServerState.SIGNATURES)
    transcript = session.transcript_of(session.inbox[0].data)
    message = session.forged(Kind.SURVIVOR_LIST, SurvivorList((1, 2, 3, 4)).encode(), transcript)
    refused(session.clients[0], message, LiveClientCalledDead)


def test_a_live_client_called_dead_behind_its_back_keeps_its_self_mask():
    session = Session(n=5)
    signatures = equivocate(session, set())
    proof = session.proof(signatures[False])
    for client in session.clients[1:]:
        answer = Unmask.decode(session.body_of(client.receive(proof)[0]), session.limits)
        assert [held.owner for held in answer.seeds] == [1, 2, 3, 4]
        assert [held.owner for held in answer.keys] == [0]


def test_one_client_twice_in_a_survivor_list_is_no_message():
    session = Session(n=5).until(ServerState.SIGNATURES)
    body = (6).to_bytes(2, "little") + b"".join(i.to_bytes(2, "little") for i in (0, 0, 1, 2, 3, 4))
    transcript = session.transcript_of(session.inbox[0].data)
    refused(session.clients[0], session.forged(Kind.SURVIVOR_LIST, body, transcript), MalformedMessage)


@pytest.mark.parametrize(
    ("survivors", "error"),
    [((0, 1, 2), TooFewSurvivors), ((0, 1, 2, 3, 4), InconsistentSurvivors), ((), LiveClientCalledDead)],
)
def test_survivor_lists_that_can_not_be(survivors, error):
    session = Session(n=5)
    session.stage()
    session.stage(silent={4})  # client 4 never shares
    session.stage()
    message = session.forged(
        Kind.SURVIVOR_LIST, SurvivorList(survivors).encode(), session.transcript_of(session.inbox[0].data)
    )
    refused(session.clients[0], message, error)


def test_a_second_survivor_list_is_not_signed():
    session = Session(n=5).until(ServerState.SIGNATURES)
    first = message_to(0, session.inbox)
    session.clients[0].receive(first)
    other = session.forged(Kind.SURVIVOR_LIST, SurvivorList((0, 1, 2, 3)).encode(), session.transcript_of(first))
    ignored(session.clients[0], other, OutOfOrder)
    ignored(session.clients[0], first, OutOfOrder)


def test_a_second_unmask_request_with_another_set():
    session = Session(n=5).until(ServerState.UNMASKING)
    request = message_to(1, session.inbox)
    session.stage()
    ignored(session.clients[1], request, SecondUnmaskRequest)
    ignored(session.clients[1], session.forged(Kind.CONSISTENCY_PROOF, b"\0\0", bytes(32)), SecondUnmaskRequest)


def test_proofs_with_too_few_forged_or_strangers_signatures():
    def with_frames(change):
        session = Session(n=5).until(ServerState.UNMASKING)
        data = message_to(0, session.inbox)
        frames = session.frames_in(data)
        body = FrameList(tuple(change(session, list(frames)))).encode()
        return session.clients[0], session.forged(Kind.CONSISTENCY_PROOF, body, session.transcript_of(data))

    refused(*with_frames(lambda s, f: f[:3]), TooFewSurvivors)
    refused(*with_frames(lambda s, f: [f[0], f[0], f[1], f[2]]), MalformedMessage)
    refused(*with_frames(lambda s, f: f[::-1]), MalformedMessage)
    refused(*with_frames(lambda s, f: [*f[:4], f[4][:-1] + bytes([f[4][-1] ^ 1])]), BadSignature)
    refused(*with_frames(lambda s, f: [*f[:4], s.forged(Kind.CONSISTENCY, b"", s.transcript_of(f[0]))]), UnknownSender)
    refused(*with_frames(lambda s, f: [*f[:4], s.signed_by(4, Kind.ADVERTISE, b"", bytes(32))]), MalformedMessage)


def test_a_dead_client_s_signature_does_not_count():
    session = Session(n=6)
    session.stage()
    session.stage()
    session.stage(silent={5})
    session.stage()
    data = message_to(0, session.inbox)
    transcript = session.transcript_of(data)
    frames = session.frames_in(data)
    body = FrameList((*frames, session.signed_by(5, Kind.CONSISTENCY, b"", transcript))).encode()
    refused(session.clients[0], session.forged(Kind.CONSISTENCY_PROOF, body, transcript), InconsistentSurvivors)


# --- keys -------------------------------------------------------------------------------------------------------------


def book_with(changes):
    """A key book in which clients, in league with the server, advertise what they like."""
    session = Session(n=5)
    frames = session.answers()
    honest = {i: Advertise.decode(session.body_of(data), session.limits) for i, data in enumerate(frames)}
    for index, change in changes.items():
        body = change(honest).encode()
        frames[index] = session.signed_by(index, Kind.ADVERTISE, body, session.parameters.session_id)
    return session, session.proof(frames)


FRESH = AgreementKey(b"\x21" * 32).public


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda h: Advertise(bytes(32), FRESH, bytes(32)), LowOrderPoint),
        (lambda h: Advertise(FRESH, b"\x01" + bytes(31), bytes(32)), LowOrderPoint),
        (lambda h: Advertise(FRESH, FRESH, bytes(32)), DuplicateKey),
        (lambda h: Advertise(FRESH, h[1].mask_key, bytes(32)), DuplicateKey),
        (lambda h: Advertise(h[1].mask_key, FRESH, bytes(32)), DuplicateKey),
        (lambda h: Advertise(FRESH, h[0].mask_key, bytes(32)), DuplicateKey),
        (lambda h: Advertise(FRESH, h[1].mask_key[:31] + bytes([h[1].mask_key[31] | 128]), bytes(32)), NonCanonicalKey),
    ],
)
def test_weak_duplicate_or_misspelt_keys(change, error):
    session, book = book_with({4: change})
    refused(session.clients[0], book, error)
    colluder = session.frames_in(book)
    honest_server = Session(n=5)
    for index in range(4):
        honest_server.server.receive(colluder[index])
    with pytest.raises(error):  # an honest server does not let it so far
        honest_server.server.receive(colluder[4])
    assert honest_server.server.state is ServerState.KEYS


def test_swapped_keys():
    session = Session(n=5)
    frames = session.answers()
    bodies = [session.body_of(data) for data in frames]
    forged = frames[:]
    forged[1] = frames[1][:76] + bodies[2] + frames[1][-64:]
    forged[2] = frames[2][:76] + bodies[1] + frames[2][-64:]
    refused(session.clients[0], session.proof(forged), BadSignature)
    own_replaced = [session.signed_by(0, Kind.ADVERTISE, bodies[1], session.parameters.session_id), *frames[1:]]
    refused(session.clients[3], session.proof([frames[0], *own_replaced[1:4], own_replaced[0]]), MalformedMessage)


def test_a_client_recognises_its_own_keys():
    session, book = book_with({4: lambda h: Advertise(FRESH, AgreementKey(b"\x22" * 32).public, bytes(32))})
    refused(session.clients[4], book, TranscriptMismatch)
    session, book = book_with({})
    frames = session.frames_in(book)
    refused(session.clients[4], session.proof(list(frames[:4])), TranscriptMismatch)


def test_different_key_books_part_the_clients():
    """Clients that saw different keys hold different transcripts: their shares do not open, their masks never meet."""
    session, other = book_with({4: lambda h: Advertise(FRESH, AgreementKey(b"\x22" * 32).public, bytes(32))})
    honest = Session(n=5)
    frames = honest.answers()
    shares = honest.clients[0].receive(honest.proof(frames))[0]
    lied_to = session.clients[1].receive(other)[0]
    assert session.transcript_of(shares) != session.transcript_of(lied_to)
    for data in frames:
        honest.server.receive(data)
    with pytest.raises(TranscriptMismatch):
        honest.server.receive(lied_to)


def test_too_few_keys():
    session = Session(n=5)
    refused(session.clients[0], session.proof(session.answers()[:3]), TooFewSurvivors)


# --- shares -----------------------------------------------------------------------------------------------------------


def delivery_with(change):
    session = Session(n=5).until(ServerState.MASKED_INPUTS)
    data = message_to(0, session.inbox)
    delivery = ShareDelivery.decode(session.body_of(data), session.limits)
    changed = change(session, delivery)
    return session.clients[0], session.forged(Kind.SHARE_DELIVERY, changed.encode(), session.transcript_of(data))


def with_boxes(delivery, *boxes):
    return ShareDelivery(delivery.sharers, boxes)


def test_tampered_swapped_or_replayed_boxes():
    def flip(session, d):
        first = d.boxes[0]
        return with_boxes(d, Box(first.peer, first.sealed[:-1] + bytes([first.sealed[-1] ^ 1])), *d.boxes[1:])

    def swap(session, d):
        a, b = d.boxes[:2]
        return with_boxes(d, Box(a.peer, b.sealed), Box(b.peer, a.sealed), *d.boxes[2:])

    def of_another_session(session, d):
        other = Session(n=5, seed=b"other").until(ServerState.MASKED_INPUTS)
        body = other.body_of(message_to(0, other.inbox))
        return ShareDelivery.decode(body, other.limits)

    for change in (flip, swap, of_another_session):
        refused(*delivery_with(change), TamperedShare)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s, d: with_boxes(d, *d.boxes[1:]), MalformedMessage),
        (lambda s, d: ShareDelivery(d.sharers[1:], d.boxes), MalformedMessage),
        (lambda s, d: ShareDelivery(d.sharers[:3], d.boxes), MalformedMessage),
        (lambda s, d: ShareDelivery(d.sharers[:3], d.boxes[:2]), TooFewSurvivors),
        (lambda s, d: with_boxes(d, *d.boxes[:3], d.boxes[2]), MalformedMessage),
    ],
)
def test_deliveries_that_do_not_add_up(change, error):
    refused(*delivery_with(change), error)


def test_deliveries_to_different_sharers_do_not_lead_to_one_sum():
    """Who was told that fewer have shared masks under another transcript, and an honest server notices."""
    session = Session(n=5).until(ServerState.MASKED_INPUTS)
    data = message_to(0, session.inbox)
    delivery = ShareDelivery.decode(session.body_of(data), session.limits)
    fewer = ShareDelivery(delivery.sharers[:4], delivery.boxes[:3])
    lie = session.forged(Kind.SHARE_DELIVERY, fewer.encode(), session.transcript_of(data))
    masked = session.clients[0].receive(lie)[0]
    with pytest.raises(TranscriptMismatch):
        session.server.receive(masked)


def test_boxes_with_something_else_than_shares_inside():
    session = Session(n=5)
    frames = session.answers()
    traitor = SessionSecrets.generate(session.random)
    frames[4] = session.signed_by(
        4, Kind.ADVERTISE, traitor.advertise(session.parameters.session_id, 4).encode(), session.parameters.session_id
    )
    for data in frames:
        session.inbox += session.server.receive(data)
    victim = Advertise.decode(session.body_of(frames[0]), session.limits)
    session.inbox = [message for message in session.inbox if message.recipient != 4]
    answers = session.answers()
    transcript = session.transcript_of(answers[0])
    binding = Binding(session.parameters.session_id, transcript)
    secret = traitor.share_key.agree(victim.share_key)
    bad = seal(secret, binding, 4, 0, b"\xff" * 66, session.random)
    boxes = (Box(0, bad), *(Box(i, bytes(94)) for i in (1, 2, 3)))
    for data in [*answers, session.signed_by(4, Kind.SHARES, Shares(boxes).encode(), transcript)]:
        session.inbox += session.server.receive(data)
    refused(session.clients[0], message_to(0, session.inbox), TamperedShare)


# --- invitations, sessions, contexts ----------------------------------------------------------------------------------


def test_clients_with_different_transfer_sets_do_not_share_a_session():
    session = Session(n=5, contexts={2: b"poisoned digits"})
    ignored(session.clients[2], message_to(2, session.inbox), ContextMismatch)
    session.stage(silent={2})
    session.until(ServerState.FINISHED)
    assert session.server.result.survivors == (0, 1, 3, 4)


def test_an_invitation_from_somebody_else_or_for_somebody_else():
    session, stranger = Session(n=3), Session(n=3, seed=b"stranger")
    client = session.clients[0]
    ignored(client, stranger.server.invitation(), BadSignature)
    ignored(client, session.signed_by(1, Kind.INVITATION, b"", bytes(32)), UnknownSender)
    lying_id = session.forged(Kind.INVITATION, session.parameters.encoded, bytes(32))
    assert len(client.receive(lying_id)) == 1  # an invitation's transcript says nothing: its body says all
    outsider = MaskingClient(Identity(b"o" * 32), session.clients[1]._policy)
    with pytest.raises(UnknownClient):
        outsider.receive(session.server.invitation())
    assert outsider.state is ClientState.INVITED


def test_a_session_id_that_is_not_the_parameters_hash():
    session = Session(n=3)
    header = Header(Kind.INVITATION, SERVER, b"x" * 32, b"x" * 32)
    data = seal_frame(header, session.parameters.encoded, session.operator)
    ignored(session.clients[0], data, MalformedMessage)


def test_sock_puppets_are_refused():
    """The server invites one victim among keys of its own invention."""
    session = Session(n=5)
    puppets = tuple(Member(f"client {i}", Identity(bytes([i]) * 32).public) for i in range(1, 5))
    parameters = replace(session.parameters, roster=(session.parameters.roster[0], *puppets))
    invitation = MaskingServer(parameters, session.operator).invitation()
    ignored(session.clients[0], invitation, PolicyRefused)


def test_replay_from_another_session_with_the_same_participants():
    """Same identities, same round, another nonce: nothing of the one session is taken in the other."""
    first, second = Session(n=3), Session(n=3)
    second.parameters = replace(second.parameters, nonce=b"n" * 32)
    second.server = MaskingServer(second.parameters, second.operator)
    second.inbox = [Outgoing(i, second.server.invitation()) for i in range(3)]
    while first.server.state is not ServerState.FINISHED:
        up = first.stage()
        down = first.inbox
        for data in up:
            with pytest.raises(ReplayedMessage):
                second.server.receive(data)
        second.stage()
        for message in down:
            ignored(second.clients[message.recipient], message.data, ReplayedMessage)
    assert (second.server.result.total == first.server.result.total).all()


def test_bytes_from_the_network_do_not_end_a_session():
    session = Session(n=3)
    session.stage()
    genuine = message_to(0, session.inbox)
    client = session.clients[0]
    for junk in (b"", b"junk", bytes(500), genuine[:-1], genuine + b"\0"):
        ignored(client, junk, MalformedMessage)
    ignored(client, genuine[:-1] + bytes([genuine[-1] ^ 1]), BadSignature)
    ignored(client, genuine[:80] + bytes([genuine[80] ^ 1]) + genuine[81:], BadSignature)
    ignored(client, session.signed_by(1, Kind.KEY_BOOK, b"", bytes(32)), UnknownSender)
    session.until(ServerState.FINISHED)
    assert (session.server.result.total == session.expected(range(3))).all()
