"""What everybody in a federation knows, and has agreed on, before anything private is touched.

One document with one encoding, and its digest: whoever has the same digest has agreed on the same. It holds every
setting that can change a result or a guarantee, the public encoding and the classes, the digest of the transfer set,
what is asked in a round, within which bounds and with how much noise, DP-SGD's plan for the sizes that clients declare,
and who takes part. It says nothing of how a client comes by its data, nor of the machine that it trains on.
"""

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from securekd.data.examples import Examples, transfer_digest
from securekd.errors import AgreementError
from securekd.learning.dp.dp_sgd import DpSgdPlan
from securekd.models.shape import InputShape
from securekd.privacy.events import VIEWS, DpSgdEvent, Entry, Unit, UnprotectedEvent
from securekd.privacy.mechanisms import Bounds, Mechanism, mechanism_named
from securekd.privacy.release import Exposure, ReleasePhase, ReleasePlan
from securekd.randomness import Randomness
from securekd.settings.config import quoted
from securekd.settings.experiment import Experiment
from securekd.settings.models import ClientModel, Model

SCHEMA: Literal["securekd.agreement/1"] = "securekd.agreement/1"

_AGREED: dict[str, Any] = dict.fromkeys(
    ("strategy", "aggregation", "rounds", "seed", "training", "privacy", "release", "pate", "fedavg", "student"), True
) | {
    "data": {"label", "inputs", "columns", "image_size", "tokenizer", "vocabulary", "max_tokens", "transfer_labels"},
    "cohort": {"colluders", "threshold", "sampling_rate"},
}


def _written(settings: Experiment) -> dict[str, Any]:
    return settings.model_dump(mode="json", include=_AGREED)


def _alone(value: object, handler: ValidatorFunctionWrapHandler) -> Experiment:
    """The settings that are agreed on; the others, which are everybody's own, as they are by default."""
    settings: Experiment = handler(value)
    _refuse_unwritable(settings.student.model)
    return Experiment.model_validate(_written(settings))


def _refuse_unwritable(model: Model) -> Model:
    """Refuse an option that JSON has no number for: as null it would be another one, with the same digest."""
    try:
        json.dumps(model.options, allow_nan=False, default=str)
    except ValueError as error:
        raise AgreementError(
            f"an option of model {model.kind!r} is not a finite number: {quoted(model.options)}; no agreement can "
            "state it, so have the model take a word or another number for it"
        ) from error
    return model


