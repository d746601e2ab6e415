"""What a cell means: missing, a number, or a name, by the same rules wherever it was read.

Spreadsheets, databases, R and pandas write the same thing in many ways. A name is the same with and without white space
around it, and however Unicode composes it; a whole number is the same with and without `.0`. What stands for "missing"
is missing. What could be read as a number in two ways (`26,000`, `27,3`) is never guessed.
"""

import re
import reprlib
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from securekd.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, np.dtype[Any]]

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NaT", "NULL", "null"}
    | {"(null)", "\\N", "#NV", "#N/D", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND"}
)
"""A name that is one of these is missing: spreadsheets, databases, R and pandas write no value so."""

NO_NUMBER = frozenset(
    {*(word.lower() for word in MISSING), "none", "nil", "?", "-", "--", ".", "._", *(f".{c}" for c in ascii_lowercase)}
)
"""Among numbers these mean missing too, in upper or lower case (SAS and Stata write `.a`); they may be names."""

FEW, LONGEST = 6, 40
"""How many names an error lists, and how many characters of each."""

MANY = 20
"""More different values than this are measurements, and no categories."""

EXACT = 2**53
"""Whole numbers up to here are exact in float64."""

_UNSEEN = "\u200b\ufeff"
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
_WRITTEN_OTHERWISE = (
    (r"[+-]?[0-9]{1,3}(\.[0-9]{3}){2,}", "write numbers without thousands separators"),
    (r"[+-]?[0-9]{1,3}([,'’ \xa0\u2009\u202f][0-9]{2,3})*[,'’ \xa0\u2009\u202f][0-9]{3}(\.[0-9]+)?",
     "write numbers without thousands separators"),
    (r"[+-]?([0-9]{1,3}([.' \xa0][0-9]{3})+|[0-9]*),[0-9]+", "write numbers with a decimal point"),
    (r"[<>≤≥~≈]=?\s*[0-9.,]+", "write a limit of detection as one number, or leave the cell empty"),
    (r"[+-]?[$€£¥]\s*[0-9.,]+|[+-]?[0-9.,]+\s*[$€£¥%]", "write numbers without units"),
    (r"\([0-9.,]+\)", "write negative numbers with a minus sign"),
    (r"(?=.*[^\x00-\x7f])[+-]?[\d.,]+", "write numbers in ASCII digits, with one decimal point at most"),
)  # fmt: skip
"""What people read as a number and this reader does not, and what to do about it."""

_UNIT = re.compile(r"[0-9.,]+\s*[^0-9.,\s]+")


def bare(text: str) -> str:
    """A text without the white space (and zero-width marks) around it, composed as Unicode's NFC."""
    return unicodedata.normalize("NFC", text.strip().strip(_UNSEEN).strip())


def name_of(value: object, known: Collection[str] = ()) -> str | None:
    """A value as a name (of a class, category, institution or record); None where it is missing.

    Names that are `known`, from a declaration, are names even where they read like "missing".
    """
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = bare(str(value))
    whole = _WHOLE.fullmatch(text)
    if whole is not None:
        text = whole[1]
    elif text.lower() in ("true", "false"):
        text = text.capitalize()  # R, pandas and JSON write one boolean in three ways
    return None if text in MISSING and text not in known else text


def names_of(values: "pa.ChunkedArray", known: Collection[str] = ()) -> list[str | None]:
    """Each value as a name; what repeats is worked out once."""
    coded = values.combine_chunks().dictionary_encode()
    found = [name_of(value, known) for value in coded.dictionary.to_pylist()]
    return [None if code is None else found[code] for code in coded.indices.to_pylist()]


def number_of(cell: str) -> float | None:
    """A cell as a number; NaN where it is missing, None where it is something else."""
    text = bare(cell).replace("−", "-")
    if text.lower() in NO_NUMBER:
        return np.nan
    return float(text) if _NUMBER.fullmatch(text) else None


DECLARE = "leave a cell empty where a value is missing, or declare categories in data.columns"


def numbers_of(values: "pa.ChunkedArray", where: str, otherwise: str = DECLARE) -> Array:
    """Values as float64 (N,), NaN where one is missing.

    Args:
        values: strings, booleans or any kind of number.
        where: what holds them, for the error: `column 'age'`.
        otherwise: what to do where the values are no numbers at all.

    Raises:
        DataError: a value is not a number.
    """
    import pyarrow as pa

    try:
        converted: Array = values.cast(pa.float64(), safe=False).to_numpy()  # unsafe: beyond 2^53 it rounds
    except pa.ArrowInvalid:  # some string is not a number, or not as Arrow reads them
        cells = values.to_pylist()
        found = [np.nan if cell is None else number_of(cell) for cell in cells]
        wrong = [row for row, number in enumerate(found) if number is None]
        if wrong:
            cell = cells[wrong[0]]
            raise DataError(
                f"{where} is read as numbers, and {len(wrong)} of {len(found)} values are none, such as "
                f"{reprlib.repr(cell)}: {_remedy(bare(cell), otherwise)}"
            ) from None
        converted = np.array(found, dtype=np.float64)
    return converted


