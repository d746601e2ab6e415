"""The audit of a deployment: a target is asked about members and non-members, attacks score them, figures follow.

`collect` asks (with everything on disk that was answered), `evaluate` computes and touches nothing, `audit` is both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securekd_attacks.attacks.attack import membership_scores
from securekd_attacks.attacks.blind import FOLDS, BlindBaseline, blind_baseline
from securekd_attacks.audit.asking import collect
from securekd_attacks.audit.catalogue import Recipe, recipes
from securekd_attacks.audit.settings import AuditSettings
from securekd_attacks.bounds.canaries import Exposure, exposure, one_run_bound
from securekd_attacks.bounds.credible import BayesianBound, bayesian
from securekd_attacks.bounds.gaussian import GaussianBound, gdp
from securekd_attacks.bounds.selection import BestOf, best_of
from securekd_attacks.bounds.single_run import OneRunBound
from securekd_attacks.errors import BadSetting, MissingAccess, TooFewRecords
from securekd_attacks.inputs import FloatArray
from securekd_attacks.metrics import Auc, TprAtFpr, auc, tpr_at_fpr
from securekd_attacks.references.inclusion import covered
from securekd_attacks.scores import MembershipScores, Provenance
from securekd_attacks.signals.access import Access, Signals, check_disjoint
from securekd_attacks.signals.tokens import mean_loss
from securekd_attacks.targets.answers import AnswerStore, Progress
from securekd_attacks.targets.records import Records, Target
from securekd_attacks.targets.sides import References, Sides

EXPOSED = 20
"""Records that are named at most."""

GUESSED = 0.2
"""Share of canaries that a one-run bound guesses: fixed before anything is seen."""


@dataclass(frozen=True)
class AttackFound:
    """What one attack shows.

    Attributes:
        attack: its name.
        scores: of all records that were scored.
        auc: with its interval.
        tprs: one for each of the settings' rates.
        epsilon_lower: by `clopper_pearson` on the half that the threshold was not chosen on; of all attacks together
            it holds with the settings' confidence.
        p_value: of "ε is 0", adjusted for the number of attacks (Holm).
        bayesian: None where it was not asked for, like the next two.
        gdp: if the mechanism's trade-off is Gaussian.
        one_run: from canaries included by coins.
    """

    attack: str
    scores: MembershipScores
    auc: Auc
    tprs: tuple[TprAtFpr, ...]
    epsilon_lower: float
    p_value: float
    bayesian: BayesianBound | None = None
    gdp: GaussianBound | None = None
    one_run: OneRunBound | None = None


@dataclass(frozen=True)
class NotPossible:
    """An attack that was not run, and what it needs."""

    attack: str
    needs: str


@dataclass(frozen=True)
class Exposed:
    """A member among the highest scores of the strongest attack.

    Attributes:
        record: its id.
        score: higher = more likely a member.
        nonmembers_above: non-members with at least this score.
    """

    record: str
    score: float
    nonmembers_above: int


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        settings: under which.
        gives: the kinds of access that the target gave.
        members: how many were scored.
        nonmembers: how many were scored.
        population: non-members that attacks learnt from.
        left_out: records that no attack was scored on, since the references hold or omit them all.
        found: of each attack that was possible, as they were named or else as in the catalogue; at least one.
        not_possible: the others.
        blind: None where nothing is known of the records but the target's answers.
        best: over all attacks, with a bound that holds although the best was chosen.
        exposed: the most exposed members under the attack with the largest AUC, `strongest`.
        strongest: its name.
        exposure: of planted canaries, in bits; None where they are none.
        cut: texts of which the target read only the beginning.
        rounded: records whose probabilities sum to one only up to the rounding that their digits show.
        rounding: the coarsest step of that rounding, just below one; 0 where none is rounded.
    """

    settings: AuditSettings
    gives: tuple[str, ...]
    members: int
    nonmembers: int
    population: int
    left_out: int
    found: tuple[AttackFound, ...]
    not_possible: tuple[NotPossible, ...]
    blind: BlindBaseline | None
    best: BestOf
    exposed: tuple[Exposed, ...]
    strongest: str
    exposure: Exposure | None
    cut: int = 0
    rounded: int = 0
    rounding: float = 0.0


