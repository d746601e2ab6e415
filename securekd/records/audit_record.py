"""`audit.json`: what an audit of a deployment found, and the contract with tools that read it (`securekd.audit/1`).

Keys are added, never renamed. The record is not private: it is computed from who was in the training data, and names
the most exposed records by their ids.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from securekd.errors import FolderError
from securekd.records.record import first_problem
from securekd_attacks import Auc, TprAtFpr, roc
from securekd_attacks.audit import AttackFound, AuditResult, AuditSettings
from securekd_attacks.bounds.assumptions import NOT_SAFETY

SCHEMA: Literal["securekd.audit/1"] = "securekd.audit/1"

CURVE = 200
"""Points of a stored ROC curve at most."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Area(_Part):
    """An AUC with its interval."""

    value: float
    low: float
    high: float


class Rate(_Part):
    """A TPR at an FPR: both with exact intervals, and the counts behind them."""

    fpr: float = Field(description="that was asked for")
    value: float
    low: float
    high: float
    realised_fpr: float
    fpr_low: float
    fpr_high: float
    true_positives: int
    members: int
    false_positives: int
    nonmembers: int
    resolved: bool = Field(description="false where non-members are too few, and at an FPR of 0")
    nonmembers_needed: int | None = Field(
        description="with which it would be resolved; null at an FPR of 0, which no number resolves"
    )


class Curve(_Part):
    """Corners of an ROC curve: at each false-positive rate the highest TPR, with its exact interval, point by point."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Bound(_Part):
    """A lower bound on ε, and what must hold for it to hold."""

    kind: Literal["clopper_pearson", "bayesian", "gdp", "one_run"]
    epsilon_lower: float
    mu_lower: float | None = None
    assumptions: tuple[str, ...]


class AttackRecord(_Part):
    """What one attack shows."""

    attack: str
    auc: Area
    tpr_at_fpr: tuple[Rate, ...]
    bounds: tuple[Bound, ...] = Field(description="each kind's, over all attacks together, hold with the confidence")
    p_value: float = Field(description="of 'ε is 0', adjusted for the number of attacks (Holm)")
    roc: Curve


class Missing(_Part):
    """An attack that was not possible, and what it needs."""

    attack: str
    needs: str


class Blind(_Part):
    """How well a classifier that never sees the model tells members from non-members."""

    auc: Area
    distribution_shift: bool = Field(description="its interval leaves out 0.5: no leakage is claimed")
    features: int


class Best(_Part):
    """The best of all attacks, with a bound that holds although it was chosen."""

    attack: str
    epsilon_lower: float
    assumptions: tuple[str, ...]


class ExposedRecord(_Part):
    """A member, by its id, and how many non-members score as high."""

    record: str
    score: float
    nonmembers_above: int


class ExposureRecord(_Part):
    """Exposure of planted canaries, in bits (Carlini et al. 2019)."""

    mean: float
    least: float
    most: float
    ceiling: float = Field(description="the most that so many candidates can show")
    at_ceiling: int = Field(description="canaries that no candidate comes before")
    canaries: int
    candidates: int


class Rounded(_Part):
    """Probabilities that sum to one only up to the rounding that their own digits show; each row was normalised."""

    records: int
    step: float = Field(description="between neighbouring probabilities just below one, the coarsest of all records'")


class Check(_Part):
    """One `--fail-above`: the largest figure over all attacks against its limit."""

    what: str
    limit: float
    value: float
    exceeded: bool


class AuditRecord(_Part):
    """The whole record."""

    schema_: Literal["securekd.audit/1"] = Field(SCHEMA, alias="schema")
    kind: Literal["folder", "endpoint", "callable", "signals"]
    target: str
    securekd: str
    python: str
    gives: tuple[str, ...] = Field(description="the kinds of access that the target gave")
    members: int
    nonmembers: int
    population: int = Field(description="further non-members, which attacks learnt from")
    left_out: int = Field(description="records that the references cannot score")
    cut: int = Field(description="texts of which the target read only the beginning")
    rounded: Rounded | None = Field(None, description="null: all probabilities sum to one as they are")
    columns: tuple[str, ...] = Field((), description="of a record, in the order in which they reached the target")
    notes: tuple[str, ...] = Field((), description="what was passed over when the files were read, a line each")
    seed: int
    inclusion: Literal["split", "bernoulli"]
    delta: float
    confidence: float
    attacks: tuple[AttackRecord, ...]
    not_possible: tuple[Missing, ...]
    blind: Blind | None = Field(description="null: nothing but the target's answers was given, so nobody can tell")
    best: Best
    strongest: str = Field(description="the attack with the largest AUC, whose scores name the most exposed")
    most_exposed: tuple[ExposedRecord, ...]
    exposure: ExposureRecord | None
    checks: tuple[Check, ...]

    def to_json(self) -> bytes:
        """The file's bytes; NaN and infinity cannot occur in it."""
        return (json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False) + "\n").encode()


