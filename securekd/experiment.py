"""`Experiment`: everything that can change a result or a guarantee; `Runtime`: what never can.

Both are frozen pydantic models that refuse unknown keys. The defaults run the embedded experiment. Each setting's
meaning stands in its `description`, from which `securekd config` prints its table.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from securekd.plugins import PLUGIN as PLUGIN_NAME
from securekd.plugins import is_plugin

PLUGIN = "a `module:attribute` of your own"

# With fewer, a coin for each might leave one side of a comparison with a single canary (beyond 32: probability 2e-8).
FEWEST_CANARIES = 32
FEWEST_REPLAYS = 100


class Settings(BaseModel):
    """A table of settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _kept_exactly(cls, value: object, info: ValidationInfo) -> object:
        """An integer is what was written, or refused: TOML's have 64 bits, and not every one is a float."""
        if isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise ValueError("an integer of more than 64 bits; write a smaller one")
            number = cls.model_fields[str(info.field_name)].annotation in (float, float | None)
            if number and float(value) != value:
                raise ValueError(f"no floating-point number is this integer; write {float(value)!r} if that will do")
        return value


class Column(Settings):
    """One declared column of a table: its public range, or its public list of categories."""

    low: float | int | None = Field(
        None, description="smallest value that the public schema allows; lower ones are clipped"
    )
    high: float | int | None = Field(
        None, description="largest value that the public schema allows; higher ones are clipped"
    )
    categories: tuple[str, ...] = Field(
        (), description="the public list of categories; another value is encoded as none"
    )

    @field_validator("low", "high")
    @classmethod
    def _exact(cls, value: float | int | None) -> float | int | None:
        """A float, but where only an integer says what was written: time stamps in nanoseconds, say."""
        return value if value is None or float(value) != value else float(value)

    @model_validator(mode="after")
    def _one_kind(self) -> "Column":
        numeric = self.low is not None and self.high is not None and self.low < self.high
        if bool(self.categories) == numeric:
            raise ValueError("declare either low < high (a number) or categories (a category)")
        return self


class Partition(Settings):
    """How private rows are dealt to clients."""

    kind: Literal["iid", "dirichlet", "column", "quantity"] = Field(
        "iid", description="iid, dirichlet label skew, by a column (natural institutions), or quantity skew"
    )
    alpha: float = Field(
        0.5, gt=0, description="concentration of the Dirichlet law (dirichlet, quantity): smaller is more uneven"
    )
    column: str | None = Field(None, description="the column whose values name the institutions (column)")
    minimum: int = Field(
        2, ge=1, description="fewest examples that a client may hold; a draw that gives fewer is drawn again"
    )

    @model_validator(mode="after")
    def _column_named(self) -> "Partition":
        if (self.kind == "column") != (self.column is not None):
            raise ValueError("column goes with kind = 'column', and only with it")
        return self


class Data(Settings):
    """Where examples come from, and how they are split into private, transfer and test."""

    source: str = Field(
        "digits",
        description="digits, a path (.csv, .jsonl, .parquet, a folder of images by class), hub:NAME[:SPLIT], or "
        + PLUGIN,
    )
    transfer_source: str | None = Field(
        None, description="another source for the public transfer set; unset: cut from `source`"
    )
    test_source: str | None = Field(None, description="another source for the test set; unset: cut from `source`")
    transfer: int = Field(400, ge=1, description="rows in the public transfer set")
    test: int | None = Field(
        None, ge=1, description="rows in the test set; unset: all of test_source, or a fifth of `source`"
    )
    private: int | None = Field(None, ge=1, description="private rows over all clients; unset: all that is left")
    label: str = Field("label", description="the column with the class")
    inputs: tuple[str, ...] = Field(
        (), description="the columns that models see; empty: all but label and partition.column"
    )
    columns: dict[str, Column] = Field(
        default_factory=dict,
        description="public schema of a table; columns not named here are fitted on the transfer set",
    )
    image_size: int | None = Field(
        None, ge=4, le=512, description="side in pixels to which images are scaled; unset: as they are"
    )
    tokenizer: str = Field(
        "transfer",
        description="transfer (byte-level word pieces learnt on it), bytes, or a local folder that pads with 0",
    )
    vocabulary: int = Field(2000, ge=300, le=100_000, description="size of the vocabulary learnt on the transfer set")
    max_tokens: int = Field(64, ge=4, le=4096, description="tokens kept of a text")
    transfer_labels: bool = Field(
        False, description="the transfer set's labels are public too: clients are pre-trained on it (FedMD)"
    )
    partition: Partition = Field(default_factory=Partition, description="how private rows are dealt to clients")


class Model(Settings):
    """A model by name, with the options of its constructor."""

    kind: str = Field(description="logistic, mlp, cnn, hog, transformers, or " + PLUGIN)
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the constructor")


