"""One session of this library, client by client, with the CPU time of each side."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections import deque
from statistics import median

import numpy as np
from secure_aggregation_cost import STEP, CaseLike, Cost

from securekd_protocols import (
    FixedPoint,
    Identity,
    KeystreamRandomness,
    LocalPolicy,
    MaskingClient,
    MaskingServer,
    Member,
    Outgoing,
    RegularGraph,
    ServerState,
    SessionParameters,
    Stage,
    hash_context,
)
from securekd_protocols.messages import Kind
from securekd_protocols.states import STAGE_OF

GRID = FixedPoint(clip_range=1.0, step=STEP)


def our_session(case: CaseLike) -> Cost:
    """Sum clipped floats of all clients but those that fall silent before they send their input.

    All clients do a stage before the server takes their answers, as with Flower: between two messages, neither's code
    and tables are thrown out of the cache by what would run on another machine.

    Raises:
        AssertionError: The sum is not exact.
    """
    clock, client_s, sent, received = time.process_time, [0.0] * case.clients, 0, 0
    server, clients = _participants(case)
    silent = set(range(0, case.clients, max(1, case.clients // case.dropouts))) if case.dropouts else set()
    silent = set(sorted(silent)[: case.dropouts])
    expected = np.zeros(case.length, np.int64)
    generator, floats = np.random.default_rng(0), np.empty(case.length)
    start = clock()
    invitation = server.invitation()
    server_s = clock() - start
    to_clients, to_server = deque(Outgoing(i, invitation) for i in range(case.clients)), deque[bytes]()
    while server.state is not ServerState.FINISHED:
        if to_clients:
            message = to_clients.popleft()
            index, kind = message.recipient, Kind(message.data[5])
            masking = kind is Kind.SHARE_DELIVERY
            if index in silent and (masking or STAGE_OF[kind] is Stage.MASKED_INPUT):
                continue
            if masking:
                floats[:] = generator.uniform(-1, 1, case.length)
            start = clock()
            if masking:
                integers = GRID.encode(floats, KeystreamRandomness())
                clients[index].submit(integers)
            replies = clients[index].receive(message.data)
            client_s[index] += clock() - start
            if index not in silent:
                sent += sum(map(len, replies))
                received += len(message.data)
            if masking:
                expected += integers
            to_server.extend(replies)
            if to_clients and not masking:  # a vector is summed up as it comes, so that they do not pile up
                continue
        start = clock()
        if not to_server:
            to_clients.extend(server.close_phase())
        while to_server:
            to_clients.extend(server.receive(to_server.popleft()))
        server_s += clock() - start
    assert (server.result.total == expected).all()
    left = case.clients - len(silent)
    lasting = [spent for index, spent in enumerate(client_s) if index not in silent]
    peak = client_peak(case) if case.clients <= 32 else 0.0
    return Cost(median(lasting), server_s, sent // left, received // left, peak)


def client_peak(case: CaseLike) -> float:
    """Most memory that one client allocates from rounding to sending, in vectors of 4 bytes a value."""
    server, clients = _participants(case)
    under_way = deque(Outgoing(i, server.invitation()) for i in range(case.clients))
    while Kind(under_way[0].data[5]) is not Kind.SHARE_DELIVERY:
        message = under_way.popleft()
        for reply in clients[message.recipient].receive(message.data):
            under_way.extend(server.receive(reply))
    floats = np.random.default_rng(0).uniform(-1, 1, case.length)
    tracemalloc.start()
    clients[under_way[0].recipient].submit(GRID.encode(floats, KeystreamRandomness()))
    clients[under_way[0].recipient].receive(under_way[0].data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / (4 * case.length)


def _participants(case: CaseLike) -> tuple[MaskingServer, list[MaskingClient]]:
    identities = [Identity.generate(os.urandom) for _ in range(case.clients)]
    operator = Identity.generate(os.urandom)
    roster = tuple(Member(f"client {i}", identity.public) for i, identity in enumerate(identities))
    regular = case.degree < case.clients - 1
    colluders = case.clients // 10 if regular else 1
    graph = RegularGraph(case.degree, case.clients // 10, restarts=1) if regular else None
    parameters = SessionParameters(
        roster=roster,
        server_public=operator.public,
        threshold=case.threshold,
        colluders=colluders,
        vector_length=case.length,
        magnitude=GRID.magnitude,
        round_number=1,
        nonce=os.urandom(32),
        context=hash_context(b""),
        graph=graph,
    )
    known = {member.name: member.public for member in roster}
    policy = LocalPolicy(operator.public, known, round_number=1, colluders=colluders, restarts=1)
    return MaskingServer(parameters, operator), [MaskingClient(identity, policy) for identity in identities]
