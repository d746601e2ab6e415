"""A client's session as bytes, so that a crash is not a dropout.

The rule is: save after `receive` returns, before its replies are sent; after a crash, restore the latest state and send
again what it sends. A state always contains the input, or was made after the input was masked: no restored client, from
however old a state, takes another vector. That is not all that has to happen once. Masked for one set of sharers, then
restored and masked for another, the same input is behind two sets of masks, and a malicious server can have the one
opened through the other. It is the diary in the client's policy (`diary`) that keeps a restored client to one story a
session: one graph, one set of keys, one set of sharers, one set of survivors. It is kept apart from the state, and must
be at least as new. A state says whether its client had one, and is then not restored without. A client that never had
one, and is restored from an old state, counts as a colluder.

The format is this package's own affair and changes with its version: magic, whether there is a diary, then the
session's fields in the order of `ClientSession`, then SHA-256 over everything before it, against damage and not malice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from securekd_protocols.errors import BadParameter, BadSavedState, ProtocolError
from securekd_protocols.graph import CompleteGraph, Graph, RingGraph
from securekd_protocols.keys import KEY_BYTES, AgreementKey
from securekd_protocols.masking.secrets import PairSecrets, SessionSecrets
from securekd_protocols.masking.session import ClientSession
from securekd_protocols.messages import HASH_BYTES, SharePair
from securekd_protocols.parameters import MOST_CLIENTS, SessionParameters
from securekd_protocols.ring import Words
from securekd_protocols.shamir import SHARE_BYTES
from securekd_protocols.states import ClientState
from securekd_protocols.wire import Reader, Writer

_MAGIC = b"SKDA SECRET STATE\x04"  # states of release 0.1 go with diaries that hold no stories
_BEFORE_MASKING = (ClientState.COMMITTED, ClientState.ADVERTISED, ClientState.SHARED)
_PAIR_ITEM = 2 + 2 * KEY_BYTES
_HELD_ITEM = 2 + 2 * SHARE_BYTES


@dataclass(frozen=True)
class SecretState:
    """A saved client.

    Attributes:
        secret_bytes: Keys, shares and input, in the clear. Not shown in `repr`. Encrypt them where they are stored, and
            delete them when the session is over: whoever has them can open this client's input, and speak for it to the
            server until the session ends.
    """

    secret_bytes: bytes = field(repr=False)


def save_session(session: ClientSession, state: ClientState, has_diary: bool) -> SecretState:
    """Encode a session, the state that its client is in, and whether the client has a diary."""
    secrets = session.secrets
    writer = Writer().fixed(_MAGIC).integer(has_diary, 1).blob(state.name.encode()).blob(session.parameters.encoded)
    writer.integer(session.index, 2).fixed(session.transcript)
    writer.fixed(secrets.share_key.private).fixed(secrets.mask_key.private).fixed(secrets.seed).blob(secrets.reveal)
    order = session.graph.order if isinstance(session.graph, RingGraph) else ()
    writer.integer(len(order), 2)
    for index in order:
        writer.integer(index, 2)
    writer.integer(len(session.commitments), 2)
    for index, commitment in session.commitments.items():
        writer.integer(index, 2).fixed(commitment)
    writer.integer(len(session.pairs), 2)
    for index, pair in session.pairs.items():
        writer.integer(index, 2).fixed(pair.share).fixed(pair.mask)
    writer.blob(session.server_secret).integer(len(session.held), 2)
    for index, held in session.held.items():
        writer.integer(index, 2).fixed(held.encode())
    writer.indices(session.sharers).indices(session.survivors)
    if session.words is not None:
        writer.fixed(session.parameters.ring.pack(session.words))
    body = writer.finish()
    return SecretState(body + hashlib.sha256(body).digest())


def load_session(saved: SecretState) -> tuple[ClientSession, ClientState, bool]:
    """Decode what `save_session` made.

    Raises:
        BadSavedState: It is something else.
    """
    data = saved.secret_bytes
    if hashlib.sha256(data[:-HASH_BYTES]).digest() != data[-HASH_BYTES:] or not data.startswith(_MAGIC):
        raise BadSavedState(f"{len(data)} bytes that are no whole saved client of this release", "leave the session")
    reader = Reader(data[len(_MAGIC) : -HASH_BYTES], "saved client")
    try:
        has_diary = reader.integer(1)
        if has_diary > 1:
            raise reader.malformed(f"{has_diary} diaries")
        state = ClientState[reader.blob(64).decode()]
        session = _read_session(reader, state)
        reader.finish()
    except (ProtocolError, KeyError, UnicodeDecodeError) as error:
        raise BadSavedState(f"a saved client that can not be read: {error}", "leave the session") from error
    return session, state, bool(has_diary)


def _read_session(reader: Reader, state: ClientState) -> ClientSession:
    parameters = SessionParameters.decode(reader.blob(2**32))
    index, transcript = reader.integer(2), reader.fixed(HASH_BYTES)
    keys = AgreementKey(reader.fixed(KEY_BYTES)), AgreementKey(reader.fixed(KEY_BYTES))
    secrets = SessionSecrets(*keys, reader.fixed(KEY_BYTES), reader.blob(KEY_BYTES))
    order = tuple(reader.integer(2) for _ in range(reader.count(MOST_CLIENTS, 2)))
    graph: Graph = CompleteGraph(parameters.clients)
    if parameters.graph is not None:
        graph = RingGraph(order, parameters.graph.degree)
    commitments = {reader.integer(2): reader.fixed(HASH_BYTES) for _ in range(reader.count(MOST_CLIENTS, 2))}
    pairs = {
        reader.integer(2): PairSecrets(reader.fixed(KEY_BYTES), reader.fixed(KEY_BYTES))
        for _ in range(reader.count(MOST_CLIENTS, _PAIR_ITEM))
    }
    server_secret = reader.blob(KEY_BYTES)
    held = {
        reader.integer(2): SharePair.decode(reader.fixed(2 * SHARE_BYTES))
        for _ in range(reader.count(MOST_CLIENTS, _HELD_ITEM))
    }
    sharers, survivors = reader.indices(parameters.clients), reader.indices(parameters.clients)
    words: Words | None = None
    if state in _BEFORE_MASKING:
        words = parameters.ring.unpack(reader.fixed(parameters.ring.value_bytes * parameters.vector_length)).copy()
    if index >= parameters.clients:
        raise BadParameter(f"client {index} of {parameters.clients}", "leave the session")
    return ClientSession(
        parameters=parameters,
        index=index,
        transcript=transcript,
        secrets=secrets,
        graph=graph,
        commitments=commitments,
        pairs=pairs,
        server_secret=server_secret,
        held=held,
        sharers=sharers,
        survivors=survivors,
        words=words,
    )