def _named_model(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


AnyModel = Annotated[Model, BeforeValidator(_named_model)]


class ClientModel(Model):
    """A model as a client trains it."""

    learning_rate: float | None = Field(
        None, gt=0, description="of SGD on private data, for this model; unset: training.learning_rate"
    )


AnyClientModel = Annotated[ClientModel, BeforeValidator(_named_model)]


TINY_VIT = ClientModel(
    kind="transformers",
    learning_rate=0.1,
    options={
        "model_type": "vit",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "patch_size": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
)


class Clients(Settings):
    """A number of clients and the models that they take in turn."""

    count: int | None = Field(
        None, ge=1, description="number of clients; unset: 5, or one for each value of partition.column"
    )
    models: tuple[AnyClientModel, ...] = Field(
        (
            ClientModel(kind="logistic", learning_rate=0.6),
            ClientModel(kind="mlp", learning_rate=0.3),
            ClientModel(kind="cnn", learning_rate=0.6),
            TINY_VIT,
        ),
        min_length=1,
        description="models, dealt to the clients in turn",
    )


class Client(Settings):
    """One client (or `count` alike) and its model, as one `[[clients]]` table."""

    model: AnyClientModel = Field(description="this client's model")
    count: int = Field(1, ge=1, description="how many clients are like this one")


def _table_or_list(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "table"


AnyClients = Annotated[
    Annotated[Clients, Tag("table")] | Annotated[tuple[Client, ...], Tag("list")], Discriminator(_table_or_list)
]


class Training(Settings):
    """How a client trains, on its private data and on the consensus."""

    epochs: float = Field(
        30, gt=0, le=1_000_000, description="expected passes over the private data, over all rounds together"
    )
    sampling_rate: float = Field(
        0.5, gt=0, le=1, description="probability with which each example enters a step (Poisson)"
    )
    learning_rate: float = Field(0.5, gt=0, description="of SGD on private data")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD on private data")
    clip: float = Field(1.0, gt=0, description="L2 norm to which each example's gradient is clipped (DP-SGD)")
    plain_epochs: int = Field(40, ge=1, description="passes over the private data where there is no DP, in each round")
    plain_batch_size: int = Field(32, ge=1, description="examples in a step where there is no DP")
    plain_learning_rate: float = Field(3e-3, gt=0, description="of Adam where there is no DP")
    digest_epochs: int = Field(
        20, ge=0, description="passes over the transfer set with which a client learns the consensus"
    )
    digest_learning_rate: float = Field(3e-3, gt=0, description="of Adam on the consensus, and in pre-training")
    pretrain_epochs: int = Field(30, ge=0, description="passes over a labelled transfer set before the first round")


class Privacy(Settings):
    """What is promised, for which unit, and where the noise comes from."""

    dp_sgd: bool = Field(True, description="train with DP-SGD; false: no guarantee for examples")
    epsilon: float = Field(8.0, gt=0, description="ε for one example of a client, over the whole run")
    delta: float = Field(
        1e-5, gt=0, lt=1, description="δ that goes with epsilon; below 1/(examples of the largest client)"
    )
    client_epsilon: float | None = Field(
        None,
        gt=0,
        description="ε for a whole client in the server's view: sets the release noise; unset: release.noise does",
    )
    client_delta: float = Field(1e-5, gt=0, lt=1, description="δ of the client-level guarantee; below 1/(clients)")
    client_neighbours: Literal["zero_out", "replace_one"] = Field(
        "zero_out", description="neighbouring relation of the client-level ε: a client sends zeros, or anything else"
    )
    neighbours: Literal["add_remove", "zero_out", "replace_one"] = Field(
        "add_remove",
        description="relation of the example-level ε: an example is there or not, counted or blanked out, or another",
    )
    noise: Literal["os", "seeded"] = Field(
        "os", description="os: the system's CSPRNG; seeded: repeatable, and protects nothing"
    )


class Release(Settings):
    """What a client lets go of: its scores on the transfer set, clipped and noised."""

    scores: Literal["probabilities", "logits", "votes", "top_k"] = Field(
        "logits", description="soft labels, centred logits, one-hot votes, or the top_k largest soft labels"
    )
    top_k: int = Field(3, ge=1, description="soft labels kept in a row; the others become 0 (scores = 'top_k')")
    temperature: float = Field(1.0, gt=0, description="divides the logits before anything else")
    clip: float = Field(2.0, gt=0, description="norm to which a row is clipped (clip_unit = 'matrix': on average)")
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


class FedAvgSettings(Settings):
    """Weight updates instead of scores (strategy = 'fedavg')."""

    clip: float = Field(10.0, gt=0, description="L2 norm to which a client's whole update is clipped")
    noise: float = Field(
        0.001, ge=0, description="standard deviation of each client's noise on each weight of its update"
    )


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


class Student(Settings):
    """The global model, and how it learns from the consensus."""

    model: AnyModel = Field(Model(kind="mlp"), validate_default=True, description="the student's model")
    consensus: Literal["mean", "weighted", "entropy_reduced"] = Field(
        "entropy_reduced",
        description="mean, mean weighted by (capped) examples, or entropy-reduced mean (DS-FL; of weights the mean)",
    )
    denoise: bool = Field(
        False, description="smooth noisy scores over alike transfer rows before they are learnt (strategy = 'distil')"
    )
    sharpness: float = Field(
        5.0, gt=0, description="exponent of the entropy reduction: the consensus' softmax at 1/sharpness"
    )
    memory: float = Field(
        0.3, ge=0, lt=1, description="share that the rounds before keep in the consensus' mean scores"
    )
    temperature: float = Field(1.0, gt=0, description="of teacher and student in the distillation loss")
    loss: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = Field(
        "forward_kl", description="divergence that is minimised"
    )
    epochs: int = Field(100, ge=1, description="passes over the transfer set in each round")
    batch_size: int = Field(
        64, ge=1, description="rows in a step on the transfer set (the student's, and in a client's digest)"
    )
    learning_rate: float = Field(3e-3, gt=0, description="of Adam")


class Centralized(Settings):
    """The yardstick: all data in one place. Tune it as well as the federation, or the comparison flatters it."""

    model: AnyModel | None = Field(None, description="the model trained on all data; unset: the student's")
    learning_rate: float = Field(1.0, gt=0, description="of SGD on all private data")


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


class Runtime(Settings):
    """What cannot change a guarantee nor (rounding of floating-point sums aside) a result."""

    device: str = Field("cpu", description="torch device of the models")
    workers: int | None = Field(None, ge=1, description="processes that train clients; unset: one for each core")
    micro_batch: int = Field(256, ge=1, description="examples whose gradients are in memory at once")


class Experiment(Settings):
    """One federated run, complete: what `securekd run` does is a function of this and of the noise."""

    strategy: str = Field(
        "distil", description="who teaches whom: distil, pate (noisy votes), fedavg (weight updates), or " + PLUGIN
    )
    aggregation: str = Field(
        "masking",
        description="masking (the server sees only the sum), bfv or ckks (likewise; a decryptor apart from the server "
        "holds the key, and with ckks is trusted to look at nothing else), plain (it sees all), or " + PLUGIN,
    )
    rounds: int = Field(4, ge=1, le=1000, description="rounds of release, consensus and distillation")
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="of splits, initial weights and public batches; of the noise only if it is 'seeded'",
    )
    data: Data = Field(default_factory=Data, description="where examples come from")
    clients: AnyClients = Field(
        default_factory=Clients, description="one table, or one [[clients]] table for each kind"
    )
    training: Training = Field(default_factory=Training, description="how a client trains")
    privacy: Privacy = Field(default_factory=Privacy, description="what is promised")
    release: Release = Field(default_factory=Release, description="what a client lets go of")
    pate: Pate = Field(default_factory=Pate, description="noisy votes, answered one by one")
    fedavg: FedAvgSettings = Field(default_factory=FedAvgSettings, description="weight updates instead of scores")
    cohort: Cohort = Field(default_factory=Cohort, description="who may fall silent or collude")
    student: Student = Field(default_factory=Student, description="the global model")
    centralized: Centralized = Field(default_factory=Centralized, description="the yardstick: all data in one place")
    audit: Audit = Field(default_factory=Audit, description="how leakage is measured")
    runtime: Runtime = Field(default_factory=Runtime, description="what cannot change a guarantee")

    def plugins(self) -> frozenset[str]:
        """The parts of the user's own (`module:attribute`) that these settings name: code that a run imports."""
        data, clients = self.data, self.clients
        models = clients.models if isinstance(clients, Clients) else tuple(client.model for client in clients)
        kinds = [model.kind for model in (*models, self.student.model, self.centralized.model) if model is not None]
        parts = [*kinds, self.strategy, self.aggregation, self.release.mechanism, *self.audit.attacks]
        sources = [name for name in (data.source, data.transfer_source, data.test_source) if name is not None]
        return frozenset(
            [part for part in parts if is_plugin(part)]
            + [name for name in sources if PLUGIN_NAME.fullmatch(name) and not name.startswith("hub:")]
        )

    def client_models(self, count: int) -> tuple[ClientModel, ...]:
        """The model of each of `count` clients, in order."""
        if isinstance(self.clients, Clients):
            return tuple(self.clients.models[i % len(self.clients.models)] for i in range(count))
        return tuple(c.model for c in self.clients for _ in range(c.count))

    def client_count(self) -> int | None:
        """Number of clients, or None where the data's institutions decide."""
        if isinstance(self.clients, tuple):
            return sum(c.count for c in self.clients)
        if self.clients.count is None and self.data.partition.kind != "column":
            return 5
        return self.clients.count
