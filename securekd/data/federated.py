"""`load_federated`: from settings to the data of one federation.

Every draw is derived from the seed for its own purpose: which rows are public, test and private depends neither on the
number of clients nor on the partition.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securekd.data.columns import names, take
from securekd.data.encode import Encoder, fit, input_columns, modality_of, refuse_other_columns
from securekd.data.examples import Array, Examples, FederatedData, transfer_digest
from securekd.data.images import ImageEncoder, animated
from securekd.data.labels import class_map, labels
from securekd.data.partition import institutions, partition
from securekd.data.sources import identity, open_source
from securekd.data.split import Content, Pool, fill, refuse_overlap
from securekd.data.tables import TableEncoder
from securekd.errors import DataError
from securekd.randomness import Randomness
from securekd.settings.data import Data

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, eq=False)
class Source:
    """One data set, the rows of it that are still to be dealt, the number of its first row, what was passed over."""

    name: str
    data: "Dataset"
    pool: Pool
    first_id: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """Where each split comes from; two splits of one source share the same object."""

    private: Source
    transfer: Source
    test: Source


@dataclass(frozen=True, eq=False)
class Part:
    """One split: its source, and its rows there."""

    source: Source
    content: Content

    @property
    def data(self) -> "Dataset":
        """The split as a data set."""
        return take(self.source.data, self.content.rows)

    def examples(self, encoder: Encoder, labels: Array | None) -> Examples:
        """The split as examples."""
        return Examples(encoder.modality, self.content.inputs, labels, self.content.rows + self.source.first_id)


def load_federated(settings: Data, clients: int | None, seed: int) -> FederatedData:
    """Load, split, encode and partition the data of an experiment.

    Args:
        settings: the `[data]` table.
        clients: number of clients; None, for a partition by column, is one for each of its values.
        seed: of the splits and of the partition.

    Raises:
        DataError: if the data cannot be used as asked; the message says what to change.
    """
    random = Randomness("seeded", seed)
    sources = _open(settings, random)
    _check_counts(settings, sources)
    encoder, (transfer, test, private), left_out = _split(settings, sources)
    schemas = (sources.private.data, sources.transfer.data, sources.test.data)
    classes = class_map(settings.label, schemas, (transfer.data, test.data))
    known = labels(transfer.data, settings.label, classes, "transfer") if settings.transfer_labels else None
    if known is not None and len(set(known.tolist())) < 2:
        raise DataError(
            f"all {len(known)} rows of the transfer set are of one class, and everybody is to learn it "
            "(data.transfer_labels = true); raise data.transfer, take another seed or source, or set it false"
        )
    public = transfer.examples(encoder, known)
    held = private.examples(encoder, labels(private.data, settings.label, classes, "private"))
    column = settings.partition.column
    values = None if column is None else names(private.data, column)
    assert held.labels is not None
    parts = partition(held.labels, values, clients, settings.partition, random.public("data", "partition"))
    return FederatedData(
        modality=encoder.modality,
        classes=classes,
        input_shape=encoder.shape,
        vocabulary=encoder.vocabulary,
        pieces=encoder.pieces,
        clients=tuple(held.take(part) for part in parts),
        client_names=_numbered(len(parts)) if values is None else institutions(values, column),
        transfer=public,
        test=test.examples(encoder, labels(test.data, settings.label, classes, "test")),
        transfer_digest=transfer_digest(public, classes),
        notes=(*_said_of(sources), *left_out, *_said_of_inputs(encoder, {"test": test, "private": private})),
    )


def _open(settings: Data, random: Randomness) -> Sources:
    opened: dict[str, Source] = {}
    rows = 0

    def source(name: str) -> Source:
        nonlocal rows
        key = identity(name)
        if key not in opened:
            found = open_source(name)
            pool = Pool(len(found.data), random.public("data", "split", len(opened)))
            opened[key] = Source(name, found.data, pool, rows, found.notes)
            rows += len(found.data)
        return opened[key]

    return Sources(
        private=source(settings.source),
        transfer=source(settings.transfer_source or settings.source),
        test=source(settings.test_source or settings.source),
    )


def _test_rows(settings: Data, sources: Sources) -> int | None:
    """Rows of the test set: as set, else a fifth of the source shared with the private rows, else all (None)."""
    if settings.test is not None or sources.test is not sources.private:
        return settings.test
    return max(1, len(sources.test.data) // 5)


def _check_counts(settings: Data, sources: Sources) -> None:
    splits = (
        ("transfer", sources.transfer, settings.transfer),
        ("test", sources.test, _test_rows(settings, sources) or 1),
        ("private", sources.private, settings.private or 1),
    )
    for source in {id(s): s for _, s, _ in splits}.values():
        asked = [(name, count) for name, owner, count in splits if owner is source]
        if sum(count for _, count in asked) > len(source.data):
            raise DataError(
                f"{source.name!r} has {len(source.data)} rows, and the splits take "
                f"{' + '.join(f'{count} ({name})' for name, count in asked)}: "
                f"lower {' or '.join(f'data.{name}' for name, _ in asked)}, or give more data"
            )


def _said_of(sources: Sources) -> list[str]:
    """What was passed over in each source, told once."""
    distinct = {source.name: source for source in (sources.private, sources.transfer, sources.test)}
    return [f"{name!r}: {note}" for name, source in distinct.items() for note in source.notes]


def _said_of_inputs(encoder: Encoder, parts: dict[str, Part]) -> tuple[str, ...]:
    """What encoding does not show: categories that nobody declared, and frames after the first."""
    if isinstance(encoder, TableEncoder):
        said: list[str] = []
        for split, part in parts.items():
            with _named(part.source):
                said += encoder.unknown(part.data, split)
        return tuple(said)
    if isinstance(encoder, ImageEncoder):
        frames = sum(animated(part.data, encoder.column) for part in parts.values())
        return (f"of {frames} images with several frames or pages the first is read",) if frames else ()
    return ()


def _split(settings: Data, sources: Sources) -> tuple[Encoder, tuple[Part, Part, Part], tuple[str, ...]]:
    """The encoder, fitted on the transfer set alone; transfer, test and private rows without overlap; what was left."""
    columns = input_columns(sources.private.data, settings)
    rows = sources.transfer.pool.next(settings.transfer)
    with _named(sources.transfer):
        drawn = take(sources.transfer.data, rows)
        modality = modality_of(drawn, columns, settings)
        encoder = fit(settings, columns, modality, drawn)
    for source in (sources.private, sources.transfer, sources.test):
        with _named(source):
            refuse_other_columns(source.data, sources.transfer.data, columns, modality, settings)
    whole = modality == "tabular"  # equal rows of a table are different records
    parts = [Part(sources.transfer, _reader(sources.transfer, encoder)(rows))]
    tested, left_out = _test_rows(settings, sources), []
    for name, source, count in (("test", sources.test, tested), ("private", sources.private, settings.private)):
        earlier = [] if whole else [part for part in parts if part.source is source]
        avoid = {key for part in earlier for key in part.content.keys}
        before = len(source.pool)
        parts.append(Part(source, fill(source.pool, count, _reader(source, encoder), avoid, name)))
        copies = before - len(source.pool) - len(parts[-1].content.rows)
        if copies:
            left_out.append(f"{source.name!r}: {copies} copies of public rows were left out of the {name} set")
    transfer, test, private = parts
    for one, other, called in (
        (transfer, private, ("transfer", "private")),
        (transfer, test, ("transfer", "test")),
        (test, private, ("test", "private")),
    ):
        if one.source is not other.source:
            refuse_overlap(one.content.keys, other.content.keys, called, chance=whole)
    return encoder, (transfer, test, private), tuple(left_out)


@contextmanager
def _named(source: Source) -> Iterator[None]:
    """Put the source's name before what is wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{source.name!r}: {error}") from error


def _reader(source: Source, encoder: Encoder) -> Callable[[Array], Content]:
    def read(rows: Array) -> Content:
        with _named(source):
            data = take(source.data, rows)
            inputs = encoder.encode(data)
            return Content(rows, inputs, encoder.keys(data, inputs))

    return read


def _numbered(clients: int) -> tuple[str, ...]:
    width = max(2, len(str(clients)))
    return tuple(f"client-{i:0{width}}" for i in range(1, clients + 1))
