"""Leakage as a measured quantity: membership inference at every point where an adversary may stand.

Members are private records, non-members test records. At `client_model` and `client_release` a record is scored by one
client's model (members by their own client's, test records dealt out among the clients), so that no record is counted
twice. Test records are dealt class by class in proportion to what each client holds: otherwise a client with few
classes would seem to leak its members, when only its labels differ from the test set's. Where a point shows scores on
the transfer set, or weight updates, and no model, the adversary makes a model of them, exactly as the server does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securekd.checkpoint import Arrays
from securekd.data import Examples, holdings
from securekd.errors import RunError
from securekd.evaluation import labels_of, log_probabilities
from securekd.experiment import Model
from securekd.parallel import Perform
from securekd.plan import Plan
from securekd.plugins import named
from securekd.record import POINTS, Leakage, Point, Rate
from securekd.rounds import RoundOutcome
from securekd.training.tasks import TrainTask, network_of
from securekd_attacks import (
    Attack,
    AttackInputError,
    EntropyAttack,
    LossAttack,
    MembershipScores,
    Signals,
    auc,
    membership_scores,
    split_bound,
    tpr_at_fpr,
)

RATES: tuple[Literal["0.1", "0.01", "0.001"], ...] = ("0.1", "0.01", "0.001")

ATTACKS: dict[str, Callable[[], Attack]] = {"loss": LossAttack, "entropy": EntropyAttack}


@dataclass(frozen=True, eq=False)
class Target:
    """One model that an adversary holds at some point, with the records that it is asked about."""

    model: Model
    state: Arrays
    members: Examples
    nonmembers: Examples


def measure(plan: Plan, last: RoundOutcome, perform: Perform, epsilon: float | None) -> tuple[Leakage, ...]:
    """Attack all four observation points after the last round.

    Args:
        plan: the run's plan.
        last: outcome of the last round.
        perform: carries out the adversary's own distillations.
        epsilon: example-level ε that every point must stay below; None where none is given.
    """
    found: list[Leakage] = []
    for point, targets in _points(plan, last, perform).items():
        members, nonmembers = (_signals(plan, targets, side) for side in ("members", "nonmembers"))
        for attack in plan.attacks:
            try:
                scores = membership_scores(attack, members, nonmembers)
                found.append(_leakage(plan, point, scores, epsilon))
            except AttackInputError as error:
                raise RunError(f"the attack {attack.name!r} cannot be made at {point}: {error}") from error
    return tuple(found)


def attack_named(name: str) -> Attack:
    """The attack that a configuration names."""
    return named("attack", name, ATTACKS)


def _points(plan: Plan, last: RoundOutcome, perform: Perform) -> dict[Point, list[Target]]:
    everyone = _together([c.examples for c in plan.clients])
    summed = _together([c.examples for c in plan.clients if c.name in last.answer.aggregate.survivors])
    test = plan.data.test
    shares = nonmember_shares(plan)
    guesses = list(perform(_surrogates(plan, last)))
    student = plan.experiment.student.model
    return {
        "client_model": [
            Target(c.model, last.clients[c.name], c.examples, share)
            for c, share in zip(plan.clients, shares, strict=True)
        ],
        "client_release": [
            Target(student, guess.arrays, c.examples, share)
            for c, guess, share in zip(plan.clients, guesses[:-1], shares, strict=True)
        ],
        "aggregate": [Target(student, guesses[-1].arrays, summed, test)],
        "student": [Target(student, last.student, everyone if last.number > 1 else summed, test)],
    }


def nonmember_shares(plan: Plan) -> list[Examples]:
    """The test set dealt to the clients, each row once, so that a client's share has the client's own label mix."""
    test, labels = plan.data.test, labels_of(plan.data.test)
    held = holdings(plan.data).counts.astype(float)
    order = plan.randomness.public("nonmembers").permutation(len(test))
    dealt: list[list[np.ndarray]] = [[] for _ in plan.clients]
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        weight = held[:, label] if held[:, label].any() else held.sum(axis=1)
        cuts = np.rint(np.cumsum(weight) / weight.sum() * len(rows)).astype(int)[:-1]
        for client, part in zip(dealt, np.split(rows, cuts), strict=True):
            client.append(part)
    return [test.take(np.sort(np.concatenate(parts))) for parts in dealt]


def _surrogates(plan: Plan, last: RoundOutcome) -> list[TrainTask]:
    """What an adversary makes of each release, and of the sum of the last round."""
    answer = last.answer
    return [
        *(last.taught.surrogate(plan, answer.releases[c.name], 1, "surrogate", c.name) for c in plan.clients),
        last.taught.surrogate(plan, answer.aggregate.total, len(answer.aggregate.survivors), "surrogate", "aggregate"),
    ]


def _signals(plan: Plan, targets: Sequence[Target], side: str) -> Signals:
    runtime = plan.experiment.runtime
    log_probs, labels, ids = [], [], []
    for target in targets:
        examples: Examples = target.members if side == "members" else target.nonmembers
        if not len(examples):  # a small client's share of the test set may be empty
            continue
        network = network_of(target.model, plan.shape, 0, target.state)
        log_probs.append(
            log_probabilities(network, examples.inputs, micro_batch=runtime.micro_batch, device=runtime.device)
        )
        labels.append(labels_of(examples))
        ids.append(examples.ids)
    return Signals(np.concatenate(log_probs), np.concatenate(labels), np.concatenate(ids).tolist())


def _leakage(plan: Plan, point: Point, scores: MembershipScores, epsilon: float | None) -> Leakage:
    confidence, delta = plan.experiment.audit.confidence, plan.experiment.privacy.delta
    bounds = len(POINTS) * len(plan.attacks)
    area = auc(scores.members, scores.nonmembers, confidence)
    rates = {rate: tpr_at_fpr(scores.members, scores.nonmembers, float(rate), confidence) for rate in RATES}
    bound = split_bound(
        scores.members,
        scores.nonmembers,
        delta,
        1 - (1 - confidence) / bounds,  # Bonferroni: all bounds of the record hold together with `confidence`
        rng=plan.randomness.public("audit", point, scores.attack),
    )
    return Leakage(
        point=point,
        attack=scores.attack,
        auc=area.value,
        auc_ci=(area.low, area.high),
        tpr_at_fpr={
            rate: Rate(value=r.value, low=r.low, high=r.high, resolved=r.resolved) for rate, r in rates.items()
        },
        epsilon_lower=bound.epsilon_lower,
        confidence=confidence,
        members=len(scores.members),
        nonmembers=len(scores.nonmembers),
        epsilon=epsilon,
        comparable=plan.experiment.data.partition.kind != "column" and plan.experiment.data.test_source is None,
        assumptions=bound.assumptions,
        seen_by=_seen_by(plan, point),
    )


def _seen_by(plan: Plan, point: Point) -> str:
    if point == "client_model":
        return "the client itself, and whoever takes its model"
    if point == "client_release":
        return "the client alone: the server gets sums" if plan.aggregator.sums_only else "the server"
    if point == "aggregate":
        return "the server, and in the next round the clients"
    return "everybody to whom the student is given"


def _together(parts: list[Examples]) -> Examples:
    first = parts[0]
    return Examples(
        modality=first.modality,
        inputs=np.concatenate([p.inputs for p in parts]),
        labels=np.concatenate([labels_of(p) for p in parts]),
        ids=np.concatenate([p.ids for p in parts]),
    )