def audit(
    target: Target,
    members: Records,
    nonmembers: Records,
    settings: AuditSettings,
    folder: Path,
    *,
    population: Records | None = None,
    references: Callable[[AnswerStore, Records], References] | None = None,
    progress: Progress | None = None,
) -> AuditResult:
    """Ask a target and evaluate its answers. Called again with the same arguments, it goes on where it stopped.

    Args:
        target: what is audited.
        members: records that it was trained with.
        nonmembers: records that it was not trained with.
        settings: see `AuditSettings`.
        folder: where answers are kept.
        population: further non-members, which attacks learn from.
        references: reference models, given where to keep their answers and all records.
        progress: called after every batch.

    Raises:
        AttackInputError: the input is unfit, see `collect` and `evaluate`.
        TargetFailed: the target stopped answering; call again.
    """
    sides, cut = collect(
        target, members, nonmembers, settings, folder, population=population, references=references, progress=progress
    )
    return evaluate(sides, settings, cut=cut)


def evaluate(sides: Sides, settings: AuditSettings, *, cut: int = 0) -> AuditResult:
    """From signals to figures; nothing is asked, read or written, and the same input gives the same result.

    Raises:
        OverlappingRecords: a record is on both sides.
        BadSetting: no attack is possible with what the target shows.
        AttackInputError: the signals are unfit: labels out of range, too few records, and so on.
    """
    check_disjoint(sides.members, sides.nonmembers)
    chosen = recipes(settings.attacks, sides)
    lacking = {recipe.name: recipe.lacks(sides) for recipe in chosen}
    possible = [recipe for recipe in chosen if not lacking[recipe.name]]
    missing = [NotPossible(name, "; ".join(needs)) for name, needs in lacking.items() if needs]
    kept = _covered(sides, possible)
    scores, short = _scored(possible, kept, settings)
    missing += short
    if not scores:
        raise BadSetting(
            "no attack is possible with what the target shows",
            value="; ".join([*sorted(sides.members.available), *(f"{x.attack} needs {x.needs}" for x in missing)]),
            remedy="choose others, or give what they need",
        )
    best = best_of(scores, settings.delta, settings.confidence, method="holm", rng=np.random.default_rng(settings.seed))
    found = tuple(_found(each, best, settings) for each in scores)
    strongest = max(found, key=lambda each: each.auc.value)
    rounding = _rounding(kept)
    return AuditResult(
        settings=settings,
        gives=tuple(sorted(access.value for access in sides.members.available)),
        members=kept.members.records,
        nonmembers=kept.nonmembers.records,
        population=0 if sides.population is None else sides.population.records,
        left_out=sum(
            before.records - after.records
            for before, after in ((sides.members, kept.members), (sides.nonmembers, kept.nonmembers))
        ),
        found=found,
        not_possible=tuple(missing),
        blind=_blind(kept, settings),
        best=best,
        exposed=_exposed(strongest.scores, kept.members),
        strongest=strongest.attack,
        exposure=_exposure(kept) if settings.canaries else None,
        cut=cut,
        rounded=int(np.count_nonzero(rounding)),
        rounding=float(rounding.max(initial=0.0)),
    )


def _rounding(sides: Sides) -> FloatArray:
    """The steps that the probabilities of all records were rounded to, 0 where they were not."""
    given = (sides.members, sides.nonmembers, sides.population)
    return np.concatenate([np.zeros(0), *(s.rounding for s in given if s is not None and s.rounding is not None)])


