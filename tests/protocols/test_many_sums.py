"""Several sums of one round: what cohort rules are worth, for whom, and what noise then hides.

Each attack is played to the end, once where the protocol refuses it, and once
just beyond what SPEC.md states ("Several sums"), where it succeeds.
"""

import random

import numpy as np
import pytest

from securekd_protocols import CohortRule, Diary, GraphDemand, RegularGraph, choose_graph
from securekd_protocols.errors import CohortRefused, PolicyRefused
from securekd_protocols.graph_rule import fewest_honest, most_corrupt_neighbours
from securekd_protocols.messages import Kind
from securekd_protocols.states import ClientState, ServerState
from tests.protocols.harness import SMALL_RING, SMALL_RING_THRESHOLD, Session, message_to
from tests.protocols.malicious import secret_of, sum_behind, tell_survivors, unmask
from tests.protocols.opened import bits, members, opened, recovered, ring


def names(clients):
    return frozenset(f"client {i}" for i in clients)


# --- complete graph: who must have the rule ---------------------------------------------------------------------------


def opened_for(session, survivors, signers):
    """The honest inputs' sum that a server opens with the signatures of these and its colluders, the last clients."""
    session.until(ServerState.MASKED_INPUTS)
    n = session.parameters.clients
    colluders = range(n - session.parameters.colluders, n)
    memories = {i: client._accepted for i, client in enumerate(session.clients)}
    advertised = {i: memory.own_advertise for i, memory in memories.items()}
    masked = dict(enumerate(session.answers()))
    signatures = {i: tell_survivors(session, i, survivors) for i in signers}
    told = session.transcript_of(next(iter(signatures.values())))
    signatures |= {i: session.signed_by(i, Kind.CONSISTENCY, b"", told) for i in colluders}
    answers = {i: unmask(session, i, signatures.values()) for i in signers}
    colluding = {i: memories[i].held for i in colluders}
    honest = set(survivors) - set(colluders)
    seeds = {i: secret_of(session, i, "seeds", answers, colluding) for i in honest}
    keys = {i: secret_of(session, i, "keys", answers, colluding) for i in set(range(n)) - set(survivors)}
    keys |= {i: memories[i].secrets.mask_key.private for i in colluders}
    return sum_behind(session, {i: masked[i] for i in honest}, seeds, keys, advertised, dict.fromkeys(honest, range(n)))


def difference_of_two_sums(n, colluders, threshold, without, rule):
    """Everybody's sum less that of all but client 0, where of those who sign both so many are without a rule."""
    alone = n - threshold  # who sign one of the two only, client 0 first
    both = list(range(alone, n - alone - colluders))
    assert len(both) == 2 * threshold - n - colluders
    diaries = {i: Diary(rule) for i in range(n - colluders) if i not in both[:without]}
    policies = {i: {"diary": diary} for i, diary in diaries.items()}
    everybody, sums = list(range(n)), []
    for seed, survivors, own in (
        (b"1", everybody, everybody[:alone]),
        (b"2", everybody[1:], everybody[n - alone - colluders : n - colluders]),
    ):
        session = Session(n=n, colluders=colluders, threshold=threshold, policies=policies, seed=seed)
        sums.append(opened_for(session, survivors, own + both))
    return sums[0] - sums[1], session.vectors[0]


ROSTERS = [(4, 1, 3), (10, 1, 6), (5, 1, 4), (10, 1, 7), (10, 3, 8)]


@pytest.mark.parametrize(("n", "colluders", "threshold"), ROSTERS)
def test_so_many_honest_clients_may_be_without_the_cohort_rule(n, colluders, threshold):
    """2t − n − C − 1: two sets of t signers have more honest clients in common than that, so one has the rule."""
    for without in range(2 * threshold - n - colluders):
        with pytest.raises(CohortRefused, match="every client has this rule"):
            difference_of_two_sums(n, colluders, threshold, without, CohortRule(colluders + 2))


@pytest.mark.parametrize(("n", "colluders", "threshold"), ROSTERS)
def test_with_one_more_without_the_rule_an_input_is_opened_alone(n, colluders, threshold):
    """Client 0 has the rule itself, as have all others but those; it is no help to it."""
    without = 2 * threshold - n - colluders
    found, victim = difference_of_two_sums(n, colluders, threshold, without, CohortRule(colluders + 2))
    assert (found == victim).all()


