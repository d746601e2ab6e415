"""What cannot change a guarantee."""

from pydantic import Field

from securekd.settings.table import Settings


class Runtime(Settings):
    """What cannot change a guarantee nor (rounding of floating-point sums aside) a result."""

    device: str = Field("cpu", description="torch device of the models")
    workers: int | None = Field(None, ge=1, description="processes that train clients; unset: one for each core")
    micro_batch: int = Field(256, ge=1, description="examples whose gradients are in memory at once")
