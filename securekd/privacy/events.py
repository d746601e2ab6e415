"""What was done to whose data, as frozen values; only the accountant turns them into ε."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

View = Literal["server", "clients", "public"]
Unit = Literal["example", "client"]
Neighbours = Literal["add_remove", "replace_one", "zero_out"]

VIEWS: tuple[View, ...] = ("server", "clients", "public")
UNITS: tuple[Unit, ...] = ("example", "client")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DpSgdEvent(_Frozen):
    """Steps of the Poisson-subsampled Gaussian mechanism (Abadi et al. 2016).

    Attributes:
        sampling_rate: probability of each example in each step.
        noise_multiplier: noise's standard deviation over the clipping norm.
        steps: number of steps.
    """

    kind: Literal["dp_sgd"] = "dp_sgd"
    sampling_rate: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(gt=0)
    steps: int = Field(ge=1)


class GaussianEvent(_Frozen):
    """One Gaussian mechanism.

    Attributes:
        noise_multiplier: the noise's standard deviation, as far as this view does not know it, over the L2 sensitivity.
    """

    kind: Literal["gaussian"] = "gaussian"
    noise_multiplier: float = Field(gt=0)


class UnprotectedEvent(_Frozen):
    """Something that no guarantee covers.

    Attributes:
        why: the reason, in words that a report can print.
    """

    kind: Literal["unprotected"] = "unprotected"
    why: str


PrivacyEvent = Annotated[DpSgdEvent | GaussianEvent | UnprotectedEvent, Field(discriminator="kind")]


class Entry(_Frozen):
    """One line of the ledger: an event, and for whom, against whom and under which relation it counts.

    Attributes:
        client: whose data was touched.
        round: number of the round, from 1.
        phase: train or release; a client has one of each in a round.
        unit: what is protected.
        neighbours: the neighbouring relation.
        views: the adversaries that this event is an event for.
        event: what was done.
    """

    client: str
    round: int = Field(ge=1)
    phase: Literal["train", "release"]
    unit: Unit
    neighbours: Neighbours
    views: tuple[View, ...] = Field(min_length=1)
    event: PrivacyEvent
