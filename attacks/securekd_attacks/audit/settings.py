"""The settings of an audit of a deployment: everything that can change a figure."""

from dataclasses import dataclass
from typing import Literal

from securekd_attacks.errors import BadInclusion, BadSetting
from securekd_attacks.inputs import check_confidence, check_delta, check_told_fpr

BoundName = Literal["clopper_pearson", "bayesian", "gdp", "one_run"]
BOUNDS: tuple[BoundName, ...] = ("clopper_pearson", "bayesian", "gdp", "one_run")


@dataclass(frozen=True)
class AuditSettings:
    """Everything that can change a figure.

    Attributes:
        attacks: names out of `catalogue.NAMES`; none for all that fit what the target shows.
        fprs: at which the TPR is told, each in [0, 1); at 0 it is told and never resolved.
        delta: of every bound on ε.
        confidence: of every interval, two-sided, and of every bound, one-sided.
        bounds: which; `clopper_pearson` is always there. `one_run` needs `inclusion` by coins.
        inclusion: how it was decided who is a member: `split`, or `bernoulli` for a fair coin each.
        canaries: whether members are planted texts and non-members random texts of the same form: exposure is told.
        copies: altered copies of each record that a target of labels alone, or the neighbourhood attack, is asked
            about.
        strength: of the alterations, see `targets.features.altered`.
        batch: records that are asked about at once.
        seed: of the order of questions, the alterations and the halves that thresholds are chosen on.

    Raises:
        BadSetting: something is out of range.
        BadInclusion: a one-run bound without coins.
    """

    attacks: tuple[str, ...] = ()
    fprs: tuple[float, ...] = (0.1, 0.01, 0.001)
    delta: float = 1e-5
    confidence: float = 0.95
    bounds: tuple[BoundName, ...] = ("clopper_pearson",)
    inclusion: Literal["split", "bernoulli"] = "split"
    canaries: bool = False
    copies: int = 10
    strength: float = 0.1
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for fpr in self.fprs:
            if check_told_fpr(fpr) == 1.0:
                raise BadSetting("fpr out of range", value=fpr, remedy="choose one below 1, where every rule finds all")
        check_delta(self.delta)
        check_confidence(self.confidence)
        unknown = [name for name in self.bounds if name not in BOUNDS]
        if unknown:
            raise BadSetting("unknown bound", value=unknown[0], remedy=f"choose of {', '.join(BOUNDS)}")
        if "one_run" in self.bounds and self.inclusion != "bernoulli":
            raise BadInclusion(
                "a one-run bound needs each record included by a fair coin of its own",
                value=self.inclusion,
                remedy="plant canaries by coins and say so, or drop one_run",
            )
        if not 0.0 < self.strength < 1.0 or self.copies < 1 or self.batch < 1 or self.seed < 0:
            raise BadSetting(
                "strength, copies, batch or seed out of range",
                value=(self.strength, self.copies, self.batch, self.seed),
                remedy="choose a strength in (0, 1), at least one copy and one record a batch, a seed from 0",
            )