def scaled(values: "pa.ChunkedArray", low: float, high: float, where: str) -> Array:
    """(v - low) / (high - low) clipped to [0, 1], float64 (N,), NaN where a value is missing.

    Whole numbers beyond 2^53, such as time stamps in nanoseconds, are subtracted before they are rounded.

    Raises:
        DataError: a value is not a number.
    """
    if max(abs(low), abs(high)) > EXACT and float(low).is_integer() and float(high).is_integer():
        whole, first, last = _whole_numbers(values), int(low), int(high)
        if whole is not None:
            distances = (None if v is None else min(max(v, first), last) - first for v in whole)
            span = (last - first) or 1
            return np.array([np.nan if d is None else d / span for d in distances], dtype=np.float64)
    clipped: Array = np.clip(numbers_of(values, where), low, high) - low
    clipped /= (high - low) or 1
    return clipped


def range_of(values: "pa.ChunkedArray", where: str) -> tuple[float, float] | None:
    """The smallest and the largest finite value, exact where they are whole; None where there is none.

    Raises:
        DataError: a value is not a number.
    """
    numbers = numbers_of(values, where)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return None
    if np.abs(finite).max() > EXACT:
        whole = _whole_numbers(values)
        if whole is not None:
            known = [v for v in whole if v is not None]
            return min(known), max(known)
    return float(finite.min()), float(finite.max())


def mostly_numbers(values: "pa.ChunkedArray") -> bool:
    """Whether more than half of the values that are there are numbers: then a value that is none is an error.

    Numbers that are written otherwise (`27,3`, `<5`) count: they are errors in any number. So do numbers with a unit,
    where they are too many to be categories.
    """
    import pyarrow as pa

    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return True
    cells = [bare(cell) for cell in values.to_pylist() if cell is not None]
    read = [number_of(cell) for cell in cells]
    present = sum(number is None or not np.isnan(number) for number in read)
    none = [cell for cell, number in zip(cells, read, strict=True) if number is None]
    words = [cell for cell in none if _written_otherwise(cell) is None]
    units = [cell for cell in words if _UNIT.fullmatch(cell)]
    numbers = present - len(words) + (len(units) if len(set(units)) > MANY else 0)
    return 2 * numbers > present


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Two different names that people would take for one; None where there are none.

    They differ in letter case (single letters aside), in white space, in how a number is written, or in punctuation at
    the end.
    """
    spellings: dict[object, list[str]] = defaultdict(list)
    for name in names:
        spellings[essence(name)].append(name)
    return next(((found[0], found[1]) for found in spellings.values() if len(found) > 1), None)


def essence(name: str) -> object:
    """What is left of a name without letter case, white space within, punctuation at the end: see `alike`."""
    if re.fullmatch(r"-?[0-9]+(\.[0-9]*)?", name):
        return Decimal(name)  # exact, as long codes differ in their last digit alone
    folded = name if len(name) == 1 else " ".join(name.casefold().split())
    return folded.rstrip(" .,;:") or folded


def refuse_alike(names: Iterable[str], where: str) -> None:
    """Refuse names that people would take for one: as two classes, or as two institutions, they would be a mistake.

    Raises:
        DataError: with the two names.
    """
    two = alike(names)
    if two is not None:
        raise DataError(f"{two[0]!r} and {two[1]!r} in {where} look like one name spelt twice: spell them alike")


def listed(names: Sequence[object], show: Callable[[object], str] = repr) -> str:
    """Names for an error's one line: the first few, each shortened, and how many there are."""
    texts = (show(name) for name in names[:FEW])
    shown = ", ".join(text if len(text) <= LONGEST else f"{text[:24]}...{text[-13:]}" for text in texts)
    return shown if len(names) <= FEW else f"{shown}, ... ({len(names)} in all)"


def _remedy(cell: str, otherwise: str) -> str:
    """What to do about a cell that is no number."""
    unit = "write numbers without units" if _UNIT.fullmatch(cell) else otherwise
    return _written_otherwise(cell) or unit


def _written_otherwise(cell: str) -> str | None:
    """The remedy for a number that is written otherwise; None for everything else."""
    return next((remedy for pattern, remedy in _WRITTEN_OTHERWISE if re.fullmatch(pattern, cell)), None)


def _whole_numbers(values: "pa.ChunkedArray") -> list[int | None] | None:
    """The values as whole numbers, None where one is missing; None altogether where one is not whole."""
    found: list[int | None] = []
    for value in values.to_pylist():
        name = name_of(value)
        if name is None or name.lower() in NO_NUMBER:
            found.append(None)
        elif re.fullmatch(r"[+-]?[0-9]+", name):
            found.append(int(name))
        else:
            return None
    return found