@pytest.mark.parametrize(("n", "colluders", "threshold"), [(4, 1, 3), (10, 1, 6), (9, 2, 7)])
@pytest.mark.parametrize("enough", [False, True])
def test_batches_hold_while_fewer_than_t_less_c_honest_clients_are_without(n, colluders, threshold, enough):
    """Whoever signs looks at the one set before it, so one honest signer with batches is enough."""
    without = threshold - colluders - (not enough)
    batches = (names(range(colluders + 2)), names(range(colluders + 2, n)) | names(["x", "y"]))
    signers = list(range(1, threshold - colluders + 1))  # of the cohort without client 0, whose batch it splits
    policies = {i: {"diary": Diary(CohortRule(1, batches))} for i in range(n - colluders) if i not in signers[:without]}
    session = Session(n=n, colluders=colluders, threshold=threshold, policies=policies)
    if enough:
        found = opened_for(session, range(1, n), signers)
        assert (found == session.expected(range(1, n - colluders))).all()
    else:
        with pytest.raises(CohortRefused, match="rest of their batch"):
            opened_for(session, range(1, n), signers)


def test_a_client_that_refuses_to_sign_is_in_the_sum_all_the_same():
    """An honest server, and one client with a rule: it leaves, after its masked input, and the sum opens."""
    diary, sums = Diary(CohortRule(3)), []
    for seed, silent in ((b"1", set()), (b"2", {4})):
        session = Session(n=10, policies={0: {"diary": diary}}, seed=seed).until(ServerState.MASKED_INPUTS)
        session.stage(silent)
        if silent:
            with pytest.raises(CohortRefused):
                session.clients[0].receive(message_to(0, session.inbox))
            while session.server.state is not ServerState.FINISHED:
                session.stage(silent={0})
        session.until(ServerState.FINISHED)
        sums.append(session.server.result)
    assert 0 in sums[1].survivors
    assert (sums[0].total - sums[1].total == session.vectors[4]).all()


# --- one vector in two sessions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "colluders", "differ"), [(10, 1, 3), (10, 1, 4), (12, 2, 4), (20, 1, 3)])
def test_noise_that_is_not_drawn_anew_hides_the_difference_of_two_sums_less(n, colluders, differ):
    """`fewest_honest` is of one session. Of two, with the same noisy vectors and a rule that everybody has, the
    difference has the noise of smallest_difference − C honest clients; drawn anew, it has that of all summands."""
    noise = [[np.random.default_rng([n, i, draw]).integers(-50, 51, 8) for i in range(n)] for draw in range(2)]
    gone = [*range(n - differ, n)]  # the last of them are the colluders, who know their own
    honest = range(n - colluders)
    left = {}
    for anew in (False, True):
        diaries, sums = [Diary(CohortRule(differ)) for _ in range(n)], []
        for number, silent in enumerate(([], gone)):
            policies = {i: {"diary": diary} for i, diary in enumerate(diaries)}
            session = Session(n, colluders=colluders, policies=policies, seed=bytes([number]), noise_tail=50)
            values = session.vectors
            session.vectors = [value + noise[number * anew][i] for i, value in enumerate(values)]
            session.until(ServerState.MASKED_INPUTS).stage(silent)
            session.until(ServerState.FINISHED)
            known = sum((session.vectors[i] for i in range(n - colluders, n) if i not in silent), np.zeros(8, int))
            sums.append(session.server.result.total - known)
        left[anew] = sums[0] - sums[1] - sum(values[i] for i in gone[: differ - colluders])
    assert (left[False] == sum(noise[0][i] for i in gone[: differ - colluders])).all()
    staying = [i for i in honest if i not in gone]
    assert (left[True] == sum(noise[0][i] for i in honest) - sum(noise[1][i] for i in staying)).all()
    assert 2 <= differ - colluders < session.parameters.fewest_honest <= len(staying)


# --- k-regular graphs -------------------------------------------------------------------------------------------------

