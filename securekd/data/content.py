"""Keys of content: two rows with the same key are copies of each other."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from securekd.data.examples import Array


def array_keys(inputs: Array) -> list[bytes]:
    """A digest of each row of an array (N, ...): BLAKE2b, 128 bits."""
    rows = np.ascontiguousarray(inputs)
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def table_keys(measured: Array, named: Sequence[Sequence[str | None]], rows: int) -> list[bytes]:
    """A digest of each row of a table: its numbers, float64 (N, n), and its names, N rows; both may be empty."""
    bits = np.ascontiguousarray(measured.reshape(rows, -1), dtype=np.float64)
    words = named or [()] * rows
    return [
        hashlib.blake2b(row.tobytes() + json.dumps(word).encode(), digest_size=16).digest()
        for row, word in zip(bits, words, strict=True)
    ]


def text_keys(texts: Sequence[str]) -> list[bytes]:
    """A digest of each whole text, letter case and white space aside: tokens would be cut, and unknown ones alike."""
    return [
        hashlib.blake2b(" ".join(t.lower().split()).encode(errors="replace"), digest_size=16).digest() for t in texts
    ]
