"""Which sums a malicious server can open, from who masked for whom and whose secrets it has: the adversary of SPEC.md.

It sees no ciphers: a mask is known or it is not, two equal unknown masks cancel, and nothing else does. Sets of clients
are integers, bit i for client i.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

Clients = int
Told = Hashable  # the transcript that masks are for
Story = tuple[Clients, Clients]  # the sharers and the survivors that a client is told of


def bits(clients: Iterable[int]) -> Clients:
    return sum(1 << client for client in set(clients))


def members(clients: Clients) -> list[int]:
    return [client for client in range(clients.bit_length()) if clients >> client & 1]


def ring(n: int, k: int) -> list[Clients]:
    """Neighbours of each client, for the ring in ascending order; none is its own."""
    return [bits((i + step) % n for step in range(-k // 2, k // 2 + 1) if step) for i in range(n)]


def recovered(
    holders: Sequence[Clients], threshold: int, colluders: Clients, stories: Mapping[int, Story]
) -> tuple[Clients, Clients]:
    """Whose seeds and whose keys can be recovered, if each honest client signs the story that it is told.

    A client gives its shares if `threshold` holders of its own shares have signed the same; colluders sign everything,
    where they are said to be alive, and give both shares of everybody.
    """
    signed: dict[Story, Clients] = {}
    for client, story in stories.items():
        signed[story] = signed.get(story, 0) | 1 << client
    for_seed, for_key = [0] * len(holders), [0] * len(holders)
    for story, signers in signed.items():
        sharers, survivors = story
        proof = signers | (colluders & survivors)
        answering = bits(i for i in members(signers) if (holders[i] & proof).bit_count() >= threshold)
        for owner in members(sharers if answering else 0):
            given = for_seed if survivors >> owner & 1 else for_key
            given[owner] |= holders[owner] & answering
    found = []
    for given in (for_seed, for_key):
        enough = (i for i, shares in enumerate(given) if (shares | holders[i] & colluders).bit_count() >= threshold)
        found.append(bits(enough))
    return found[0], found[1]


def opened(
    near: Sequence[Clients],
    colluders: Clients,
    masked: Mapping[tuple[int, Told], Clients],
    seeds: Clients,
    keys: Clients,
) -> list[Clients]:
    """The sums of honest inputs that can be opened.

    Args:
        near: With whom each client shares masks.
        colluders: Whose masks are all known.
        masked: The sharers of every masked input, by who sent it and for which transcript.
        seeds: Whose self-mask seeds are known.
        keys: Whose mask keys are known.
    """
    known, sums = colluders | keys, []
    left = {node for node in masked if not colluders >> node[0] & 1}
    while left:
        todo, group, shut = [left.pop()], 0, False
        while todo:
            client, told = node = todo.pop()
            group |= 1 << client
            unknown = 0 if keys >> client & 1 else near[client] & masked[node] & ~known & ~(1 << client)
            others = {(peer, told) for peer in members(unknown)}
            shut |= not seeds >> client & 1 or not others <= masked.keys()
            todo += others & left
            left -= others
        if not shut:
            sums.append(group)
    return sums
