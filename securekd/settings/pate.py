"""Noisy votes."""

from pydantic import Field

from securekd.settings.table import Settings


class Pate(Settings):
    """GNMax and confident GNMax (Papernot et al. 2018), over secure sums (strategy = 'pate')."""

    answers: int | None = Field(None, ge=1, description="most transfer rows that are answered; unset: all of them")
    threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="confident GNMax: share of the votes that a noisy winner needs; unset: GNMax",
    )
    threshold_budget: float = Field(
        0.3, gt=0, lt=1, description="share of the privacy loss (of 1/σ²) that checking the threshold gets"
    )
