"""What a classifier that never sees the model may know of records, and copies of records that differ a little."""

import json

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.errors import BadSetting
from securekd_attacks.inputs import FloatArray
from securekd_attacks.signals.features import text_features
from securekd_attacks.targets.records import Inputs

WIDEST = 128
"""Features at most: wider arrays are projected onto so many random directions, the same for all records."""


def record_features(inputs: Inputs) -> FloatArray:
    """Features of records, shape (n, D): an array's own values (projected where there are many), or hashed trigrams.

    Give all sides at once: a missing value (NaN) becomes its column's mean, and which values are missing is added.

    Raises:
        TooFewRecords: no record.
    """
    if isinstance(inputs, np.ndarray):
        flat = _filled(inputs.reshape(len(inputs), -1).astype(np.float64))
        if flat.shape[1] <= WIDEST:
            return flat
        directions = np.random.default_rng(0).standard_normal((flat.shape[1], WIDEST)) / np.sqrt(flat.shape[1])
        projected: FloatArray = flat @ directions
        return projected
    if isinstance(inputs[0], str):
        return text_features([str(text) for text in inputs])
    return text_features([json.dumps(row, sort_keys=True) for row in inputs])


def _filled(flat: FloatArray) -> FloatArray:
    missing = np.isnan(flat)
    if not missing.any():
        return flat
    known = np.where(missing, 0.0, flat)
    means = known.sum(axis=0) / np.maximum((~missing).sum(axis=0), 1)
    return np.concatenate([np.where(missing, means, flat), missing[:, missing.any(axis=0)]], axis=1)


def altered(inputs: Inputs, strength: float, rng: np.random.Generator) -> Inputs | None:
    """A copy of all records that differs a little; None for rows with named columns, of which nothing is known.

    Arrays get normal noise of `strength` standard deviations of the whole array; integers are rounded and keep their
    range. Of texts each word is left out with probability `strength`, but one stays. Give both sides at once, so that
    both are altered alike.

    Raises:
        BadSetting: the strength is not in (0, 1).
    """
    if not 0.0 < strength < 1.0:
        raise BadSetting("strength out of range", value=strength, remedy="choose one in (0, 1), such as 0.1")
    if isinstance(inputs, np.ndarray):
        return _noisy(inputs, strength, rng)
    if isinstance(inputs[0], str):
        return [_shortened(str(text), strength, rng) for text in inputs]
    return None


def _noisy(array: NDArray[np.generic], strength: float, rng: np.random.Generator) -> NDArray[np.generic]:
    values = array.astype(np.float64)
    noisy = values + strength * np.nanstd(values) * rng.standard_normal(array.shape)
    if array.dtype.kind in "iu":
        noisy = np.rint(np.clip(noisy, values.min(), values.max()))
    result: NDArray[np.generic] = noisy.astype(array.dtype)
    return result


def _shortened(text: str, strength: float, rng: np.random.Generator) -> str:
    words = text.split()
    kept = [word for word, drop in zip(words, rng.random(len(words)) < strength, strict=True) if not drop]
    return " ".join(kept or words[:1])
