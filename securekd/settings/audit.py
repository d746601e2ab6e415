"""How leakage is measured."""

from typing import Literal

from pydantic import Field, model_validator

from securekd.settings.table import PLUGIN, Settings

# With fewer, a coin for each might leave one side of a comparison with a single canary (beyond 32: probability 2e-8).
FEWEST_CANARIES = 32


FEWEST_REPLAYS = 100


class Audit(Settings):
    """How leakage is measured."""

    attacks: tuple[str, ...] = Field(("loss", "entropy"), min_length=1, description="loss, entropy, or " + PLUGIN)
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval and lower bound")
    points: Literal["final", "all"] = Field(
        "final",
        description="final: client model, release, aggregate and student, after the last round; all: these, the raw "
        "and the clipped release, and the aggregate without what colluders sent, after every round",
    )
    canaries: int = Field(
        0,
        ge=0,
        description="records of each kind that are planted in clients' training by a fair coin each; 0, or 32 and more",
    )
    canary_kinds: tuple[Literal["mislabelled", "natural"], ...] = Field(
        ("mislabelled", "natural"),
        min_length=1,
        description="mislabelled: a client's record under a wrong label; natural: one as it is",
    )
    replays: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="times that the release path is played with the longest vector of a client, and as often without "
        "it; 0, or 100 and more",
    )

    @model_validator(mode="after")
    def _enough(self) -> "Audit":
        if 0 < self.canaries < FEWEST_CANARIES:
            raise ValueError(f"canaries = {self.canaries} are too few: take 0, or {FEWEST_CANARIES} or more")
        if 0 < self.replays < FEWEST_REPLAYS:
            raise ValueError(f"replays = {self.replays} are too few: take 0, or {FEWEST_REPLAYS} or more")
        if len(set(self.canary_kinds)) < len(self.canary_kinds):
            raise ValueError(f"canary_kinds = {list(self.canary_kinds)}: name each kind once")
        return self
