"""Weight updates."""

from pydantic import Field

from securekd.settings.table import Settings


class FedAvgSettings(Settings):
    """Weight updates instead of scores (strategy = 'fedavg')."""

    clip: float = Field(10.0, gt=0, description="L2 norm to which a client's whole update is clipped")
    noise: float = Field(
        0.001, ge=0, description="standard deviation of each client's noise on each weight of its update"
    )