def record_of(
    result: AuditResult,
    kind: Literal["folder", "endpoint", "callable", "signals"],
    target: str,
    checks: tuple[Check, ...],
    *,
    columns: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> AuditRecord:
    """Write a result down, with what is known of the files behind it."""
    blind, found = result.blind, result.exposure
    return AuditRecord(
        schema=SCHEMA,
        kind=kind,
        target=target,
        securekd=version("securekd"),
        python=platform.python_version(),
        gives=result.gives,
        members=result.members,
        nonmembers=result.nonmembers,
        population=result.population,
        left_out=result.left_out,
        cut=result.cut,
        rounded=Rounded(records=result.rounded, step=result.rounding) if result.rounded else None,
        columns=columns,
        notes=notes,
        seed=result.settings.seed,
        inclusion=result.settings.inclusion,
        delta=result.settings.delta,
        confidence=result.settings.confidence,
        attacks=tuple(_attack(each, result) for each in result.found),
        not_possible=tuple(Missing(attack=x.attack, needs=x.needs) for x in result.not_possible),
        blind=None
        if blind is None
        else Blind(auc=_area(blind.auc), distribution_shift=blind.distribution_shift, features=blind.features),
        best=Best(
            attack=result.best.attack,
            epsilon_lower=result.best.epsilon_lower,
            assumptions=(*result.best.assumptions, NOT_SAFETY),
        ),
        strongest=result.strongest,
        most_exposed=tuple(ExposedRecord(**vars(each)) for each in result.exposed),
        exposure=None
        if found is None
        else ExposureRecord(
            mean=float(found.values.mean()),
            least=float(found.values.min()),
            most=float(found.values.max()),
            ceiling=found.ceiling,
            at_ceiling=int(np.count_nonzero(found.ranks == 1.0)),
            canaries=found.values.size,
            candidates=found.candidates,
        ),
        checks=checks,
    )


def read_audit(folder: Path) -> AuditRecord:
    """The record of a finished audit.

    Raises:
        FolderError: if the folder has none, or one of another version.
    """
    path = folder / "audit.json"
    try:
        return AuditRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FolderError(f"no finished audit in {folder} ({error.strerror}: {path.name}); resume it") from error
    except ValidationError as error:
        raise FolderError(f"{path} is not a {SCHEMA} record: {first_problem(error)}") from error


def schema_text() -> str:
    """The JSON schema of a record, as it is published."""
    return json.dumps(AuditRecord.model_json_schema(by_alias=True), indent=1, ensure_ascii=False) + "\n"


def _attack(found: AttackFound, result: AuditResult) -> AttackRecord:
    held = next(x.held_out for x in result.best.candidates if x.attack == found.attack)
    bounds = [
        Bound(
            kind="clopper_pearson",
            epsilon_lower=found.epsilon_lower,
            assumptions=() if held is None else held.assumptions,
        )
    ]
    if found.bayesian is not None:
        bounds.append(
            Bound(kind="bayesian", epsilon_lower=found.bayesian.epsilon_lower, assumptions=found.bayesian.assumptions)
        )
    if found.gdp is not None:
        bounds.append(
            Bound(
                kind="gdp",
                epsilon_lower=found.gdp.epsilon_lower,
                mu_lower=found.gdp.mu_lower,
                assumptions=found.gdp.assumptions,
            )
        )
    if found.one_run is not None:
        bounds.append(
            Bound(kind="one_run", epsilon_lower=found.one_run.epsilon_lower, assumptions=found.one_run.assumptions)
        )
    return AttackRecord(
        attack=found.attack,
        auc=_area(found.auc),
        tpr_at_fpr=tuple(_rate(each) for each in found.tprs),
        bounds=tuple(bounds),
        p_value=found.p_value,
        roc=_curve(found, result.settings),
    )


def _area(auc: Auc) -> Area:
    return Area(value=auc.value, low=auc.low, high=auc.high)


def _rate(rate: TprAtFpr) -> Rate:
    return Rate(**{name: getattr(rate, name) for name in Rate.model_fields})


def _curve(found: AttackFound, settings: AuditSettings) -> Curve:
    """The highest point at each number of false positives; of many numbers some, evenly in the logarithm."""
    curve = roc(found.scores.members, found.scores.nonmembers, settings.confidence)
    last = np.append(np.flatnonzero(np.diff(curve.false_positives)), curve.fpr.size - 1)
    if last.size > CURVE:
        last = last[np.unique(np.geomspace(1, last.size, CURVE).round().astype(int)) - 1]
    return Curve(
        fpr=tuple(curve.fpr[last].tolist()),
        tpr=tuple(curve.value[last].tolist()),
        low=tuple(curve.low[last].tolist()),
        high=tuple(curve.high[last].tolist()),
    )
