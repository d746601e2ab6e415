"""Which columns are inputs, which modality they make, and the encoder fitted on the public transfer set."""

from typing import TYPE_CHECKING, Protocol

from securekd.data.cells import listed, mostly_numbers, names_of
from securekd.data.columns import kind_of, values
from securekd.data.examples import Array, Modality
from securekd.data.images import fit_images
from securekd.data.tables import fit_table
from securekd.data.texts import fit_text
from securekd.errors import DataError
from securekd.settings.data import Data

if TYPE_CHECKING:
    from datasets import Dataset


class Encoder(Protocol):
    """Turns rows of a source into inputs, each row on its own."""

    @property
    def modality(self) -> Modality:
        """What the inputs are."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """The bytes of each token id, a character for each; empty without tokens."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @property
    def vocabulary(self) -> int | None:
        """Number of token ids, padding included; None without tokens."""

    def encode(self, rows: "Dataset") -> Array:
        """The inputs of some rows, (N, *shape)."""

    def keys(self, rows: "Dataset", inputs: Array) -> list[bytes]:
        """The key of each row's content, given its inputs: copies have the same."""


def input_columns(source: "Dataset", settings: Data) -> tuple[str, ...]:
    """The columns that the models see: `data.inputs`, or all but the label and the column that names institutions.

    Raises:
        DataError: if none is left, if one is absent, or if the label is among them.
    """
    left_out = {settings.label, settings.partition.column}
    columns = settings.inputs or tuple(name for name in source.features if name not in left_out)
    if not columns:
        raise DataError(f"no input column is left beside {listed(list(source.features))}: set data.inputs")
    if settings.label in columns:
        raise DataError(f"data.inputs names the label {settings.label!r}: leave it out")
    return columns


def modality_of(transfer: "Dataset", columns: tuple[str, ...], settings: Data) -> Modality:
    """One image column makes images, one undeclared column of texts makes text, everything else a table.

    Raises:
        DataError: if a column is absent or cannot be encoded, or if images stand beside other columns.
    """
    kinds = [kind_of(transfer, column) for column in columns]
    if "image" in kinds:
        if len(columns) > 1:
            raise DataError(
                f"images beside other columns ({listed(columns, str)}): name the image column alone in data.inputs"
            )
        return "image"
    alone = kinds == ["string"] and columns[0] not in settings.columns
    return "text" if alone and _holds_texts(transfer, columns[0]) else "tabular"


def refuse_other_columns(
    source: "Dataset", transfer: "Dataset", columns: tuple[str, ...], modality: Modality, settings: Data
) -> None:
    """Make sure that a source has the columns that the models see, by name and of one kind, and no further ones.

    Raises:
        DataError: a column is absent, of another kind, or, where `data.inputs` names none, not in the other sources.
    """
    kinds = [kind_of(source, column) for column in columns]
    if ("image" in kinds) != (modality == "image") or (modality == "text" and kinds != ["string"]):
        raise DataError(f"it is not {modality} data, and the transfer set is: give data of one kind")
    for column in columns:
        if (
            modality == "tabular"
            and column not in settings.columns
            and {kind_of(source, column), kind_of(transfer, column)} == {"class", "number"}
        ):
            raise DataError(f"column {column!r} holds class names in one source and numbers in another: store one kind")
    known = {*columns, settings.label, settings.partition.column}
    further = [name for name in source.features if name not in known]
    if further and not settings.inputs:
        raise DataError(f"it has a column {further[0]!r} that other sources lack: leave it out, or set data.inputs")


def _holds_texts(transfer: "Dataset", column: str) -> bool:
    """Texts are no numbers, and most of them stand in one row only; what repeats are categories."""
    cells = values(transfer, column)
    if mostly_numbers(cells):
        return False
    present = [name for name in names_of(cells) if name is not None]
    return 2 * len(set(present)) > len(present)


def fit(settings: Data, columns: tuple[str, ...], modality: Modality, transfer: "Dataset") -> Encoder:
    """Fit the encoder on the public transfer set and the settings, and on nothing else.

    Raises:
        DataError: if a setting belongs to another modality, or as the modality's own fit says.
    """
    if settings.columns and modality != "tabular":
        raise DataError(
            f"data.columns declares a table, but the input {columns[0]!r} makes {modality} data: leave it out"
        )
    if settings.image_size is not None and modality != "image":
        raise DataError(
            f"data.image_size = {settings.image_size} is for images, and this is {modality} data: leave it out"
        )
    if modality == "image":
        return fit_images(columns[0], settings.image_size, transfer)
    if modality == "text":
        return fit_text(columns[0], settings.tokenizer, settings.vocabulary, settings.max_tokens, transfer)
    return fit_table(columns, settings.columns, transfer)
