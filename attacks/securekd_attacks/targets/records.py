"""Records to ask a target about, what it answers, and what every target is."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.errors import BadLabels, OverlappingRecords, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.signals.access import Access

Inputs = Sequence[str] | Sequence[Mapping[str, object]] | NDArray[np.generic]
"""Texts, rows with named columns (None where a value is missing), or an array of shape (n, ...) (NaN there)."""


@dataclass(frozen=True, eq=False)
class Records:
    """Records of one side, as a target takes them.

    Attributes:
        inputs: n texts, n rows with named columns, or an array of shape (n, ...).
        ids: n distinct names, by which reports name the most exposed; `content_ids` makes them of the content.
        labels: shape (n,), integers from 0; None where there are none.
        columns: names of the inputs' columns, in the order in which they reach a target; None where they have none.
        notes: what was passed over when the records were read, a line each.

    Raises:
        TooFewRecords: no record.
        ShapeMismatch: the parts have different lengths.
        OverlappingRecords: an id occurs twice.
        BadLabels: labels that are not integers from 0.
    """

    inputs: Inputs
    ids: tuple[str, ...]
    labels: IntArray | None = None
    columns: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.inputs) == 0:
            raise TooFewRecords("no records", value=0, remedy="give a file with at least two")
        lengths = {len(self.inputs), len(self.ids)} | (set() if self.labels is None else {len(self.labels)})
        if len(lengths) > 1:
            raise ShapeMismatch("records, ids and labels disagree", value=sorted(lengths), remedy="give one per record")
        if len(set(self.ids)) < len(self.ids):
            twice = next(x for i, x in enumerate(self.ids) if x in self.ids[:i])
            raise OverlappingRecords(
                "a record occurs twice on one side",
                value=twice,
                remedy="keep it once, or give records ids of their own",
            )
        if self.labels is not None and (self.labels.dtype.kind not in "iu" or int(self.labels.min()) < 0):
            found = self.labels.min() if self.labels.dtype.kind in "iu" else self.labels.dtype
            raise BadLabels("labels must be integers from 0", value=found, remedy="pass class indices")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def kind(self) -> str:
        """`text`, `row` or `array`, the array with the shape of one record: only alike records can be compared."""
        if isinstance(self.inputs, np.ndarray):
            return f"array {'x'.join(map(str, self.inputs.shape[1:]))}"
        return "text" if isinstance(self.inputs[0], str) else "row"

    def digest(self) -> str:
        """A SHA-256 of everything here, in hexadecimal: two digests are equal where an audit asks the same."""
        whole = hashlib.sha256(self.kind.encode())
        for key, name in zip(content_ids(self.inputs), self.ids, strict=True):
            whole.update(json.dumps([key, name]).encode())
        whole.update(b"none" if self.labels is None else self.labels.astype("<i8").tobytes())
        return whole.hexdigest()


@dataclass(frozen=True, eq=False)
class Answers:
    """What a target says of a batch of n records; what it does not show is None.

    Attributes:
        log_probs: shape (n, C), natural logarithms.
        predicted: shape (n,), integers: labels alone.
        token_log_probs: n arrays, each a text's.
        token_means: n arrays, as `Signals.token_means`.
        token_deviations: n arrays, as `Signals.token_deviations`.
        cut: how many of the texts the target read only the beginning of.
        rounding: shape (n,), as `reading.Distributions` has it; None where no probabilities were given.
    """

    log_probs: FloatArray | None = None
    predicted: IntArray | None = None
    token_log_probs: tuple[FloatArray, ...] | None = None
    token_means: tuple[FloatArray, ...] | None = None
    token_deviations: tuple[FloatArray, ...] | None = None
    cut: int = 0
    rounding: FloatArray | None = None

    @property
    def gives(self) -> frozenset[Access]:
        """The kinds of access that these answers give."""
        shown = ("log_probs", "predicted", "token_log_probs", "token_means", "token_deviations")
        return frozenset(Access(name) for name in shown if getattr(self, name) is not None)


@runtime_checkable
class Target(Protocol):
    """What every target is. Write a class with these two members to audit one of your own."""

    @property
    def name(self) -> str:
        """What is audited, in words without secrets; stored in the record."""

    def ask(self, inputs: Inputs) -> Answers:
        """Answer a batch.

        Raises:
            TargetFailed: it does not answer, or not as it should; the audit keeps what it has and can be resumed.
        """


# Below, a list of what came out of an `Inputs` is one of the same kind; mypy sees the union of all kinds' items.


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Inputs of one kind, one after the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate([np.asarray(part) for part in parts])
    return [each for part in parts for each in part]  # type: ignore[return-value]


def taken(inputs: Inputs, rows: NDArray[np.integer]) -> Inputs:
    """Some of the inputs, in the order of `rows`."""
    if isinstance(inputs, np.ndarray):
        array: NDArray[np.generic] = inputs[rows]
        return array
    return [inputs[int(row)] for row in rows]  # type: ignore[return-value]


def content_ids(inputs: Inputs) -> tuple[str, ...]:
    """A name for each record, made of its content: 128 bits of SHA-256, so that copies have the same name."""
    return tuple(hashlib.sha256(_bytes_of(each)).hexdigest()[:32] for each in inputs)


def _bytes_of(record: object) -> bytes:
    if isinstance(record, str):
        return record.encode("utf-8", errors="surrogatepass")
    if isinstance(record, Mapping):
        return json.dumps(record, sort_keys=True, ensure_ascii=True).encode()
    array = np.ascontiguousarray(record)
    return f"{array.shape}{array.dtype.str}".encode() + array.tobytes()
