"""What a run replays of its release path, and what the record says of it beside the ledger."""

from typing import Literal

import numpy as np
from scipy.special import ndtr

from securekd.laboratory.plan import Plan
from securekd.laboratory.points import seen_by
from securekd.laboratory.replay import ReleasePath, Replayed, ReplayedPoint, refuted, replay
from securekd.privacy.accountant import guarantee
from securekd.privacy.events import View
from securekd.privacy.ledger import LedgerFile
from securekd.records.record import Rate, Replay
from securekd_attacks import auc, gaussian_tpr, tpr_at_fpr

FPR = Literal["0.1", "0.01", "0.001"]
RATES: tuple[FPR, ...] = ("0.1", "0.01", "0.001")


def replayed(plan: Plan) -> dict[ReplayedPoint, Replayed]:
    """The release path of the run's plan, replayed over the fewest clients whose sum is opened."""
    clients, colluders = plan.agreement.threshold, max(1, plan.experiment.cohort.colluders)
    paths = [
        ReleasePath.as_promised(question, clients, colluders if colluders < clients else 0)
        for question in plan.questions
        for _ in range(question.exchanges)
    ]
    return replay(
        paths, trials=plan.experiment.audit.replays, rounds=plan.experiment.rounds, secret=plan.randomness.secret
    )


def recorded(
    plan: Plan, point: ReplayedPoint, number: int, scores: Replayed, ledger: LedgerFile, each: float
) -> Replay:
    """One point after one round, as a record has it.

    Args:
        plan: the run's plan.
        point: where the adversary stands.
        number: of the round.
        scores: at that point, after each round.
        ledger: as it stood after that round.
        each: confidence of each lower bound by itself.
    """
    confidence, delta = plan.experiment.audit.confidence, plan.experiment.privacy.client_delta
    exposure, view = plan.question.release.exposure, _view(plan, point)
    present, absent, mu = scores.present[number - 1], scores.absent[number - 1], float(scores.mu[number - 1])
    shown, area = refuted(present, absent, mu, delta, each), auc(present, absent, confidence)
    proven = None if view is None else guarantee(ledger, "client", view)
    rate = exposure.sampling_rate
    colluders = max(1, plan.experiment.cohort.colluders)
    return Replay(
        point=point,
        round=number,
        view=view,
        unit="client",
        neighbours=exposure.neighbours,
        clients=1 if point == "client_release" else plan.agreement.threshold,
        colluders=colluders if point == "aggregate_minus_colluders" else 0,
        trials=len(present),
        mu=mu,
        auc=area.value,
        auc_ci=(area.low, area.high),
        auc_promised=(1 - rate) / 2 + rate * float(ndtr(mu / 2**0.5)),
        tpr_at_fpr=rates_of(present, absent, confidence),
        tpr_promised={r: (1 - rate) * float(r) + rate * gaussian_tpr(mu, float(r)) for r in RATES},
        epsilon_lower=shown.counts.epsilon_lower,
        epsilon_lower_gaussian=shown.gaussian.epsilon_lower if rate == 1 else None,
        epsilon_largest=shown.largest,
        confidence=confidence,
        epsilon=None if proven is None else proven.epsilon,
        delta=delta,
        why="no other party is at this point" if proven is None else proven.why,
        assumptions=shown.counts.assumptions,
        assumptions_gaussian=shown.gaussian.assumptions if rate == 1 else (),
        seen_by=_replay_seen_by(plan, point, colluders),
    )


def rates_of(members: np.ndarray, nonmembers: np.ndarray, confidence: float) -> dict[FPR, Rate]:
    """The TPR at each of `RATES`, as a record has it."""
    found = {rate: tpr_at_fpr(members, nonmembers, float(rate), confidence) for rate in RATES}
    return {k: Rate(value=r.value, low=r.low, high=r.high, resolved=r.resolved) for k, r in found.items()}


def _view(plan: Plan, point: ReplayedPoint) -> View | None:
    """The view whose ε a point is set beside: the one whose unknown noise is what is unknown there."""
    if point == "client_release":
        return None if plan.aggregator.sums_only else "server"
    return "public" if point == "aggregate" else "clients"


def _replay_seen_by(plan: Plan, point: ReplayedPoint, colluders: int) -> str:
    if point == "client_release":
        return seen_by(plan, point)
    if point == "aggregate":
        return "whoever sees the sum of the fewest clients that are summed, and nobody's noise"
    return f"a participant, or the server, with the noise of {colluders} of the fewest clients that are summed"
