"""Asking a target about all records of an audit: what was answered is on disk, and is not asked again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from securekd_attacks.audit.settings import AuditSettings
from securekd_attacks.errors import OverlappingRecords, ShapeMismatch
from securekd_attacks.inputs import FloatArray
from securekd_attacks.signals.access import Signals
from securekd_attacks.signals.tokens import mean_loss
from securekd_attacks.targets.answers import AnswerStore, Progress, ask_all, in_order
from securekd_attacks.targets.features import altered, record_features
from securekd_attacks.targets.records import Answers, Inputs, Records, Target, content_ids, joined, taken
from securekd_attacks.targets.sides import References, Sides

_LONGEST_SHOWN = 60
"""Characters of a record's id that an error repeats."""


def collect(
    target: Target,
    members: Records,
    nonmembers: Records,
    settings: AuditSettings,
    folder: Path,
    *,
    population: Records | None = None,
    references: Callable[[AnswerStore, Records], References] | None = None,
    progress: Progress | None = None,
) -> tuple[Sides, int]:
    """Ask about all records of all sides, in random order, so that nothing that changes in time tells sides apart.

    Returns:
        The signals, and how many texts the target cut.

    Raises:
        OverlappingRecords: a record, by id or by content, is on two sides or twice on one.
        ShapeMismatch: sides of different kinds, or with labels on some sides only.
        TargetFailed, DesignChanged, DamagedStore: see `targets.answers.ask_all` and `AnswerStore.open`.
    """
    parts = [members, nonmembers] if population is None else [members, nonmembers, population]
    together = _together(parts)
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(together))
    names = _names(parts)
    shuffled = [names[row] for row in order]
    store = AnswerStore.open(
        folder,
        {
            "target": target.name,
            "records": [part.digest() for part in parts],
            "batch": settings.batch,
            "seed": settings.seed,
            "strength": settings.strength,
        },
    )

    def ask(inputs: Inputs, part: str) -> Answers:
        asked = ask_all(target, taken(inputs, order), store, part, settings.batch, progress, shuffled)
        return in_order(asked, order)

    answers = ask(together.inputs, "target")
    copies = []
    if answers.predicted is not None or "neighbourhood" in settings.attacks:
        for number in range(settings.copies):
            copy = altered(together.inputs, settings.strength, rng)
            if copy is not None:
                copies.append(ask(copy, f"copy-{number + 1}"))
    whole = _signals(together, answers, copies)
    ends = np.cumsum([len(part) for part in parts])
    sides = [whole.take(np.arange(end - len(part), end)) for part, end in zip(parts, ends, strict=True)]
    given = Sides(sides[0], sides[1], sides[2] if population is not None else None)
    return (given if references is None else references(store, together).beside(given)), answers.cut


def refuse_unlike(parts: Sequence[Records]) -> None:
    """Make sure that the sides are of one kind, and that no record, by id or by content, is on two of them.

    Raises:
        ShapeMismatch: sides of different kinds or with other columns, or with labels on some sides only.
        OverlappingRecords: a record stands on two sides.
    """
    kinds = {part.kind for part in parts}
    if len(kinds) > 1:
        raise ShapeMismatch("sides differ in kind", value=" and ".join(sorted(kinds)), remedy="give records alike")
    if len({part.columns for part in parts}) > 1:
        named = [", ".join(part.columns)[:80] if part.columns else "columns without names" for part in parts]
        raise ShapeMismatch(
            "sides differ in their columns", value=" and ".join(dict.fromkeys(named)), remedy="give the same, by name"
        )
    if len({part.labels is None for part in parts}) > 1:
        raise ShapeMismatch("only some sides have labels", value="labels", remedy="give all of them, or none")
    seen: dict[str, int] = {}
    for side, part in enumerate(parts):
        keys = content_ids(part.inputs)
        for names in ((f"id {name}" for name in part.ids), (f"content of {name}" for name in keys)):
            for name in names:
                if seen.setdefault(name, side) != side:
                    shown = name if name.startswith("id ") else f"id {part.ids[keys.index(name.split()[-1])]}"
                    raise OverlappingRecords(
                        "a record stands on two sides", value=shown, remedy="keep it on the side where it belongs"
                    )


def _names(parts: Sequence[Records]) -> list[str]:
    """Each record's id, and where it stands among those that were read of its side."""
    sides = ("members", "non-members", "population")
    return [
        f"{name[:_LONGEST_SHOWN]} (number {place} of the {side})"
        for side, part in zip(sides, parts, strict=False)
        for place, name in enumerate(part.ids, start=1)
    ]


def _together(parts: Sequence[Records]) -> Records:
    refuse_unlike(parts)
    labels = [part.labels for part in parts if part.labels is not None]
    return Records(
        inputs=joined([part.inputs for part in parts]),
        ids=tuple(name for part in parts for name in part.ids),
        labels=np.concatenate(labels) if labels else None,
        columns=parts[0].columns,
    )


def _signals(records: Records, answers: Answers, copies: Sequence[Answers]) -> Signals:
    predicted, losses = None, None
    if answers.predicted is not None:
        columns = [answers.predicted, *(copy.predicted for copy in copies if copy.predicted is not None)]
        predicted = np.stack(columns, axis=1)
    if answers.token_log_probs is not None and copies:
        losses = np.stack([_mean_losses(copy) for copy in copies], axis=1)
    texts = isinstance(records.inputs[0], str)
    return Signals(
        log_probs=answers.log_probs,
        labels=records.labels,
        record_ids=records.ids,
        predicted=predicted,
        features=record_features(records.inputs),
        texts=[str(text) for text in records.inputs] if texts else None,
        token_log_probs=answers.token_log_probs,
        token_means=answers.token_means,
        token_deviations=answers.token_deviations,
        neighbour_losses=losses,
        rounding=answers.rounding,
    )


def _mean_losses(copy: Answers) -> FloatArray:
    return np.array([mean_loss(tokens) for tokens in copy.token_log_probs or ()])
