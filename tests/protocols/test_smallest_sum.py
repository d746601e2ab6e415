"""The fewest honest inputs in any sum that can be opened: what SPEC.md proves, what attacks reach, and small cases."""

import random

import pytest

from securekd_protocols import GraphDemand, choose_graph
from securekd_protocols.graph_rule import fewest_honest
from tests.protocols.opened import bits, opened, recovered, ring


def smallest(holders, near, threshold, colluders, stories):
    """The smallest sum that opens when each honest client is told its story, and the seeds and keys are what they are."""
    seeds, keys = recovered(holders, threshold, colluders, stories)
    assert not seeds & keys & ~colluders, "both secrets of an honest client"
    masked = {(client, story[0]): story[0] for client, story in stories.items()}
    return min((group.bit_count() for group in opened(near, colluders, masked, seeds, keys)), default=len(near))


# --- the attack on two halves of a ring -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "share"), [(2000, 0.1), (1000, 0.1), (2000, 0.05)])
def test_two_halves_of_a_ring_are_told_different_survivors(n, share):
    """Each half is told that D of its own are dead; every list has n − D survivors, and the sum lacks twice as many."""
    c = d = round(n * share)
    demand = GraphDemand(n, c, d, restarts=16)
    choice = choose_graph(demand)
    near, everybody = ring(n, choice.degree), (1 << n) - 1
    colluding = set(random.Random(1).sample(range(n), c))
    lists = []
    for half in (range(n // 2), range(n // 2, n)):
        inside = [i for i in half[choice.degree : -choice.degree] if i not in colluding]
        lists.append(everybody & ~bits(inside[j * len(inside) // d] for j in range(d)))
    stories = {
        i: (everybody, lists[i >= n // 2]) for i in range(n) if i not in colluding and lists[i >= n // 2] >> i & 1
    }
    found = smallest(near, near, choice.threshold, bits(colluding), stories)
    assert found == n - 2 * d - c < n - d - c  # 1,400 of 2,000, where fewest_survivors less colluders are 1,600
    assert fewest_honest(demand, choice) <= found
