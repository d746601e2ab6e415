"""Where examples come from, and how they are dealt."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from securekd.settings.table import PLUGIN, Settings


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
