"""What a client lets go of."""

from typing import Literal

from pydantic import Field

from securekd.settings.table import PLUGIN, Settings


class Release(Settings):
    """What a client lets go of: its scores on the transfer set, clipped and noised."""

    scores: Literal["probabilities", "logits", "votes", "top_k"] = Field(
        "logits", description="soft labels, centred logits, one-hot votes, or the top_k largest soft labels"
    )
    top_k: int = Field(3, ge=1, description="soft labels kept in a row; the others become 0 (scores = 'top_k')")
    temperature: float = Field(1.0, ge=1e-20, le=1e20, description="divides the logits before anything else")
    clip: float = Field(
        2.0, ge=1e-20, le=1e20, description="norm to which a row is clipped (clip_unit = 'matrix': on average)"
    )
    clip_norm: Literal["l2", "l1", "linf"] = Field("l2", description="the norm that is clipped")
    clip_unit: Literal["row", "matrix"] = Field("row", description="what is clipped: each row, or the whole matrix")
    nonfinite: Literal["zero", "refuse"] = Field(
        "zero", description="rows with a NaN or infinite logit: sent as zeros and counted, or an error"
    )
    mechanism: str = Field(
        "skellam",
        description="law of the noise: skellam or discrete_gaussian, in the integers; gaussian, in floating point, for "
        "comparison; or " + PLUGIN,
    )
    noise: float = Field(0.1, ge=0, description="standard deviation of each client's noise, in units of the scores")
    step: float | None = Field(
        None, gt=0, description="encoding step, to whose multiples scores are rounded (not votes); unset: a fine one"
    )
    rows: int | None = Field(
        None, ge=1, description="transfer rows answered in a round, drawn anew in each; unset: all of them"
    )
    weight_cap: int = Field(
        1000, ge=1, description="examples at which a client's weight is capped (student.consensus = 'weighted')"
    )
