"""Facts of a run that several parts of the record make up together, as frozen values for the template."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tomli_w

from securekd.privacy.events import Unit, View
from securekd.records.record import Holdings, Result, Utility
from securekd.report import wording

CLIENTS_SHOWN = 50
"""Clients listed one by one; the record holds the others."""

CLASSES_SHOWN = 16
"""Classes with a column of their own; where there are more, the smallest are put together."""

LONGEST_NAME = 60
LONGEST_CONFIGURATION = 200_000

_STRATEGIES = {
    "distil": "Federated distillation: clients teach a student through scores on public data",
    "fedavg": "Federated averaging: clients send weight updates",
}

_LOSSES = {"forward_kl": "forward KL", "reverse_kl": "reverse KL", "jensen_shannon": "Jensen–Shannon"}

_AGGREGATIONS = {
    "masking": "Secure aggregation by pairwise masking: the server sees sums only",
    "ckks": "Homomorphic sums (CKKS): the server adds ciphertexts; a decryptor apart from it opens sums, sees them, "
    "and is trusted to look at nothing else",
    "bfv": "Homomorphic sums (BFV): the server adds ciphertexts; a decryptor apart from it opens sums, and sees them",
    "plain": "None (plain sums): the server sees every client’s release",
}


@dataclass(frozen=True)
class Bar:
    """One model's figures under a label; `main` marks the student."""

    label: str
    utility: Utility
    main: bool = False


@dataclass(frozen=True)
class Promised:
    """The ε of one unit, as one figure: the largest over its views, None as soon as one view has none."""

    epsilon: float | None
    delta: float | None
    verdict: str


@dataclass(frozen=True)
class Setup:
    """What was run."""

    strategy: str
    aggregation: str
    source: str
    partition: str
    models: str
    student: str
    parts: str


def setup(result: Result) -> Setup:
    """What was run, from the configuration and the record."""
    experiment = result.experiment
    strategy, aggregation = str(experiment.get("strategy", "")), str(experiment.get("aggregation", ""))
    kinds = Counter(local.model for local in result.utility.locals)
    student = str(_setting(experiment, "student", "model", "kind") or "unnamed")
    loss = str(_setting(experiment, "student", "loss") or "")
    taught = f"{student}, distilled by {_LOSSES.get(loss, loss)}" if loss else student
    averaged = strategy == "fedavg"
    return Setup(
        strategy=_STRATEGIES.get(strategy, strategy),
        aggregation=_AGGREGATIONS.get(aggregation, aggregation),
        source=str(_setting(experiment, "data", "source") or "unnamed"),
        partition=_partition(experiment),
        models=", ".join(f"{number} × {elide(kind)}" for kind, number in kinds.items()),
        student=f"{student}, whose weights are the mean of the clients’" if averaged else taught,
        parts="updates" if averaged else "rows",
    )


def models(result: Result) -> tuple[Bar, ...]:
    """The student, and everything that it is compared with."""
    u = result.utility
    same = "same DP" if result.privacy.dp_sgd_noise_multiplier is not None else "trained alike (no DP here)"
    return (
        Bar("Student", u.student, main=True),
        Bar("Clients alone, mean", u.local_mean),
        Bar("Clients alone, best", u.local_best),
        Bar(f"All data in one place, {same}", u.centralized),
        Bar("All data in one place, no privacy", u.centralized_nonprivate),
        *([Bar(f"Linear head on all data, {same}", u.simple)] if u.simple is not None else []),
    )


# Points of accuracy by which the simplest model may be ahead without a word.
TOLERATED = 0.02


def shortfall(result: Result) -> str | None:
    """What to say and to try where the simplest model beats the student; None where it does not."""
    student, simple = result.utility.student, result.utility.simple
    if simple is None or simple.accuracy <= student.accuracy + TOLERATED:
        return None
    return (
        f"a linear head on public features, with all data in one place and the same DP, has {simple.accuracy:.1%}, and "
        f"the student {student.accuracy:.1%}: try such heads as clients.models, loss = 'background' where labels are "
        "uneven, and student.model = 'kernel' with student.loss = 'least_squares' (docs/models.md)"
    )


