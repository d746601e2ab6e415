"""Scores of both sides under one attack, higher = more likely a member, and where they come from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from securekd_attacks.errors import BadSetting, ShapeMismatch
from securekd_attacks.inputs import FloatArray, finite_scores


@dataclass(frozen=True)
class Provenance:
    """Where scores come from: what must be known to repeat them, and to know which bounds they can carry.

    Attributes:
        inclusion: how it was decided which records the target was trained with: `bernoulli` (a coin for each, as
            one-run bounds need it) or `split` (a fixed number drawn at once, or whatever was found).
        probability: of the coin; None for a split.
        seed: of the inclusion; None where it is unknown.
        split: which records were scored, such as `test` or `held-out half`.
        hashes: pairs of a name (`members`, `model`, `signals`, ...) and a hexadecimal SHA-256.
    """

    inclusion: Literal["bernoulli", "split"]
    probability: float | None = None
    seed: int | None = None
    split: str = ""
    hashes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.inclusion not in ("bernoulli", "split"):
            raise BadSetting("unknown inclusion", value=self.inclusion, remedy="say bernoulli or split")
        if self.inclusion == "bernoulli" and not (self.probability is not None and 0.0 < self.probability < 1.0):
            raise BadSetting("a coin needs a probability", value=self.probability, remedy="give it, in (0, 1)")


@dataclass(frozen=True, eq=False)
class MembershipScores:
    """The scores of both sides under one attack: what metrics and bounds take.

    Attributes:
        attack: the attack's name.
        members: shape (m,), finite, in the order of the records.
        nonmembers: shape (n,), finite, in the order of the records.
        provenance: where they come from; None where nobody said, and then no bound is given that depends on it.
    """

    attack: str
    members: FloatArray
    nonmembers: FloatArray
    provenance: Provenance | None = None


def scores_by_membership(
    attack: str, scores: ArrayLike, membership: ArrayLike, provenance: Provenance | None = None
) -> MembershipScores:
    """Part scores of all records, as `lira.scores` gives them, into the two sides.

    Args:
        attack: the attack's name.
        scores: shape (n,), finite; higher = more likely a member.
        membership: shape (n,), booleans.
        provenance: where they come from.

    Raises:
        ShapeMismatch: the membership is not one boolean per score.
        TooFewRecords, NotFiniteScores: as for `membership_scores`.
    """
    values, mask = np.asarray(scores), np.asarray(membership)
    if mask.dtype != np.bool_ or mask.shape != values.shape:
        raise ShapeMismatch(
            "membership must be one boolean per score",
            value=(mask.shape, str(mask.dtype), values.shape),
            remedy="pass True for members",
        )
    return MembershipScores(
        attack=attack,
        members=finite_scores(values[mask], "members"),
        nonmembers=finite_scores(values[~mask], "nonmembers"),
        provenance=provenance,
    )