Settled = Annotated[Experiment, WrapValidator(_alone), PlainSerializer(_written)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Member(_Part):
    """One client, as everybody knows it.

    Attributes:
        name: whatever its institution is called.
        model: what it trains.
        examples: that it declares; public to the example-level guarantee.
    """

    name: str
    model: Annotated[ClientModel, AfterValidator(_refuse_unwritable)]
    examples: int = Field(ge=1)


class Asked(_Part):
    """What each client releases in one exchange.

    Attributes:
        phase: of the round.
        exchanges: how often in a round.
        bounds: of its vector.
        sigma: standard deviation of its noise, in the vector's unit.
        step: of the encoding.
        exposure: whose noise is unknown to whom.
        unit: whose vector is protected.
    """

    phase: ReleasePhase
    exchanges: int = Field(ge=1)
    bounds: Bounds
    sigma: float = Field(ge=0)
    step: float = Field(gt=0)
    exposure: Exposure
    unit: Unit

    @field_validator("exposure")
    @classmethod
    def _every_view(cls, exposure: Exposure) -> Exposure:
        """A view that is left out would be charged nothing; their order is that of the ledger's entries."""
        if set(exposure.unknown_shares) != set(VIEWS):
            raise ValueError(f"unknown shares are stated for each of {', '.join(VIEWS)}")
        return replace(exposure, unknown_shares={view: exposure.unknown_shares[view] for view in VIEWS})


class Agreement(_Part):
    """The document.

    Attributes:
        securekd: release of this software: another one may compute other results.
        settings: as an experiment, of which the tables `audit`, `centralized`, `clients` and `runtime`, sources of data
            and how they are dealt are no part.
        shape: of inputs and classes, with the transfer set's public statistics.
        classes: their names; a label is an index into them.
        transfer_rows: how many the transfer set has.
        transfer_sha256: digest of all of them and of the class map, in hexadecimal.
        labels_sha256: digest of their labels, where these are public; None otherwise.
        members: the clients, in order.
        threshold: fewest survivors whose sum is opened.
        dp: DP-SGD of one round; None without.
        asked: what is asked in a round.
        trainings: of each client in a round.
    """

    schema_: Literal["securekd.agreement/1"] = Field(SCHEMA, alias="schema")
    securekd: str = Field(default_factory=lambda: version("securekd"))
    settings: Settled
    shape: InputShape
    classes: tuple[str, ...]
    transfer_rows: int = Field(ge=1)
    transfer_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    labels_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    members: tuple[Member, ...] = Field(min_length=1)
    threshold: int = Field(ge=1)
    dp: DpSgdPlan | None
    asked: tuple[Asked, ...]
    trainings: int = Field(1, ge=1)

    @field_validator("members")
    @classmethod
    def _told_apart(cls, members: tuple[Member, ...]) -> tuple[Member, ...]:
        if len({member.name for member in members}) < len(members):
            raise ValueError("two members have one name")
        return members

    @cached_property
    def encoded(self) -> bytes:
        """The one encoding: JSON with sorted keys and nothing between them, in UTF-8."""
        document = self.model_dump(mode="json", by_alias=True)
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encoded` is.

        Raises:
            AgreementError: for anything else.
        """
        try:
            found = cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = quoted(".".join(map(str, first["loc"]))) if first["loc"] else "document"
            raise AgreementError(
                f"this is no {SCHEMA}: {where}: {first['msg']}; have the file sent again, by somebody with the same "
                f"release of securekd ({version('securekd')})"
            ) from error
        if found.encoded != data:
            raise AgreementError(
                "this agreement is not written as it would be here, so nobody would have its digest; have the file "
                "sent again as it is"
            )
        if found.securekd != version("securekd"):
            raise AgreementError(
                f"this agreement is for securekd {found.securekd}, and here is {version('securekd')}; install the same"
            )
        return found

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the encoding."""
        return hashlib.sha256(b"securekd/agreement/1" + self.encoded).digest()

    def context(self, asked: bytes) -> bytes:
        """What the clients of a session have to agree on: all of this, and the digest of what they are asked."""
        return hashlib.sha256(b"securekd/context/1" + self.digest + asked).digest()

    def member(self, name: str) -> Member:
        """The member of a name.

        Raises:
            AgreementError: if there is none.
        """
        found = next((m for m in self.members if m.name == name), None)
        if found is None:
            raise AgreementError(f"{name!r} is no member of this agreement: {', '.join(m.name for m in self.members)}")
        return found

    def share(self, member: Member) -> float:
        """A member's examples over those of a member on average."""
        return member.examples * len(self.members) / sum(one.examples for one in self.members)

    @property
    def randomness(self) -> Randomness:
        """Where public and, in a seeded federation, secret randomness comes from."""
        return Randomness(self.settings.privacy.noise, self.settings.seed)

    @property
    def delta(self) -> dict[Unit, float]:
        """δ by unit."""
        return {"example": self.settings.privacy.delta, "client": self.settings.privacy.client_delta}

    def mechanism(self, asked: Asked) -> Mechanism:
        """What adds noise to an answer."""
        return mechanism_named(self.settings.release.mechanism, asked.bounds, sigma=asked.sigma, step=asked.step)

    def release(self, asked: Asked) -> ReleasePlan:
        """What each client does to an answer, and what the ledger is told of it."""
        return ReleasePlan(self.mechanism(asked), asked.exposure, asked.unit)

    def rows(self, round_number: int, count: int) -> np.ndarray:
        """So many transfer rows, ascending: all, none, or a public draw of the round."""
        chosen = self.randomness.public("rows", round_number).permutation(self.transfer_rows)[:count]
        return np.sort(chosen)

    def rows_digest(self, transfer: Examples, rows: np.ndarray) -> bytes:
        """SHA-256 of some transfer rows and the class map."""
        return transfer_digest(transfer.take(rows), self.classes)

    def training_entry(self, client: str, round_number: int, exchange: int = 1) -> Entry:
        """The ledger's entry for one client's training in one round."""
        event: DpSgdEvent | UnprotectedEvent
        if self.dp is None:
            event = UnprotectedEvent(why="the clients train without DP-SGD (privacy.dp_sgd = false)")
        else:
            event = DpSgdEvent(
                sampling_rate=self.dp.sampling_rate,
                noise_multiplier=self.dp.noise_multiplier,
                steps=self.dp.steps,
            )
        return Entry(
            client=client,
            round=round_number,
            phase="train",
            unit="example",
            neighbours=self.settings.privacy.neighbours,
            views=VIEWS,
            event=event,
            exchange=exchange,
        )

    def said_entry(self, client: str, round_number: int, exchange: int = 1) -> Entry:
        """The ledger's entry for what one client says in the clear."""
        return Entry(
            client=client,
            round=round_number,
            phase="release",
            unit="client",
            neighbours=self.settings.privacy.client_neighbours,
            views=VIEWS,
            event=UnprotectedEvent(why="clients say something in the clear"),
            exchange=exchange,
        )


def refuse_others(own: Agreement, theirs: bytes, whose: str) -> None:
    """Refuse to go on with a party of another agreement.

    Args:
        own: what this party has agreed on.
        theirs: digest of what the other one has.
        whose: in a word, for the error.

    Raises:
        AgreementError: they differ.
    """
    if theirs != own.digest:
        raise AgreementError(
            f"the agreement of {whose} has the digest {theirs.hex()[:16]}…, and this party's {own.digest.hex()[:16]}…; "
            "compare the two documents, and let everybody take the same"
        )


def labels_digest(transfer: Examples) -> str | None:
    """SHA-256 of a transfer set's public labels, in hexadecimal; None where they are not public."""
    if transfer.labels is None:
        return None
    return hashlib.sha256(b"securekd/labels/1" + transfer.labels.astype("<i8").tobytes()).hexdigest()