def promised(result: Result, unit: Unit, view: View | None = None) -> Promised:
    """The ε for a unit in one view, or the one that holds in every view. Seeded noise promises nothing."""
    found = [g for g in result.privacy.guarantees if g.unit == unit and view in (None, g.view)]
    figures = [g.epsilon for g in found]
    known = [e for e in figures if e is not None]
    holds = bool(known) and len(known) == len(figures) and result.environment.noise == "os"
    epsilon = max(known) if holds else None
    delta = max((g.delta for g in found), default=None)
    return Promised(epsilon, delta, wording.VERDICTS[wording.assess(epsilon)])


def holdings_shown(data: Holdings) -> Holdings:
    """The holdings with few enough clients and classes, and short enough names, to print."""
    totals = [sum(row[c] for row in data.counts) for c in range(len(data.classes))]
    kept = list(range(len(data.classes)))
    names = [elide(name) for name in data.classes]
    rows = data.counts[:CLIENTS_SHOWN]
    if len(kept) > CLASSES_SHOWN:
        kept = sorted(sorted(kept, key=lambda c: -totals[c])[: CLASSES_SHOWN - 1])
        names = [names[c] for c in kept] + [f"{len(data.classes) - len(kept)} others"]
    counts = [[row[c] for c in kept] for row in rows]
    if len(names) > len(kept):
        counts = [[*few, sum(row) - sum(few)] for few, row in zip(counts, rows, strict=True)]
    return data.model_copy(
        update={
            "classes": tuple(names),
            "clients": tuple(elide(name) for name in data.clients[:CLIENTS_SHOWN]),
            "counts": tuple(tuple(row) for row in counts),
        }
    )


def against_fedavg(result: Result) -> str:
    """Upload beside what FedAvg would have cost, in words."""
    if result.experiment.get("strategy") == "fedavg":
        return "This is federated averaging: what a client sent is what it costs, protocol and all."
    c = result.communication
    sent, weights = c.upload_bytes_per_client.mean, c.fedavg_bytes_per_client.mean
    if sent <= 0 or weights <= 0:
        return "There is nothing to compare."
    if sent <= weights:
        return f"A client sent {weights / sent:,.1f} times less than FedAvg would have asked of it."
    return (
        f"A client sent {sent / weights:,.1f} times as much as FedAvg would have asked of it: "
        f"weights this small take less room than scores on {result.data.transfer:,} rows."
    )


def gradients(result: Result) -> str | None:
    """How the clipped gradients of DP-SGD were computed, in words; None where nobody took any."""
    ways = result.rounds[-1].gradients if result.rounds else {}
    closed, hooks = ways.get("closed_form", 0), ways.get("hooks", 0)
    if not closed + hooks:
        return None
    quick = "in closed form, on features computed once"
    slow = "example by example, through hooks in the model"
    if not closed or not hooks:
        return f"Clipped gradients were computed {quick if closed else slow}, for every client."
    some = f"for {closed} of {closed + hooks} clients"
    return f"Clipped gradients were computed {quick}, {some}, and {slow}, for the others."


def configuration(experiment: Mapping[str, Any]) -> str:
    """The resolved configuration as TOML, settings that are unset left away."""
    text = tomli_w.dumps(_without_none(experiment))
    if len(text) <= LONGEST_CONFIGURATION:
        return text
    return text[:LONGEST_CONFIGURATION] + "\n# … cut here; config.toml has the rest\n"


def elide(name: str, longest: int = LONGEST_NAME) -> str:
    """A name, cut where it is too long to print; what cannot be printed at all (control characters) becomes �."""
    cut = name if len(name) <= longest else name[: longest - 1] + "…"
    return "".join(letter if letter.isprintable() else "�" for letter in cut)


def _partition(experiment: Mapping[str, Any]) -> str:
    kind, alpha, column = (_setting(experiment, "data", "partition", key) for key in ("kind", "alpha", "column"))
    if kind == "dirichlet":
        return f"by class, unevenly (Dirichlet, α = {alpha:g})"
    if kind == "quantity":
        return f"in uneven amounts (Dirichlet, α = {alpha:g})"
    if kind == "column":
        return f"by the column {elide(str(column))}"
    return "evenly, at random" if kind == "iid" else str(kind or "unstated")


def _setting(experiment: Mapping[str, Any], *path: str) -> Any:
    # A record may be older or newer than these models, so it is read key by key and never refused for a setting.
    value: Any = experiment
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value if inner is not None]
    return value
