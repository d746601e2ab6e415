"""What a client answers at each stage, once a message is known to be genuine and due.

Every refusal in here ends the session for this client.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from securekd_protocols.books import CommitBook, FrameList, KeyBook
from securekd_protocols.diary import Diary
from securekd_protocols.errors import (
    BrokenCommitment,
    CallOutOfOrder,
    InconsistentSurvivors,
    LiveClientCalledDead,
    MalformedMessage,
    ReplayedMessage,
    TooFewSurvivors,
    TranscriptMismatch,
    UnknownSender,
    WithheldReveal,
)
from securekd_protocols.frame import SERVER, Frame, parse_frame, verify_frame
from securekd_protocols.graph import graph_seed, ring_graph
from securekd_protocols.keys import commit_to_reveal, input_tag
from securekd_protocols.masking.secrets import agree_with_all, check_advertise, masks_of, open_boxes, seal_shares
from securekd_protocols.masking.session import GIVE_UP, ClientSession
from securekd_protocols.messages import (
    Advertise,
    Consistency,
    HeldShare,
    Kind,
    MaskedInput,
    ShareDelivery,
    Shares,
    SurvivorList,
    Unmask,
)
from securekd_protocols.parameters import RegularGraph
from securekd_protocols.randomness import RandomBytes
from securekd_protocols.ring import apply_masks
from securekd_protocols.transcript import with_commitments, with_keys, with_sharers, with_survivors


def own_commitment(session: ClientSession) -> bytes:
    """This client's commitment to its part of the graph seed."""
    return commit_to_reveal(session.parameters.session_id, session.index, session.secrets.reveal)


def on_commit_book(session: ClientSession, book: CommitBook) -> Advertise:
    """All commitments are on the table: advertise keys, and reveal."""
    commitments = book.commitments
    if commitments.get(session.index) != own_commitment(session):
        raise TranscriptMismatch("the commit book does not hold this client's own commitment", GIVE_UP)
    present, needed = len(commitments), session.parameters.fewest_survivors
    if present < needed:
        raise TooFewSurvivors(f"{present} clients have committed, and {needed} are needed", GIVE_UP)
    session.commitments = commitments
    session.transcript = with_commitments(session.transcript, commitments)
    return session.own_advertise


def on_key_book(session: ClientSession, book: KeyBook, random_bytes: RandomBytes) -> Shares:
    """All keys are known: find the neighbours, agree with each, and share the secrets among them."""
    graph = session.parameters.graph
    digests = {} if graph is None else _draw_graph(session, graph, book)
    near = session.graph.neighbours(session.index) | {session.index}
    frames = client_frames(session, book.frames, Kind.ADVERTISE, near)
    advertised = {frame.header.sender: Advertise.decode(frame.body, session.limits) for frame in frames}
    if advertised.get(session.index) != session.own_advertise:
        raise TranscriptMismatch("the key book does not hold this client's own keys", GIVE_UP)
    given = {index: hashlib.sha256(message.encode()).digest() for index, message in advertised.items()}
    if graph is None:
        digests = given
    if given.keys() != near & digests.keys():
        raise WithheldReveal("the key book does not hold the keys of all of this client's neighbours", GIVE_UP)
    if any(digests[index] != digest for index, digest in given.items()):
        raise TranscriptMismatch("the key book holds other keys than it lists", GIVE_UP)
    session.enough(digests, "have advertised keys")
    owners: dict[bytes, int] = {}
    for index, message in advertised.items():
        check_advertise(index, message, owners)
    session.pairs = agree_with_all(session.secrets, session.index, advertised)
    session.server_secret = session.secrets.share_key.agree(book.server_key)
    session.transcript = with_keys(session.transcript, book.server_key, digests)
    holders = session.graph.holders(session.index) & digests.keys()
    own, shares = seal_shares(
        session.secrets,
        session.index,
        session.parameters.threshold,
        holders,
        session.pairs,
        session.binding,
        random_bytes,
    )
    if own is not None:
        session.held[session.index] = own
    return shares


def on_share_delivery(session: ClientSession, delivery: ShareDelivery) -> MaskedInput:
    """All shares are delivered: mask the input, once."""
    sharers = delivery.sharers
    others = (set(sharers) & session.pairs.keys()) - {session.index}
    strangers = set(sharers) - session.commitments.keys() - session.pairs.keys() - {session.index}
    if session.index not in sharers or strangers:
        raise MalformedMessage(f"shares of clients {sharers}, who are not those that take part", GIVE_UP)
    if {box.peer for box in delivery.boxes} != others:
        raise MalformedMessage("not one box from each neighbour that has shared", GIVE_UP)
    session.enough(sharers, "have shared")
    session.held |= open_boxes(session.index, delivery.boxes, session.pairs, session.binding)
    session.sharers = sharers
    session.transcript = with_sharers(session.transcript, sharers)
    words, session.words = session.words, None
    if words is None:
        raise CallOutOfOrder("no input was submitted", "submit() it first")
    apply_masks(words, masks_of(session.secrets, session.index, sharers, session.pairs, session.binding))
    packed = session.parameters.ring.pack(words)
    return MaskedInput(input_tag(session.server_secret, session.binding, session.index, packed), packed)


