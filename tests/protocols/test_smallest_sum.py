"""The fewest honest inputs in any sum that can be opened: what SPEC.md proves, what attacks reach, and small cases."""

import random
from functools import cache
from itertools import combinations, product

import pytest

from securekd_protocols import GraphDemand, RegularGraph, choose_graph
from securekd_protocols.errors import PolicyRefused
from securekd_protocols.graph_rule import GraphChoice, fewest_honest, most_corrupt_neighbours
from securekd_protocols.states import ServerState
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, WIDE_RING, WIDE_RING_THRESHOLD, Session
from tests.protocols.malicious import secret_of, sum_behind, tell_survivors, unmask
from tests.protocols.opened import bits, members, opened, recovered, ring


def smallest(near, holders, threshold, colluders, stories):
    """The fewest honest inputs in a sum that opens when each honest client is told its story; none is as many as n."""
    seeds, keys = recovered(holders, threshold, colluders, stories)
    assert not seeds & keys & ~colluders, "both secrets of an honest client"
    masked = {(client, story[0]): story[0] for client, story in stories.items()}
    return min((group.bit_count() for group in opened(near, colluders, masked, seeds, keys)), default=len(near))


# --- two halves of a ring ---------------------------------------------------------------------------------------------


def test_two_halves_of_a_ring_are_told_of_different_survivors():
    """Each list has n − D survivors, and the sum lacks the dead of both: 1,400 honest of 2,000, and not 1,600."""
    n, c, d = 2000, 200, 200
    demand = GraphDemand(n, c, d, restarts=16)
    choice = choose_graph(demand)
    assert choice == GraphChoice(110, 77)
    near, everybody, colluding = ring(n, 110), (1 << n) - 1, set(random.Random(1).sample(range(n), c))
    lists = []
    for half in (range(n // 2), range(n // 2, n)):
        inside = [i for i in half[110:-110] if i not in colluding]
        lists.append(everybody & ~bits(inside[j * len(inside) // d] for j in range(d)))
    told = {i: (everybody, lists[2 * i // n]) for i in range(n) if i not in colluding}
    stories = {i: story for i, story in told.items() if story[1] >> i & 1}
    assert smallest(near, near, 77, bits(colluding), stories) == n - 2 * d - c == 1400
    assert fewest_honest(demand, choice) <= 1400


def test_two_parts_of_a_ring_open_less_than_the_fewest_survivors():
    """The same with real clients, 20 of them: 16 honest inputs are opened, and every client has signed for 17."""
    session = Session(n=20, colluders=1, graph=RegularGraph(6, dropouts=2), threshold=4).until(
        ServerState.MASKED_INPUTS
    )
    memories = {i: client._accepted for i, client in enumerate(session.clients)}
    advertised = {i: memory.own_advertise for i, memory in memories.items()}
    order, graph = session.server._collected.graph.order, session.server._collected.graph
    everybody, colluder = set(range(20)), order[0]
    masked = {data[6]: data for data in session.answers()}
    dead = {part: {order[place] for place in places} for part, places in (("one", (6, 19)), ("other", (4, 6)))}
    part_of = {order[place]: "one" if 13 <= place <= 18 else "other" for place in range(20)}
    signatures, answers = {"one": {}, "other": {}}, {}
    for client in everybody - {colluder}:
        part = part_of[client]
        if client not in dead[part]:
            signatures[part][client] = tell_survivors(session, client, everybody - dead[part])
    for signed in signatures.values():
        some = next(iter(signed.values()))
        signed[colluder] = session.signed_by(colluder, some[5], b"", session.transcript_of(some))
        for client in signed.keys() - {colluder}:
            proof = [signed[i] for i in graph.neighbours(client) & signed.keys()]
            if len(proof) >= 4:
                answers[client] = unmask(session, client, proof)
    gone = dead["one"] | dead["other"]
    honest = everybody - gone - {colluder}
    seeds = {i: secret_of(session, i, "seeds", answers, colluding={colluder: memories[colluder].held}) for i in honest}
    keys = {i: secret_of(session, i, "keys", answers, colluding={colluder: memories[colluder].held}) for i in gone}
    keys[colluder] = memories[colluder].secrets.mask_key.private
    peers = {i: graph.neighbours(i) for i in honest}
    total = sum_behind(session, {i: masked[i] for i in honest}, seeds, keys, advertised, peers)
    assert (total == session.expected(honest)).all()
    parameters = session.parameters
    assert parameters.fewest_honest <= len(honest) == 16 < parameters.fewest_survivors - parameters.colluders


# --- what is proved ---------------------------------------------------------------------------------------------------

SMALL_GRAPHS = [(6, 4, 3, 0b1), (8, 4, 3, 0b1), (8, 6, 4, 0b1), (9, 6, 5, 0b101), (10, 6, 4, 0b1), (11, 4, 3, 0b100001)]


@cache
def lists(n, most):
    """Every set that lacks at most so many of n clients."""
    everybody = (1 << n) - 1
    return [everybody & ~bits(gone) for count in range(most + 1) for gone in combinations(range(n), count)]


def fits(client, story, holders, threshold):
    """Whether a client goes on after a story: it is in both sets, with as many holders of its shares as it takes."""
    return all(told >> client & 1 and (holders[client] & told).bit_count() >= threshold for told in story)


def proved(near, threshold, colluders):
    """2t − k − c + 1 where c neighbours of one client are corrupt, the most that there are around any."""
    return 2 * threshold - near[0].bit_count() - max((them & colluders).bit_count() for them in near) + 1


def stories_of(n, most):
    return [(sharers, sharers & told) for sharers in lists(n, most) for told in lists(n, most)]


def test_every_pair_of_stories_in_a_small_ring():
    """Each honest client of six is told one of two stories, in every way, with one client left out of either set."""
    n, near, colluders, found = 6, ring(6, 4), 0b1, set()
    for pair in combinations(sorted(set(stories_of(n, 1))), 2):
        choices = [[s for s in pair if fits(client, s, near, 3)] or [None] for client in range(1, n)]
        for told in product(*choices):
            stories = {client: story for client, story in enumerate(told, start=1) if story}
            found.add(smallest(near, near, 3, colluders, stories))
    assert min(found) >= proved(near, 3, colluders) == 2
    assert n in found  # where nothing opens
    assert min(found) < n - 1  # and where less than all honest inputs do


@pytest.mark.parametrize(("n", "degree", "threshold", "colluders"), SMALL_GRAPHS)
def test_random_stories_in_small_rings(n, degree, threshold, colluders):
    """Two or three stories, dealt along the ring or at random, with as many left out as clients put up with."""
    near, found = ring(n, degree), []
    rng = random.Random(n * degree)
    for _ in range(2500):
        told = [rng.choice(lists(n, degree - threshold + 1)) for _ in range(4)]
        some = [(told[0], told[0] & told[1]), (told[2], told[2] & told[3]), (told[0], told[0] & told[3])]
        cut = sorted(rng.sample(range(n), 2))
        stories = {}
        for client in set(range(n)) - set(members(colluders)):
            first = some[(cut[0] <= client) + (cut[1] <= client)] if rng.random() < 0.7 else rng.choice(some)
            chosen = next((s for s in (first, *some) if fits(client, s, near, threshold)), None)
            if chosen:
                stories[client] = chosen
        found.append(smallest(near, near, threshold, colluders, stories))
    assert min(found) >= proved(near, threshold, colluders) >= 2
    assert min(found) < n - colluders.bit_count()


@pytest.mark.parametrize(("n", "colluders", "threshold"), [(4, 0b1, 3), (5, 0b1, 4), (5, 0b11, 4), (6, 0b1, 4)])
def test_random_stories_in_complete_graphs(n, colluders, threshold):
    """At least t − C honest inputs are in any sum that opens, and it is one sum."""
    everybody, rng, found = (1 << n) - 1, random.Random(n), []
    holders, near = [everybody] * n, [everybody & ~(1 << i) for i in range(n)]
    for _ in range(3000):
        told = [rng.choice(lists(n, n - threshold)) for _ in range(4)]
        some = [(told[0], told[0] & told[1]), (told[2], told[2] & told[3]), (told[0], told[0] & told[3])]
        stories = {}
        for client in set(range(n)) - set(members(colluders)):
            fitting = [s for s in some if fits(client, s, holders, threshold)]
            if fitting:
                stories[client] = rng.choice(fitting)
        seeds, keys = recovered(holders, threshold, colluders, stories)
        masked = {(client, story[0]): story[0] for client, story in stories.items()}
        sums = opened(near, colluders, masked, seeds, keys)
        assert len(sums) <= 1
        found += [group.bit_count() for group in sums]
    assert min(found) == threshold - colluders.bit_count()


@pytest.mark.parametrize(
    ("n", "colluders", "threshold", "victims"), [(4, 1, 3, 1), (10, 1, 6, 1), (10, 3, 7, 1), (5, 1, 4, 2), (9, 1, 6, 2)]
)
def test_clients_that_mask_twice_are_opened(n, colluders, threshold, victims):
    """The model finds the attack of `test_restored_clients`, so that it would find another one."""
    everybody, dead = (1 << n) - 1, bits(range(victims, threshold - colluders))
    colluding = bits(range(n - colluders, n))
    few, near = bits(range(victims)) | dead | colluding, [everybody & ~(1 << i) for i in range(n)]
    story = (everybody, everybody & ~dead)
    seeds, keys = recovered([everybody] * n, threshold, colluding, dict.fromkeys(members(story[1] & ~colluding), story))
    masked = {(i, everybody): everybody for i in members(story[1])} | {(i, few): few for i in range(victims)}
    sums = opened(near, colluding, masked, seeds, keys)
    assert bits(range(victims)) in sums
    assert len(sums) == 2


# --- what is stated ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "honest"),
    [
        ({"n": 4}, 2),
        ({"n": 9, "colluders": 2, "threshold": 7}, 5),
        ({"n": 8, "graph": SMALL_RING, "threshold": SMALL_RING_THRESHOLD}, 2),
        ({"n": 12, "graph": WIDE_RING, "threshold": WIDE_RING_THRESHOLD}, 2),
        ({"n": 8, "graph": RegularGraph(4, 1, malicious_server=False), "threshold": 2}, 6),
    ],
)
def test_parameters_say_how_many_honest_inputs_are_in_any_sum(arguments, honest):
    """t − C in a complete graph; in a ring 2t − k − t₁ + 1, or n − D − C if the server follows the protocol."""
    assert Session(**arguments).parameters.fewest_honest == honest


@pytest.mark.parametrize(
    ("n", "share", "expected"), [(101, 0.1, 2), (1000, 0.1, 2), (2000, 0.1, 2), (5000, 0.1, 2), (10_000, 0.05, 3)]
)
def test_what_is_proved_for_large_rings(n, share, expected):
    demand = GraphDemand(n, -int(-n * share // 1), -int(-n * share // 1), restarts=16)
    choice = choose_graph(demand)
    corrupt = most_corrupt_neighbours(demand, choice.degree)
    assert fewest_honest(demand, choice) == 2 * choice.threshold - choice.degree - corrupt + 1 == expected


@pytest.mark.parametrize("lowest", [3, 10])
def test_a_client_may_ask_for_more_honest_inputs_than_a_ring_promises(lowest):
    policies = {i: {"lowest_honest": lowest} for i in range(20)}
    session = Session(n=20, graph=RegularGraph(6, dropouts=2), threshold=4, policies=policies)
    with pytest.raises(PolicyRefused, match=f"honest clients in a sum: 2 offered, at least {lowest} wanted"):
        session.answers()
    assert session.parameters.fewest_survivors == 18  # which a server announces, and does not have to keep to
