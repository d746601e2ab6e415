"""Who may fall silent, and who may collude."""

from pydantic import Field

from securekd.settings.table import Settings


class Cohort(Settings):
    """Who may fall silent, and who may collude, in the aggregation of one round."""

    colluders: int = Field(
        1, ge=0, description="clients that may collude with the server without learning another's release"
    )
    threshold: int | None = Field(
        None, ge=2, description="fewest survivors whose sum is opened; unset: the smallest safe one"
    )
    sampling_rate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="probability with which a client sends its scores in a round, and not zeros; its coin is secret",
    )
    dropouts: int = Field(0, ge=0, description="clients made to fall silent in each round (to see what recovery does)")