def _covered(sides: Sides, possible: Sequence[Recipe]) -> Sides:
    """The sides without the records that some attack's references cannot score: all attacks score the same ones."""
    using = [recipe for recipe in possible if Access.REFERENCES in recipe.needs]
    if not using:
        return sides
    fewest = max(recipe.references_in for recipe in using), max(recipe.references_out for recipe in using)

    def keep(side: Signals) -> Signals:
        return side.take(np.flatnonzero(covered(np.asarray(side.inclusion), *fewest)))

    population = sides.population
    if population is not None and population.inclusion is not None:
        population = population.take(np.flatnonzero(covered(np.asarray(population.inclusion), 0, fewest[1])))
    return Sides(keep(sides.members), keep(sides.nonmembers), population, sides.shadows)


def _scored(
    possible: Sequence[Recipe], sides: Sides, settings: AuditSettings
) -> tuple[list[MembershipScores], list[NotPossible]]:
    """The scores of every attack, but for those that have too little to learn from."""
    origin = Provenance(settings.inclusion, 0.5 if settings.inclusion == "bernoulli" else None)
    scores, short = [], []
    for recipe in possible:
        try:
            scores.append(membership_scores(recipe.make(sides), sides.members, sides.nonmembers, origin))
        except TooFewRecords as error:
            if not (recipe.population or recipe.shadows):
                raise
            short.append(NotPossible(recipe.name, f"more to learn from: {error}"))
    return scores, short


def _found(scores: MembershipScores, best: BestOf, settings: AuditSettings) -> AttackFound:
    held = next(each for each in best.candidates if each.attack == scores.attack)
    if held.held_out is None or held.p_value is None:
        raise BadSetting("an attack without a bound", value=scores.attack, remedy="choose by Holm's method")
    counts, shared = held.held_out, held.held_out.confidence
    hits = (counts.true_positives, counts.members, counts.false_positives, counts.nonmembers)
    return AttackFound(
        attack=scores.attack,
        scores=scores,
        auc=auc(scores.members, scores.nonmembers, settings.confidence),
        tprs=tuple(tpr_at_fpr(scores.members, scores.nonmembers, fpr, settings.confidence) for fpr in settings.fprs),
        epsilon_lower=counts.epsilon_lower,
        p_value=held.p_value,
        bayesian=bayesian(
            hits[0], hits[3] - hits[2], hits[2], hits[1] - hits[0], delta=settings.delta, confidence=shared
        )
        if "bayesian" in settings.bounds
        else None,
        gdp=gdp(*hits, delta=settings.delta, confidence=shared) if "gdp" in settings.bounds else None,
        one_run=one_run_bound(
            scores,
            max(1, round(GUESSED * (scores.members.size + scores.nonmembers.size))),
            settings.delta,
            shared,
        )
        if "one_run" in settings.bounds
        else None,
    )


def _blind(sides: Sides, settings: AuditSettings) -> BlindBaseline | None:
    inside, outside = sides.members.features, sides.nonmembers.features
    if inside is None or outside is None or min(len(inside), len(outside)) < 2 * FOLDS:
        return None
    return blind_baseline(inside, outside, seed=settings.seed, confidence=settings.confidence)


def _exposed(scores: MembershipScores, members: Signals) -> tuple[Exposed, ...]:
    names = members.record_ids or [f"member {i}" for i in range(members.records)]
    top = np.argsort(-scores.members, kind="stable")[:EXPOSED]
    above = scores.nonmembers.size - np.searchsorted(np.sort(scores.nonmembers), scores.members[top], side="left")
    return tuple(
        Exposed(record=str(names[int(row)]), score=float(scores.members[row]), nonmembers_above=int(count))
        for row, count in zip(top, above, strict=True)
    )


def _exposure(sides: Sides) -> Exposure:
    losses = []
    for side in (sides.members, sides.nonmembers):
        if side.token_log_probs is None:
            raise MissingAccess(
                "exposure is told of texts", value="no token log-probabilities", remedy="audit a language model"
            )
        losses.append(np.array([mean_loss(tokens) for tokens in side.token_log_probs]))
    return exposure(losses[0], losses[1])
