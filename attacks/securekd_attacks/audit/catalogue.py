"""The attacks that an audit of a deployment can run, by name: what each needs, and how it is made ready."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securekd_attacks.attacks.attack import Attack, EntropyAttack, LossAttack
from securekd_attacks.attacks.label_only import LabelOnlyAttack
from securekd_attacks.attacks.learned import QuantileAttack, ShadowAttack
from securekd_attacks.attacks.lira import Mode, Variance
from securekd_attacks.attacks.reference import CALIBRATED, LiraAttack, PopulationAttack, ReferenceAttack, RmiaAttack
from securekd_attacks.attacks.text import (
    MinKAttack,
    MinKPlusPlusAttack,
    NeighbourhoodAttack,
    ReferenceTextAttack,
    TokenLossAttack,
    ZlibAttack,
)
from securekd_attacks.errors import BadSetting
from securekd_attacks.signals.access import Access, Signals
from securekd_attacks.targets.sides import Sides

Group = Literal["classes", "labels", "tokens", "asked"]
"""By which an attack is run without being named: the target shows classes, labels alone, or tokens. `asked`: never."""


@dataclass(frozen=True)
class Recipe:
    """One attack of an audit.

    Attributes:
        name: as in `Attack.name`.
        group: see `Group`.
        needs: of both sides.
        make: the attack, fitted where it learns from something; called when all needs are met.
        population: whether it learns from non-members that are not scored.
        shadows: whether it learns from what the references answer to records that they do and do not hold.
        references_in: how many references must hold each record.
        references_out: how many must not.
    """

    name: str
    group: Group
    needs: frozenset[Access]
    make: Callable[[Sides], Attack]
    population: bool = False
    shadows: bool = False
    references_in: int = 0
    references_out: int = 0

    def lacks(self, sides: Sides) -> tuple[str, ...]:
        """What is missing, in the words of `Access`; empty where the attack can be run."""
        given = sides.members.available & sides.nonmembers.available
        missing = [access.value for access in sorted(self.needs - given)]
        if self.shadows and sides.shadows is None:
            missing.append("shadow models' own outputs (a signals file of several models, or model folders)")
        if self.population and (sides.population is None or not self.needs <= sides.population.available):
            missing.append("a population (non-members that are not scored)")
        if not missing and sides.members.inclusion is not None and sides.nonmembers.inclusion is not None:
            for fewest, held, what in (
                (self.references_in, True, "trained with"),
                (self.references_out, False, "trained without"),
            ):
                most = min(_most(side, held) for side in (sides.members, sides.nonmembers))
                if most < fewest:
                    missing.append(f"{fewest} references {what} each record, there are {most}")
        return tuple(missing)


FAMILIES = {
    "lira": ("lira_online_residual", "lira_offline_per_example"),
    "rmia": ("rmia_online", "rmia_offline"),
}
"""Short names that stand for several attacks, which the tables name apart."""


def recipes(names: Sequence[str], sides: Sides) -> tuple[Recipe, ...]:
    """The attacks of these names (or families), or where none is named those that fit what the target shows.

    Raises:
        BadSetting: an unknown name, or one twice.
    """
    known = {recipe.name: recipe for recipe in RECIPES}
    names = [one for name in names for one in FAMILIES.get(name, (name,))]
    if not names:
        shown = sides.members.available
        groups = {
            "classes": Access.LOG_PROBS in shown,
            "labels": Access.PREDICTED in shown and Access.LOG_PROBS not in shown,
            "tokens": Access.TOKEN_LOG_PROBS in shown,
        }
        return tuple(recipe for recipe in RECIPES if groups.get(recipe.group, False))
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        raise BadSetting("attacks must be known, and named once", value=unknown or names, remedy=", ".join(known))
    return tuple(known[name] for name in names)


def _most(side: Signals, held: bool) -> int:
    """How many references hold (or do not hold) the median record."""
    inside = np.asarray(side.inclusion).sum(axis=0)
    return int(np.median(inside if held else len(np.asarray(side.inclusion)) - inside))


_DEFAULT_LIRA = (("online", "residual"), ("offline", "per_example"))


def _lira(mode: Mode, variance: Variance) -> Recipe:
    fewest = 2 if variance == "per_example" else 1

    def make(sides: Sides) -> Attack:
        if variance == "per_example":
            return LiraAttack(mode, variance)
        return LiraAttack.fit(_both(sides), variance, mode)

    return Recipe(
        name=f"lira_{mode}_{variance}",
        # Offline, a spread that all records share changes no order: that is the reference attack again.
        group="classes" if (mode, variance) in _DEFAULT_LIRA else "asked",
        needs=CALIBRATED,
        make=make,
        references_in=fewest if mode == "online" else 0,
        references_out=fewest,
    )


def _rmia(mode: Mode) -> Recipe:
    return Recipe(
        name=f"rmia_{mode}",
        group="classes",
        needs=CALIBRATED,
        make=lambda sides: RmiaAttack.fit(_population(sides), mode),
        population=True,
        references_in=1 if mode == "online" else 0,
        references_out=1,
    )


def _both(sides: Sides) -> Signals:
    parts = [(np.asarray(side.references), np.asarray(side.inclusion)) for side in (sides.members, sides.nonmembers)]
    return Signals(
        references=np.concatenate([part[0] for part in parts], axis=1),
        inclusion=np.concatenate([part[1] for part in parts], axis=1),
    )


def _population(sides: Sides) -> Signals:
    if sides.population is None:
        raise BadSetting("no population", value="none", remedy="give non-members that are not scored")
    return sides.population


def _shadows(sides: Sides) -> tuple[Signals, Signals]:
    if sides.shadows is None:
        raise BadSetting("no shadow models", value="none", remedy="give references that are models themselves")
    return sides.shadows


def _fixed(group: Group, attack: Attack) -> Recipe:
    return Recipe(attack.name, group, attack.needs, lambda sides: attack)


_OUTPUT = frozenset({Access.LOG_PROBS, Access.LABELS})

RECIPES: tuple[Recipe, ...] = (
    _fixed("classes", LossAttack()),
    _fixed("classes", EntropyAttack()),
    _fixed("classes", EntropyAttack(modified=True)),
    Recipe("population", "classes", _OUTPUT, lambda s: PopulationAttack.fit(_population(s)), population=True),
    Recipe(
        "quantile",
        "classes",
        _OUTPUT | {Access.FEATURES},
        lambda s: QuantileAttack.fit(_population(s)),
        population=True,
    ),
    Recipe("shadow", "asked", _OUTPUT, lambda s: ShadowAttack.fit(*_shadows(s)), shadows=True),
    Recipe("reference", "classes", CALIBRATED, lambda s: ReferenceAttack(), references_out=1),
    *(_lira(mode, variance) for mode in ("online", "offline") for variance in ("residual", "per_example", "pooled")),
    *(_rmia(mode) for mode in ("online", "offline")),
    _fixed("labels", LabelOnlyAttack()),
    _fixed("tokens", TokenLossAttack()),
    _fixed("tokens", ZlibAttack()),
    _fixed("tokens", MinKAttack()),
    _fixed("tokens", MinKPlusPlusAttack()),
    _fixed("tokens", ReferenceTextAttack()),
    _fixed("asked", NeighbourhoodAttack()),
)
"""Every attack of an audit, in the order of the tables."""

NAMES = tuple(recipe.name for recipe in RECIPES)
