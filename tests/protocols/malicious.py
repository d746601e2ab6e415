"""What a malicious server does with shares: it recovers secrets, and takes masks away with what `plain` computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from securekd_protocols.messages import Advertise, Kind, MaskedInput, SharePair, SurvivorList, Unmask
from tests.protocols import plain
from tests.protocols.harness import Session


def tell_survivors(session: Session, client: int, survivors: Iterable[int]) -> bytes:
    """Have a client sign that these have survived."""
    transcript = session.clients[client]._accepted.transcript
    body = SurvivorList(tuple(sorted(survivors))).encode()
    return session.clients[client].receive(session.forged(Kind.SURVIVOR_LIST, body, transcript))[0]


def unmask(session: Session, client: int, signatures: Iterable[bytes]) -> Unmask:
    """Have a client give its shares."""
    (answer,) = session.clients[client].receive(session.proof(list(signatures)))
    return Unmask.decode(session.body_of(answer), session.limits)


def secret_of(
    session: Session,
    owner: int,
    kind: str,
    answers: Mapping[int, Unmask],
    colluding: Mapping[int, Mapping[int, SharePair]] | None = None,
) -> bytes:
    """The seed ("seeds") or mask key ("keys") of a client, from shares that others have given, or colluders hold."""
    held = [(helper, one) for helper, answer in answers.items() for one in getattr(answer, kind)]
    shares = {helper: one.share for helper, one in held if one.owner == owner}
    for helper, pairs in (colluding or {}).items():
        if owner in pairs:
            shares[helper] = getattr(pairs[owner], kind.removesuffix("s"))
    assert len(shares) >= session.parameters.threshold
    return plain.recover(dict(list(shares.items())[: session.parameters.threshold]))


def sum_behind(
    session: Session,
    masked: Mapping[int, bytes],
    seeds: Mapping[int, bytes],
    keys: Mapping[int, bytes],
    advertised: Mapping[int, Advertise],
    peers: Mapping[int, Iterable[int]],
) -> np.ndarray:
    """The sum of the inputs behind masked ones.

    Args:
        session: Whose messages they are.
        masked: A frame from each client whose input is summed.
        seeds: Their self-mask seeds.
        keys: Mask keys of others with whom they share masks.
        advertised: Everybody's public keys.
        peers: With whom each shares a mask; masks among the clients of `masked` cancel.
    """
    session_id, size, total = session.parameters.session_id, session.parameters.vector_length, 0
    for client, data in masked.items():
        bound = session_id + session.transcript_of(data)
        info = plain.label("self mask") + bound + plain.le(client, 2)
        streams = [(1, plain.hkdf(seeds[client], session_id, info, 28))]
        for peer in set(peers[client]) & keys.keys():
            info = plain.label("pair mask") + bound + b"".join(plain.le(i, 2) for i in sorted((client, peer)))
            secret = plain.agree(keys[peer], advertised[client].mask_key)
            streams.append((1 if client < peer else -1, plain.hkdf(secret, session_id, info, 28)))
        words = MaskedInput.decode(session.body_of(data), session.limits).words
        total += np.frombuffer(words, "<u4").astype(np.int64)
        total -= sum(sign * np.array(plain.keystream_words(stream, size, 4), np.int64) for sign, stream in streams)
    return (total + 2**31) % 2**32 - 2**31
