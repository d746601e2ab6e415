"""What a guarantee means, in plain words: against whom, of what, and whether it amounts to protection."""

import math
from dataclasses import dataclass
from typing import Literal

from securekd.privacy.events import Neighbours, Unit, View
from securekd.records.record import GuaranteeRecord, Point, PrivacyRecord
from securekd.report import numbers

MEANINGLESS_ABOVE = 10.0
"""Largest ε that is still called protection: tiers 1 (up to 1) and 2 (up to 10) of Ponomareva et al. 2023."""

Verdict = Literal["strong", "reasonable", "meaningless", "none"]

VERDICTS: dict[Verdict, str] = {
    "strong": "strong",
    "reasonable": "moderate",
    "meaningless": "no meaningful protection",
    "none": "no guarantee",
}

POINTS: dict[Point, str] = {
    "client_model": "A client’s own model",
    "raw_release": "Release, unclipped",
    "clipped_release": "Release, unnoised",
    "client_release": "A client’s release",
    "aggregate": "The aggregate",
    "aggregate_minus_colluders": "Aggregate less colluders",
    "student": "The student",
}

UNITS: dict[Unit, str] = {"example": "One example of a client", "client": "A whole client"}

VIEWS: dict[View, str] = {"server": "The server", "clients": "The clients", "public": "The public"}

_RELATIONS: dict[Neighbours, str] = {
    "add_remove": "add/remove",
    "replace_one": "replace one",
    "zero_out": "zero-out",
}

_QUESTIONS: dict[tuple[Unit, Neighbours], str] = {
    ("example", "add_remove"): "whether any one example was in a client’s data or not",
    ("example", "replace_one"): "which of two values any one example of a client had",
    ("example", "zero_out"): "whether any one example of a client counted or was blanked out",
    ("client", "add_remove"): "whether a client took part or not",
    ("client", "replace_one"): "which of two whole data sets a client had",
    ("client", "zero_out"): "whether a client, known to take part, contributed anything or only zeros",
}


@dataclass(frozen=True)
class Promise:
    """One guarantee as the page shows it.

    Attributes:
        unit: what is protected.
        epsilon: the figure, or the word none.
        terms: δ and the neighbouring relation.
        verdict: how much protection this is.
        verdict_text: the same in words.
        meaning: what follows from it, or why there is none.
    """

    unit: str
    epsilon: str
    terms: str
    verdict: Verdict
    verdict_text: str
    meaning: str


@dataclass(frozen=True)
class ViewOfRun:
    """One adversary: what it sees, and what is promised against it."""

    view: View
    name: str
    sees: str
    promises: tuple[Promise, ...]


def views(privacy: PrivacyRecord, seeded: bool) -> tuple[ViewOfRun, ...]:
    """Every view with a promise for each unit; one that the record does not state is shown as none."""
    stated = {(g.view, g.unit): g for g in privacy.guarantees}
    return tuple(
        ViewOfRun(
            view=view,
            name=name,
            sees=_sees(view, privacy),
            promises=tuple(promise(stated.get((view, unit)), unit, seeded) for unit in UNITS),
        )
        for view, name in VIEWS.items()
    )


def promise(guarantee: GuaranteeRecord | None, unit: Unit, seeded: bool) -> Promise:
    """One guarantee in words; `seeded` noise voids any."""
    if guarantee is None:
        return _none(unit, "", "the record does not state one for this view")
    at = f"at δ = {numbers.delta(guarantee.delta)}"
    if guarantee.epsilon is None or guarantee.neighbours is None:
        return _none(unit, at, guarantee.why or "the record gives no reason")
    if seeded:
        figure = numbers.epsilon(guarantee.epsilon)
        return _none(unit, at, f"the noise is seeded; with noise from the operating system it would be ε = {figure}")
    verdict = assess(guarantee.epsilon)
    return Promise(
        unit=UNITS[unit],
        epsilon=f"ε = {numbers.epsilon(guarantee.epsilon)}",
        terms=f"{at}, neighbouring relation {_RELATIONS[guarantee.neighbours]}",
        verdict=verdict,
        verdict_text=VERDICTS[verdict],
        meaning=_meaning(guarantee.epsilon, _QUESTIONS[unit, guarantee.neighbours]),
    )


def assess(epsilon: float | None) -> Verdict:
    """How much an ε is worth."""
    if epsilon is None:
        return "none"
    if epsilon > MEANINGLESS_ABOVE:
        return "meaningless"
    return "strong" if epsilon <= 1 else "reasonable"


def _none(unit: Unit, terms: str, why: str) -> Promise:
    return Promise(UNITS[unit], "none", terms, "none", VERDICTS["none"], f"No ε is given: {why}.")


def _meaning(epsilon: float, question: str) -> str:
    if epsilon > MEANINGLESS_ABOVE:
        return (
            f"About {question}, a bound this large excludes practically nothing. "
            "It is arithmetic, and no meaningful protection."
        )
    factor = math.exp(epsilon)
    shown = f"{factor:.2f}" if factor < 10 else f"{factor:,.0f}"
    return f"Seeing this moves the odds on {question} by a factor of at most {shown} (e to the ε), up to the slack δ."


def _sees(view: View, privacy: PrivacyRecord) -> str:
    if view == "server":
        return privacy.server_sees
    if view == "clients":
        return "what the server makes of the sum and sends back in each round, besides what is their own"
    return "the student, and nothing else"