RINGS = {
    "small": {"n": 8, "graph": SMALL_RING, "threshold": SMALL_RING_THRESHOLD},
    "large": {"n": 30, "graph": RegularGraph(8, dropouts=3), "threshold": 5},
}
TRIPLES = tuple(names(range(first, first + 3)) for first in range(0, 30, 3))
RULES = {
    "difference": CohortRule(3),
    "wide": CohortRule(30),
    "batches": CohortRule(1, TRIPLES),
    "both": CohortRule(3, TRIPLES),
}


def arc_around(victim, order, graph, others=None):
    """An arc of the ring, and two clients so far from it that nobody there is told of them, or `None`."""
    n, place, half = len(order), order.index(victim), graph.degree // 2
    arc = {order[(place + step) % n] for step in range(-half - 2, half + 3)}
    others = others or {order[(place + n // 2 + step) % n] for step in (0, 1)}
    seen = arc.union(*(graph.neighbours(client) for client in arc))
    return None if others & seen else (victim, arc, others)


@pytest.mark.parametrize("rule", ["difference", "batches"])
def test_in_a_ring_a_sum_is_opened_for_which_nobody_has_signed(rule):
    """Why no rule is accepted there: all that is signed would suit it, and the sums differ by one client's input."""
    diaries = {i: Diary(CohortRule(1)) for i in range(30)}
    policies = {i: {"diary": diary} for i, diary in diaries.items()}
    first = Session(**RINGS["large"], policies=policies, seed=b"1").until(ServerState.FINISHED).server.result.total
    session = Session(**RINGS["large"], policies=policies, seed=b"2").until(ServerState.MASKED_INPUTS)
    graph, everybody = session.server._collected.graph, set(range(30))
    advertised = {i: client._accepted.own_advertise for i, client in enumerate(session.clients)}
    masked = {data[6]: data for data in session.answers()}
    mates = {v: set(range(v - v % 3, v - v % 3 + 3)) - {v} if rule == "batches" else None for v in everybody}
    victim, arc, others = next(filter(None, (arc_around(v, graph.order, graph, mates[v]) for v in everybody)))
    alive = everybody - {victim}
    told = {i: everybody - others - {victim} if i in arc else everybody for i in alive}
    for cohort in told.values():
        RULES[rule].check(names(cohort), [names(everybody)])
    signatures = {i: tell_survivors(session, i, told[i]) for i in alive}
    answers = {}
    for i in alive:
        proof = [signatures[j] for j in graph.neighbours(i) & alive if told[j] == told[i]]
        if len(proof) >= session.parameters.threshold:
            answers[i] = unmask(session, i, proof)
    seeds = {i: secret_of(session, i, "seeds", answers) for i in alive}
    keys = {victim: secret_of(session, victim, "keys", answers)}
    peers = {i: graph.neighbours(i) for i in alive}
    second = sum_behind(session, {i: masked[i] for i in alive}, seeds, keys, advertised, peers)
    assert (first - second == session.vectors[victim]).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", RINGS)
def test_a_cohort_rule_in_a_ring_is_refused(size, rule):
    diary = Diary(RULES[rule])
    session = Session(**RINGS[size], policies={0: {"diary": diary}})
    with pytest.raises(PolicyRefused, match=r"cohort rule in a k-regular graph.*CohortRule\(1\) limits nothing"):
        session.answers()
    assert session.clients[0].state is ClientState.INVITED
    assert diary == Diary(RULES[rule])  # an invitation that is refused does not count


@pytest.mark.parametrize("policy", [{}, {"diary": Diary(CohortRule(1))}], ids=["no diary", "no rule"])
@pytest.mark.parametrize("size", RINGS)
def test_rings_work_without_a_cohort_rule(size, policy):
    session = Session(**RINGS[size], policies={0: policy}).until(ServerState.FINISHED)
    assert (session.server.result.total == session.expected(range(session.parameters.clients))).all()


def test_in_a_ring_dropouts_alone_take_one_client_off_a_sum_though_everybody_would_have_a_rule():
    """The server follows the protocol, and nobody who has signed the first sum is asked for the second."""
    choice = choose_graph(GraphDemand(20, 1, 9, malicious_server=False))
    assert 2 * choice.threshold <= choice.degree
    arguments = {
        "n": 20,
        "graph": RegularGraph(choice.degree, 9, malicious_server=False),
        "threshold": choice.threshold,
    }
    policies = {i: {"malicious_server": False, "diary": Diary(CohortRule(1))} for i in range(20)}
    silent = {"1": set(range(1, 10)), "2": set(range(10, 20))}  # not asked in time; and who would refuse, as below
    totals = {}
    for seed, gone in silent.items():
        session = Session(**arguments, policies=policies, seed=seed.encode()).until(ServerState.MASKED_INPUTS)
        session.stage(silent={0} if seed == "2" else ())
        session.stage(silent=gone)
        totals[seed] = session.until(ServerState.FINISHED).server.result.total
    assert (totals["1"] - totals["2"] == session.vectors[0]).all()
    with pytest.raises(CohortRefused):
        CohortRule(3).check(names(range(1, 20)), [names(range(20))])


@pytest.mark.parametrize("malicious_server", [False, True])
def test_even_where_the_server_is_trusted_a_ring_has_no_rule(malicious_server):
    policies = {i: {"malicious_server": False, "diary": Diary(CohortRule(3))} for i in range(8)}
    session = Session(n=8, graph=RegularGraph(4, 1, malicious_server), threshold=3, policies=policies)
    with pytest.raises(PolicyRefused, match="cohort rule in a k-regular graph"):
        session.answers()


# --- when colluders are chosen ----------------------------------------------------------------------------------------

DEMAND = GraphDemand(1000, 100, 100, restarts=16)


def smallest_opened(corrupt):
    """In a ring of a thousand, with the threshold for a malicious server, where all others are told the truth."""
    choice, everybody = choose_graph(DEMAND), (1 << DEMAND.clients) - 1
    near = ring(DEMAND.clients, choice.degree)
    stories = {i: (everybody, everybody) for i in range(DEMAND.clients) if not corrupt >> i & 1}
    seeds, keys = recovered(near, choice.threshold, corrupt, stories)
    sums = opened(near, corrupt, {(i, everybody): everybody for i in range(DEMAND.clients)}, seeds, keys)
    return min(group.bit_count() for group in sums)


def test_clients_that_are_rolled_back_once_the_ring_is_known_open_an_input():
    """No more than the C that are allowed for; what is stated holds for those that were chosen before."""
    choice = choose_graph(DEMAND)
    around = members(ring(DEMAND.clients, choice.degree)[500])
    for many in (choice.threshold, DEMAND.colluders):
        chosen_after = bits(around[:many])
        assert chosen_after.bit_count() <= DEMAND.colluders
        assert (chosen_after & bits(around)).bit_count() > most_corrupt_neighbours(DEMAND, choice.degree)
        assert smallest_opened(chosen_after) == 1 < fewest_honest(DEMAND, choice)


@pytest.mark.parametrize("seed", range(3))
def test_clients_that_are_rolled_back_wherever_they_stand_open_none(seed):
    """Places in the ring are random, so a choice that is made before it is known is a random one."""
    chosen_before = bits(random.Random(seed).sample(range(DEMAND.clients), DEMAND.colluders))
    assert smallest_opened(chosen_before) == DEMAND.clients - DEMAND.colluders


@pytest.mark.parametrize(("n", "colluders", "threshold"), [(10, 1, 6), (10, 3, 7)])
def test_in_a_complete_graph_it_does_not_matter_when_they_are_chosen(n, colluders, threshold):
    """Every choice of C clients, whatever was seen before it, leaves t − C honest inputs in the sum."""
    everybody = (1 << n) - 1
    holders, near = [everybody] * n, [everybody & ~(1 << i) for i in range(n)]
    rng = random.Random(n * colluders)
    for _ in range(50):
        survivors = bits(rng.sample(range(n), threshold))
        corrupt = bits(rng.sample(members(survivors), colluders))
        stories = dict.fromkeys(members(survivors & ~corrupt), (everybody, survivors))
        seeds, keys = recovered(holders, threshold, corrupt, stories)
        sums = opened(near, corrupt, {(i, everybody): everybody for i in members(survivors)}, seeds, keys)
        assert [group.bit_count() for group in sums] == [threshold - colluders]
