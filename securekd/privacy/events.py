"""What was done to whose data, as frozen values; only the accountant turns them into ε."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

View = Literal["server", "clients", "public"]
Unit = Literal["example", "client"]
Neighbours = Literal["add_remove", "replace_one", "zero_out"]
Phase = Literal["train", "threshold", "release"]

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
    """One Gaussian mechanism, in floating point.

    Attributes:
        noise_multiplier: the noise's standard deviation, as far as this view does not know it, over the L2 sensitivity.
        sampling_rate: probability with which the client's vector is in it, which this view cannot see.
    """

    kind: Literal["gaussian"] = "gaussian"
    noise_multiplier: float = Field(gt=0)
    sampling_rate: float = Field(1.0, gt=0, le=1)


class IntegerNoiseEvent(_Frozen):
    """Integer vectors with independent integer noise from several clients, seen as one sum.

    All lengths are in steps of the encoding. Sensitivities include the neighbouring relation's factor.

    Attributes:
        sigma: parameter of one client's noise; its standard deviation, for Skellam exactly.
        shares: clients whose noise is in the sum and not known to this view.
        l2: L2 sensitivity after rounding.
        l1: L1 sensitivity after rounding.
        dimension: entries of the vector.
        total_variation: bound on the distance of one drawn value from the law.
        sampling_rate: probability with which the client's vector is in it, which this view cannot see.
    """

    sigma: float = Field(gt=0)
    shares: int = Field(ge=1, le=1_000_000)
    l2: float = Field(gt=0)
    l1: float = Field(gt=0)
    dimension: int = Field(ge=1)
    total_variation: float = Field(ge=0, lt=1)
    sampling_rate: float = Field(1.0, gt=0, le=1)


class SkellamEvent(IntegerNoiseEvent):
    """Skellam noise, which is closed under sums (Agarwal, Kairouz and Liu 2021)."""

    kind: Literal["skellam"] = "skellam"


class DiscreteGaussianEvent(IntegerNoiseEvent):
    """Discrete Gaussian noise; a sum of it is nearly one again (Kairouz, Liu and Steinke 2021)."""

    kind: Literal["discrete_gaussian"] = "discrete_gaussian"


class UnprotectedEvent(_Frozen):
    """Something that no guarantee covers.

    Attributes:
        why: the reason, in words that a report can print.
    """

    kind: Literal["unprotected"] = "unprotected"
    why: str


ReleaseEvent = GaussianEvent | SkellamEvent | DiscreteGaussianEvent
PrivacyEvent = Annotated[
    DpSgdEvent | GaussianEvent | SkellamEvent | DiscreteGaussianEvent | UnprotectedEvent, Field(discriminator="kind")
]


class Entry(_Frozen):
    """One line of the ledger: an event, and for whom, against whom and under which relation it counts.

    Attributes:
        client: whose data was touched.
        round: number of the round, from 1.
        phase: train, threshold (of confident GNMax) or release.
        unit: what is protected.
        neighbours: the neighbouring relation.
        views: the adversaries that this event is an event for.
        event: what was done.
        transfer: SHA-256 of the transfer rows that were answered, or of the global model that was updated, in
            hexadecimal; None for training.
        exchange: number among those of its phase in its round, from 1; left out of files where it is 1.
    """

    client: str
    round: int = Field(ge=1)
    phase: Phase
    unit: Unit
    neighbours: Neighbours
    views: tuple[View, ...] = Field(min_length=1)
    event: PrivacyEvent
    transfer: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    exchange: int = Field(1, ge=1)

    @model_serializer(mode="wrap")
    def _without_a_first_exchange(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.exchange == 1:
            del written["exchange"]
        return written
