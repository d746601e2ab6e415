"""Leakage as a measured quantity: membership inference at every point where an adversary may stand.

Members are private records, non-members test records. At points that show one client, a record is scored by one
client's model (members by their own client's, test records dealt out among the clients), so that no record is counted
twice. Test records are dealt class by class in proportion to what each client holds: otherwise a client with few
classes would seem to leak its members, when only its labels differ from the test set's.

Where canaries are planted, they are told in from out apart from these records, with a bound from the one run. Where
the release path is replayed, the optimal test stands at every point that noise protects, for a whole client.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securekd.checkpoint import Arrays
from securekd.data import Examples, holdings
from securekd.errors import RunError
from securekd.laboratory.canaries import CanaryKind
from securekd.laboratory.evaluation import labels_of
from securekd.laboratory.outcome import RoundOutcome
from securekd.laboratory.plan import Plan
from securekd.laboratory.points import Held, observed, seen_by
from securekd.laboratory.replay_record import rates_of, recorded, replayed
from securekd.learning.tasks import Perform
from securekd.privacy.accountant import example_epsilon
from securekd.privacy.ledger import LedgerFile
from securekd.records.record import Canaries, CanaryBound, CanaryRecord, Leakage, Point, Replay
from securekd.settings.models import Model
from securekd_attacks import (
    AttackInputError,
    MembershipScores,
    Provenance,
    Signals,
    auc,
    coop_lira_scores,
    membership_scores,
    one_run,
    one_run_bound,
    scaled_logit,
    split_bound,
)

CANARY_POINTS: tuple[Point, ...] = ("client_model", "student")


@dataclass(frozen=True, eq=False)
class Target:
    """One model that an adversary holds at some point, with the records that it is asked about."""

    model: Model
    state: Arrays
    members: Examples
    nonmembers: Examples


@dataclass(frozen=True)
class Measured:
    """What was measured, as the record has it."""

    leakage: tuple[Leakage, ...]
    canaries: Canaries | None
    replays: tuple[Replay, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """One attack's scores, before any bound: how many bounds there are decides the confidence of each.

    Attributes:
        point: where.
        round: after which round.
        scores: of members and non-members; of canaries, those in and those out.
        kind: of canaries; None for ordinary records.
    """

    point: Point
    round: int
    scores: MembershipScores
    kind: CanaryKind | None = None


def measure(plan: Plan, outcomes: Sequence[RoundOutcome], perform: Perform, ledger: LedgerFile) -> Measured:
    """Attack the observation points that the experiment asks for.

    Args:
        plan: the run's plan.
        outcomes: of all rounds.
        perform: carries out the adversary's own distillations.
        ledger: with every event of the run.

    Raises:
        RunError: if an attack cannot be made.
    """
    watched = outcomes if plan.experiment.audit.points == "all" else outcomes[-1:]
    rounds = [outcome.number for outcome in watched]
    found = [one for outcome in watched for one in attacked(plan, outcome, perform)]
    played = replayed(plan) if plan.experiment.audit.replays else {}
    sampled = plan.question.release.exposure.sampling_rate < 1
    bounds = len(found) + len(played) * len(rounds) * (1 if sampled else 2)
    confidence = plan.experiment.audit.confidence
    each = 1 - (1 - confidence) / bounds  # Bonferroni: all bounds of the record hold together with `confidence`
    epsilon = {n: example_epsilon(ledger.until(n)) for n in rounds}
    ordinary = tuple(_leakage(plan, one, epsilon[one.round], each) for one in found if one.kind is None)
    planted = tuple(_canary_bound(plan, one, one.kind, epsilon[one.round], each) for one in found if one.kind)
    replays = tuple(
        recorded(plan, point, n, scores, ledger.until(n), each) for n in rounds for point, scores in played.items()
    )
    return Measured(ordinary, _canaries(plan, planted), replays)


def attacked(plan: Plan, outcome: RoundOutcome, perform: Perform) -> list[Found]:
    """Every attack at every point after one round, on ordinary records and on each kind of canaries."""
    found: list[Found] = []
    held = observed(plan, outcome, perform)
    for point, models in held.items():
        targets = _targets(plan, models)
        found += [Found(point, outcome.number, scores) for scores in _scores(plan, point, targets, None)]
        if point == "client_release" and _cooperates(plan):
            found.append(Found(point, outcome.number, _coop_lira(plan, targets)))
    if plan.canaries is not None:
        coin = Provenance("bernoulli", 0.5)
        for point in CANARY_POINTS:
            for kind in plan.experiment.audit.canary_kinds:
                targets = _canary_targets(plan, held[point], kind)
                found += [Found(point, outcome.number, s, kind) for s in _scores(plan, point, targets, coin)]
    return found


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


def _cooperates(plan: Plan) -> bool:
    """Whether an adversary sees releases one by one, so that those of others can be its reference models."""
    return plan.experiment.audit.points == "all" and not plan.aggregator.sums_only and len(plan.clients) > 2


def _coop_lira(plan: Plan, targets: Sequence[Target]) -> MembershipScores:
    """Each client's records under its own release, against what all others' releases say of them (Co-op LiRA)."""
    members, nonmembers = [], []
    for i, target in enumerate(targets):
        asked = _together([target.members, target.nonmembers])
        signals = [
            scaled_logit(
                plan.log_probabilities(other.model, other.state, asked.inputs),
                labels_of(asked),
            )
            for other in targets
        ]
        scores = coop_lira_scores(np.stack(signals), i, individual=not plan.aggregator.sums_only)
        members.append(scores[: len(target.members)])
        nonmembers.append(scores[len(target.members) :])
    return MembershipScores("coop_lira", np.concatenate(members), np.concatenate(nonmembers))


def _targets(plan: Plan, models: Sequence[Held]) -> list[Target]:
    shares = nonmember_shares(plan)
    own = [_ordinary(plan, i) for i in range(len(plan.clients))]
    alone = len(models) == len(plan.clients)
    return [
        Target(
            held.model,
            held.state,
            _together([own[i] for i in held.clients]),
            shares[held.clients[0]] if alone else plan.data.test,
        )
        for held in models
    ]


def _ordinary(plan: Plan, client: int) -> Examples:
    dealt = plan.data.clients[client]
    return dealt if plan.canaries is None else plan.canaries.ordinary(client, dealt)


def _canary_targets(plan: Plan, models: Sequence[Held], kind: CanaryKind) -> list[Target]:
    canaries = plan.canaries
    if canaries is None:
        return []
    chosen, coins = canaries.kinds == kind, canaries.coins()

    def of(held: Held, side: np.ndarray) -> Examples:
        return _together([canaries.of(i, plan.data.clients[i], side) for i in held.clients])

    return [Target(h.model, h.state, of(h, chosen & coins), of(h, chosen & ~coins)) for h in models]


def _scores(
    plan: Plan, point: Point, targets: Sequence[Target], provenance: Provenance | None
) -> list[MembershipScores]:
    found = []
    members, nonmembers = (_signals(plan, targets, side) for side in ("members", "nonmembers"))
    for attack in plan.attacks:
        try:
            found.append(membership_scores(attack, members, nonmembers, provenance))
        except AttackInputError as error:
            raise RunError(f"the attack {attack.name!r} cannot be made at {point}: {error}") from error
    return found


def _signals(plan: Plan, targets: Sequence[Target], side: str) -> Signals:
    log_probs, labels, ids = [], [], []
    for target in targets:
        examples: Examples = target.members if side == "members" else target.nonmembers
        if not len(examples):  # a small client's share of the test set may be empty
            continue
        log_probs.append(plan.log_probabilities(target.model, target.state, examples.inputs))
        labels.append(labels_of(examples))
        ids.append(examples.ids)
    if not ids:
        raise RunError(f"there are no {side} to attack with; raise data.test, or audit.canaries where there are some")
    return Signals(np.concatenate(log_probs), np.concatenate(labels), np.concatenate(ids).tolist())


def _leakage(plan: Plan, found: Found, epsilon: float | None, each: float) -> Leakage:
    confidence, delta = plan.experiment.audit.confidence, plan.experiment.privacy.delta
    scores, point = found.scores, found.point
    area = auc(scores.members, scores.nonmembers, confidence)
    last = found.round == plan.experiment.rounds
    labels = (point, scores.attack) if last else (point, scores.attack, found.round)
    try:
        bound = split_bound(
            scores.members, scores.nonmembers, delta, each, rng=plan.randomness.public("audit", *labels)
        )
    except AttackInputError as error:
        raise RunError(f"the attack {scores.attack!r} cannot be made at {point}: {error}") from error
    return Leakage(
        point=point,
        attack=scores.attack,
        auc=area.value,
        auc_ci=(area.low, area.high),
        tpr_at_fpr=rates_of(scores.members, scores.nonmembers, confidence),
        epsilon_lower=bound.epsilon_lower,
        confidence=confidence,
        members=len(scores.members),
        nonmembers=len(scores.nonmembers),
        epsilon=epsilon,
        comparable=plan.experiment.data.partition.kind != "column" and plan.experiment.data.test_source is None,
        assumptions=bound.assumptions,
        seen_by=seen_by(plan, point),
        round=found.round,
    )


def _canary_bound(plan: Plan, found: Found, kind: CanaryKind, epsilon: float | None, each: float) -> CanaryBound:
    confidence, delta, scores = plan.experiment.audit.confidence, plan.experiment.privacy.delta, found.scores
    area = auc(scores.members, scores.nonmembers, confidence)
    guesses = (len(scores.members) + len(scores.nonmembers) + 1) // 2
    bound = one_run_bound(scores, guesses, delta, each)
    return CanaryBound(
        point=found.point,
        round=found.round,
        kind=kind,
        attack=scores.attack,
        auc=area.value,
        auc_ci=(area.low, area.high),
        canaries=bound.canaries,
        guesses=bound.guesses,
        correct=bound.correct,
        epsilon_lower=bound.epsilon_lower,
        epsilon_largest=one_run(bound.canaries, guesses, guesses, delta, each).epsilon_lower,
        confidence=confidence,
        epsilon=epsilon,
        delta=delta,
        assumptions=bound.assumptions,
        warnings=bound.warnings,
        seen_by=seen_by(plan, found.point),
    )


def _canaries(plan: Plan, bounds: tuple[CanaryBound, ...]) -> Canaries | None:
    planted = plan.canaries
    if planted is None:
        return None
    records = tuple(
        CanaryRecord(
            client=plan.clients[c].name, id=int(plan.data.clients[c].ids[r]), kind=k, label=int(y), included=bool(i)
        )
        for k, c, r, y, i in zip(
            planted.kinds, planted.clients, planted.rows, planted.labels, planted.coins(), strict=True
        )
    )
    return Canaries(planted=records, bounds=bounds)


def _together(parts: list[Examples]) -> Examples:
    first = parts[0]
    return Examples(
        modality=first.modality,
        inputs=np.concatenate([p.inputs for p in parts]),
        labels=np.concatenate([labels_of(p) for p in parts]),
        ids=np.concatenate([p.ids for p in parts]),
    )