def on_survivor_list(session: ClientSession, message: SurvivorList, diary: Diary | None) -> Consistency:
    """The survivors are known: sign them, once."""
    survivors = message.survivors
    if not set(survivors) <= set(session.sharers):
        raise InconsistentSurvivors(f"survivors {survivors}, of whom some have never shared", GIVE_UP)
    if session.index not in survivors:
        raise LiveClientCalledDead("the server tells this client that it has dropped out", GIVE_UP)
    session.enough(survivors, "have survived")
    if diary is not None:
        names = frozenset(session.parameters.roster[index].name for index in survivors)
        diary.sign(session.parameters.session_id, names)
    session.survivors = survivors
    session.transcript = with_survivors(session.transcript, survivors)
    return Consistency()


def on_consistency_proof(session: ClientSession, proof: FrameList) -> Unmask:
    """Enough holders have signed the same survivors: give one share for each client that is known, never two."""
    near = session.graph.holders(session.index)
    signers = [
        frame.header.sender
        for frame in client_frames(session, proof.frames, Kind.CONSISTENCY, near)
        if frame.header.sender in near
    ]
    if not set(signers) <= set(session.survivors):
        raise InconsistentSurvivors(f"signatures of clients {signers}, of whom some are called dead", GIVE_UP)
    session.enough_neighbours(signers, "have signed the survivor set")
    alive = set(session.survivors)
    dropped = set(session.sharers) - alive
    seeds = tuple(HeldShare(owner, session.held[owner].seed) for owner in sorted(alive & session.held.keys()))
    keys = tuple(HeldShare(owner, session.held[owner].key) for owner in sorted(dropped & session.held.keys()))
    return Unmask(seeds, keys)


def client_frames(session: ClientSession, frames: tuple[bytes, ...], kind: Kind, who: Collection[int]) -> list[Frame]:
    """Authenticate the frames of other clients that the server passes on.

    Args:
        session: The reader's.
        frames: Whole frames.
        kind: Of all of them; all carry the reader's own transcript.
        who: Whose signatures count. Others' are not looked at.

    Returns:
        The frames of `who`, in order.

    Raises:
        RemoteProtocolError: One of them is not what it must be.
    """
    parsed = [parse_frame(data, session.limits) for data in frames]
    senders = [frame.header.sender for frame in parsed]
    if senders != sorted(set(senders)):
        raise MalformedMessage(f"frames of clients {senders}, not each once and in order", GIVE_UP)
    if SERVER in senders:
        raise UnknownSender(f"{kind.name} from the server, as if it were a client", GIVE_UP)
    if max(senders, default=0) >= session.parameters.clients:
        raise UnknownSender(f"no client has index {senders[-1]}", GIVE_UP)
    counted = [frame for frame in parsed if frame.header.sender in who]
    for frame in counted:
        header = frame.header
        if header.kind is not kind:
            raise MalformedMessage(f"{header.kind.name} passed on as {kind.name}", GIVE_UP)
        if header.session_id != session.parameters.session_id:
            raise ReplayedMessage(f"{kind.name} of client {header.sender} from another session", GIVE_UP)
        verify_frame(frame, session.parameters)
        if header.transcript != session.transcript:
            error = InconsistentSurvivors if kind is Kind.CONSISTENCY else TranscriptMismatch
            raise error(f"client {header.sender} was told another story than this one", GIVE_UP)
    return counted


def _draw_graph(session: ClientSession, graph: RegularGraph, book: KeyBook) -> dict[int, bytes]:
    """Check every reveal against its commitment, and order the ring; give the digest of each client's keys."""
    indices = sorted(session.commitments)
    if len(book.revealed) != len(indices):
        raise WithheldReveal(f"{len(book.revealed)} of {len(indices)} clients have revealed", GIVE_UP)
    rows = dict(zip(indices, book.revealed, strict=True))
    for index, row in rows.items():
        expected = commit_to_reveal(session.parameters.session_id, index, row.reveal)
        if expected != session.commitments[index]:
            raise BrokenCommitment(f"client {index} reveals something else than it committed to", GIVE_UP)
    seed = graph_seed(session.transcript, {index: row.reveal for index, row in rows.items()})
    session.graph = ring_graph(seed, session.parameters.clients, graph.degree)
    return {index: row.digest for index, row in rows.items()}
