"""`result.json`: the record of a run, and the contract with every tool that reads it (`securekd.result/1`).

Keys are added, never renamed. The record itself is not private: utility on private data, baselines, leakage and counts
are computed from it. What may be shared is the student.
"""

import json
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from securekd.errors import FolderError
from securekd.privacy.events import Neighbours, Unit, View

SCHEMA: Literal["securekd.result/1"] = "securekd.result/1"

Point = Literal[
    "client_model",
    "raw_release",
    "clipped_release",
    "client_release",
    "aggregate",
    "aggregate_minus_colluders",
    "student",
]
POINTS: tuple[Point, ...] = ("client_model", "client_release", "aggregate", "student")
ALL_POINTS: tuple[Point, ...] = get_args(Point)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Environment(_Part):
    """Where and with what a run was made."""

    securekd: str
    python: str
    platform: str
    versions: dict[str, str] = Field(description="versions of the packages that computed something")
    seed: int
    noise: Literal["os", "seeded"] = Field(description="seeded: repeatable, and nothing is protected")


class Utility(_Part):
    """How good a model is on the test set; precision, recall and F1 are macro averages over classes."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    examples: int = Field(description="rows of the test set")


class LocalUtility(_Part):
    """One client, alone: its own data, its own model, the whole privacy budget."""

    client: str
    model: str
    examples: int = Field(description="the client's private examples")
    utility: Utility


class Utilities(_Part):
    """The student against everything that it could be compared with."""

    student: Utility
    local_mean: Utility
    local_best: Utility
    centralized: Utility = Field(description="all data in one place, trained with the same DP")
    centralized_nonprivate: Utility = Field(description="all data in one place, no privacy")
    locals: tuple[LocalUtility, ...]
    simple: Utility | None = Field(
        None, description="a linear head on public features: all data in one place, trained with the same DP"
    )


class Round(_Part):
    """What one round did."""

    round: int
    student: Utility
    clients_mean_accuracy: float = Field(
        description="of the clients' models on the test set, after this round's training"
    )
    survivors: int
    dropped: tuple[str, ...]
    clipped_rows: float = Field(
        description="share of released rows (of weight updates, where these are released) that the clip shortened"
    )
    zeroed_rows: int = Field(description="released rows (or weight updates) that were not finite, sent as zeros")
    zeroed_gradients: int = Field(description="per-example gradients that were not finite, counted as zero")
    gradients: dict[Literal["closed_form", "hooks"], int] = Field(
        default_factory=dict,
        description="how many clients' clipped gradients were computed in which way; empty without DP-SGD",
    )


class GuaranteeRecord(_Part):
    """An ε, with its view, unit, neighbouring relation and δ; or none, and why."""

    view: View
    unit: Unit
    neighbours: Neighbours | None
    epsilon: float | None = Field(description="null means none is given")
    delta: float
    events: int = Field(description="ledger entries behind it")
    why: str | None = Field(description="why none is given")


class PrivacyRecord(_Part):
    """What is proven."""

    guarantees: tuple[GuaranteeRecord, ...]
    dp_sgd_noise_multiplier: float | None
    release_noise: float = Field(description="standard deviation of each client's release noise, in its own unit")
    release_sensitivity: float = Field(description="L2 bound of one client's release, in the same unit")
    release_mechanism: str = Field("gaussian", description="law of the release noise")
    server_sees: str = Field(description="in one sentence")
    ledger_sha256: str | None = Field(None, description="SHA-256 of ledger.json, in hexadecimal")


class Rate(_Part):
    """A true-positive rate at a false-positive rate, with its exact interval."""

    value: float
    low: float
    high: float
    resolved: bool = Field(description="false where non-members are too few; pages withhold the value then")


class Leakage(_Part):
    """One attack at one observation point."""

    point: Point
    attack: str
    auc: float
    auc_ci: tuple[float, float]
    tpr_at_fpr: dict[Literal["0.1", "0.01", "0.001"], Rate]
    epsilon_lower: float = Field(description="lower bound on ε; all of a record hold together with `confidence`")
    confidence: float
    members: int
    nonmembers: int
    epsilon: float | None = Field(description="the example-level ε that this must stay below; null: none is given")
    comparable: bool = Field(
        description="whether non-members are drawn as members are; if not, figures mix leakage with differences "
        "between the data, and no claim is made"
    )
    assumptions: tuple[str, ...] = Field(description="what must hold for epsilon_lower to hold")
    seen_by: str = Field(description="who stands at this point in this run")
    round: int | None = Field(None, description="after which round; null: the last")


class CanaryRecord(_Part):
    """One canary: whose record it is, and whether its coin put it into training. This is private data of the client."""

    client: str
    id: int = Field(description="the record's number in its source")
    kind: Literal["mislabelled", "natural"]
    label: int = Field(description="index of the class that it is trained under")
    included: bool


class CanaryBound(_Part):
    """What one attack shows of one kind of canaries at one point: all in one run, a fair coin for each."""

    point: Point
    round: int = Field(description="after which round")
    kind: Literal["mislabelled", "natural"]
    attack: str
    auc: float
    auc_ci: tuple[float, float]
    canaries: int
    guesses: int = Field(description="canaries that the attack does not abstain from: half of them, fixed beforehand")
    correct: int
    epsilon_lower: float = Field(description="lower bound on ε; all of a record hold together with `confidence`")
    epsilon_largest: float = Field(description="what the same number of guesses would show, were all of them right")
    confidence: float
    epsilon: float | None = Field(description="the example-level ε after this round; null: none is given")
    delta: float
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    seen_by: str


class Canaries(_Part):
    """The records that coins kept in or out of training, and what they show."""

    planted: tuple[CanaryRecord, ...]
    bounds: tuple[CanaryBound, ...]


class Replay(_Part):
    """The release path played again, with the longest vector of a client and without it, under the optimal test."""

    point: Literal["client_release", "aggregate", "aggregate_minus_colluders"]
    round: int = Field(description="after so many rounds, all of which the adversary saw")
    view: View | None = Field(description="whose ε stands beside it; null: nobody but the client is at this point")
    unit: Unit
    neighbours: Neighbours
    clients: int = Field(description="in a sum: the fewest that is ever opened")
    colluders: int = Field(description="of these, whose noise is known at `aggregate_minus_colluders`")
    trials: int = Field(description="in each of the two worlds")
    mu: float = Field(description="promised: distance of the worlds over the unknown noise's standard deviation")
    auc: float
    auc_ci: tuple[float, float]
    auc_promised: float = Field(description="of the optimal test, were the noise normal and as promised")
    tpr_at_fpr: dict[Literal["0.1", "0.01", "0.001"], Rate]
    tpr_promised: dict[Literal["0.1", "0.01", "0.001"], float]
    epsilon_lower: float = Field(description="with no assumption on the noise's law; all of a record hold together")
    epsilon_lower_gaussian: float | None = Field(
        description="if the trade-off is Gaussian; null where client sampling makes it another"
    )
    epsilon_largest: float = Field(description="the most that the latter could show with so many trials")
    confidence: float
    epsilon: float | None = Field(description="the ledger's, after this round; null: none is given")
    delta: float
    why: str | None = Field(description="why none is given")
    assumptions: tuple[str, ...]
    assumptions_gaussian: tuple[str, ...]
    seen_by: str


class MeanMax(_Part):
    """Bytes for a client, over the whole run."""

    mean: float
    max: int


class Communication(_Part):
    """Every byte of the protocol, both ways."""

    upload_bytes_per_client: MeanMax
    download_bytes_per_client: MeanMax
    by_phase: dict[str, dict[Literal["upload", "download"], int]] = Field(
        description="over all clients and rounds; `decryptor`: what it sent to the server, and got"
    )
    rounds: int
    fedavg_bytes_per_client: MeanMax = Field(
        description="upload, had the same clients sent their weights in each round, masked, 4 bytes a weight"
    )


class Compute(_Part):
    """Time and memory."""

    wall_s: float = Field(description="of the call that finished the run")
    by_phase: dict[str, float] = Field(description="seconds, added up over worker processes and over resumed calls")
    peak_rss_bytes: int = Field(description="largest resident set of a process")


class Holdings(_Part):
    """Who holds what: private examples by client and class. This is private data of the clients."""

    classes: tuple[str, ...]
    clients: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...] = Field(description="clients × classes")
    transfer: int
    test: int
    notes: tuple[str, ...] = Field((), description="what was passed over when the data were read, a line each")


class Result(_Part):
    """The whole record."""

    schema_: Literal["securekd.result/1"] = Field(SCHEMA, alias="schema")
    experiment: dict[str, Any] = Field(description="the configuration as resolved")
    environment: Environment
    data: Holdings
    rounds: tuple[Round, ...]
    utility: Utilities
    privacy: PrivacyRecord
    leakage: tuple[Leakage, ...]
    communication: Communication
    compute: Compute
    canaries: Canaries | None = Field(None, description="null where none were planted (audit.canaries)")
    replays: tuple[Replay, ...] = Field((), description="empty where nothing was replayed (audit.replays)")

    def to_json(self) -> bytes:
        """The file's bytes; NaN and infinity cannot occur in it."""
        return (json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False) + "\n").encode()


def read_result(folder: Path) -> Result:
    """The record of a finished run.

    Raises:
        FolderError: if the folder has none, or one of another version.
    """
    path = folder / "result.json"
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FolderError(
            f"no finished run in {folder} ({error.strerror}: {path.name}); give a run's folder, or resume it"
        ) from error
    except ValidationError as error:
        raise FolderError(f"{path} is not a {SCHEMA} record: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first of the things that are wrong with a record: where, and what."""
    first = error.errors()[0]
    return f"{'.'.join(str(p) for p in first['loc'])}: {first['msg']}"


def schema_text() -> str:
    """The JSON schema of a record, as it is published."""
    return json.dumps(Result.model_json_schema(by_alias=True), indent=1, ensure_ascii=False) + "\n"
