"""The rule for k and t against its published values, and against a slow twin in fractions."""

from dataclasses import replace
from fractions import Fraction
from math import ceil, comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securekd_protocols.errors import BadParameter, GraphUnsafe
from securekd_protocols.graph_rule import (
    GraphChoice,
    GraphDemand,
    check_graph,
    choose_graph,
    stays_connected,
    thresholds_allowed,
)

# n, fraction of corrupt clients and of dropouts, (k, t) against a semi-honest and against a semi-malicious server
PUBLISHED = [
    (100, 0.1, (22, 11), (32, 22)),
    (1000, 0.1, (48, 27), (96, 67)),
    (100, 0.2, (40, 21), (62, 42)),
    (1000, 0.2, (98, 54), (302, 206)),
]


@pytest.mark.parametrize(("n", "fraction", "semi_honest", "semi_malicious"), PUBLISHED)
def test_published_values(n, fraction, semi_honest, semi_malicious):
    corrupt = int(n * fraction)
    for malicious, (degree, threshold) in ((False, semi_honest), (True, semi_malicious)):
        choice = choose_graph(GraphDemand(n, corrupt, corrupt, malicious))
        assert choice == GraphChoice(degree, threshold)
        check_graph(GraphDemand(n, corrupt, corrupt, malicious), choice)


def test_without_a_floor_of_one_the_rule_would_give_a_trap():
    """With ⌊γn⌋ = 0 corrupt clients of eight the rule would settle for two neighbours; here there is at least one."""
    with pytest.raises(BadParameter):
        GraphDemand(8, 0, 0)
    assert choose_graph(GraphDemand(8, 1, 1, malicious_server=False)) == GraphChoice(4, 2)
    assert choose_graph(GraphDemand(8, 1, 1)) == GraphChoice(4, 3)


def tail_above(n, marked, drawn, x):
    """P[HG(n, marked, drawn) > x], term by term."""
    ways = sum(comb(marked, j) * comb(n - marked, drawn - j) for j in range(max(0, x + 1), drawn + 1))
    return Fraction(ways, comb(n, drawn))


def tail_below(n, marked, drawn, x):
    ways = sum(comb(marked, j) * comb(n - marked, drawn - j) for j in range(min(x, drawn + 1)))
    return Fraction(ways, comb(n, drawn))


def slow_connected(demand, k):
    n, gone = demand.clients, demand.colluders + demand.dropouts
    if k > gone:
        return True
    bound = Fraction(n * (n - k - 1) * comb(n - k, gone - k), 2 * comb(n, gone))
    return bound < Fraction(1, 2**41 * demand.restarts)


def slow_thresholds(demand, k):
    n = demand.clients
    t1 = next(
        x for x in range(k + 1) if n * tail_above(n, demand.colluders, k, x) <= Fraction(1, 2**41 * demand.restarts)
    )
    if demand.malicious_server:
        t1 = ceil(Fraction(t1 + k) / 2 - Fraction(125, 200))
    alive = n - demand.dropouts
    t2 = max(x for x in range(k + 1) if n * tail_below(n, alive, k, x) <= Fraction(1, 2**20))
    return range(max(t1 + 1, 2), t2 + 1) if t1 < t2 else range(0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_slow_twin_agrees(data):
    n = data.draw(st.integers(4, 120))
    colluders = data.draw(st.integers(1, max(1, n // 3)))
    dropouts = data.draw(st.integers(1, max(1, n // 3)))
    demand = GraphDemand(n, colluders, dropouts, data.draw(st.booleans()), data.draw(st.sampled_from([1, 3, 16])))
    k = data.draw(st.integers(1, (n - 1) // 2)) * 2
    assert stays_connected(demand, k) == slow_connected(demand, k)
    assert list(thresholds_allowed(demand, k)) == list(slow_thresholds(demand, k))


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 90), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_the_choice_is_the_smallest_that_passes_its_own_check(n, colluders, dropouts, malicious):
    if colluders + dropouts > n:
        return
    demand = GraphDemand(n, colluders, dropouts, malicious, restarts=16)
    try:
        choice = choose_graph(demand)
    except GraphUnsafe:
        assert not any(slow_connected(demand, k) and slow_thresholds(demand, k) for k in range(2, n, 2))
        return
    check_graph(demand, choice)
    for k in range(2, choice.degree, 2):
        assert not (slow_connected(demand, k) and slow_thresholds(demand, k))
    for wrong in (
        GraphChoice(choice.degree, choice.threshold - 1),
        GraphChoice(choice.degree - 2, choice.threshold),
        GraphChoice(choice.degree - 1, choice.threshold),
        GraphChoice(n + n % 2, choice.threshold),
        GraphChoice(choice.degree, choice.degree + 1),
    ):
        with pytest.raises(GraphUnsafe):
            check_graph(demand, wrong)


@pytest.mark.parametrize("n", [101, 300, 1000, 10_000])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_no_two_answers_and_no_input_alone(n, share):
    """What the specification's argument rests on: 2t > k + t₁, t₁ being the most corrupt neighbours of anybody."""
    demand = GraphDemand(n, ceil(share * n), ceil(share * n), restarts=16)
    choice = choose_graph(demand)
    corrupt = thresholds_allowed(replace(demand, malicious_server=False), choice.degree).start - 1
    assert 2 * choice.threshold - choice.degree - corrupt >= 1


def test_restarts_cost_bits():
    """2^20 restarts for the price of 20 bits: the same as σ = 60."""
    few, many = (choose_graph(GraphDemand(1000, 100, 100, restarts=r)) for r in (1, 2**15))
    assert few.degree < many.degree


def test_graphs_that_can_not_be():
    with pytest.raises(GraphUnsafe):
        choose_graph(GraphDemand(30, 10, 10))
    for args in ((10, 1, 0), (10, 0, 1), (10, 6, 5)):
        with pytest.raises(BadParameter):
            GraphDemand(*args)
    with pytest.raises(BadParameter):
        GraphDemand(10, 1, 1, restarts=0)


def test_ten_thousand_clients_need_about_a_hundred_neighbours():
    choice = choose_graph(GraphDemand(10_000, 1000, 1000, restarts=16))
    assert 100 < choice.degree < 150
    assert choice.degree / 2 < choice.threshold < choice.degree
