"""Attacks on targets that give labels alone (Choquette-Choo et al. 2021): how much a label withstands."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securekd_attacks.errors import BadLabels, BadSetting, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import FloatArray, IntArray
from securekd_attacks.signals.access import Access, Signals, required

Predict = Callable[[NDArray[np.floating]], ArrayLike]
"""A target: inputs of shape (n, ...) to n labels."""

Augment = Callable[[NDArray[np.floating], np.random.Generator], NDArray[np.floating]]
"""One perturbed copy of all inputs: the same shape out as in."""


@dataclass(frozen=True)
class LabelOnlyAttack:
    """Members keep their right label under more perturbations. The score is the share of copies labelled right."""

    @property
    def name(self) -> str:
        """The name in tables and records."""
        return "label_only"

    @property
    def needs(self) -> frozenset[Access]:
        """The target's labels for perturbed copies, and the true labels."""
        return frozenset({Access.PREDICTED, Access.LABELS})

    def score(self, signals: Signals) -> FloatArray:
        """Give the share of right labels, shape (n,), in [0, 1].

        Raises:
            MissingAccess: no predicted or no true labels.
            ShapeMismatch: not one row of predicted labels per record.
            BadLabels: labels that are not integers.
            TooFewRecords: no copy at all.
        """
        predicted = np.asarray(required(signals.predicted, Access.PREDICTED, self.name))
        labels = np.asarray(signals.require_labels(self.name))
        if predicted.ndim != 2 or labels.ndim != 1:
            raise ShapeMismatch(
                "predicted labels must have shape (records, copies)",
                value=(predicted.shape, labels.shape),
                remedy="use predicted_labels",
            )
        if predicted.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
            raise BadLabels("labels must be integers", value=(predicted.dtype, labels.dtype), remedy="pass indices")
        if predicted.shape[1] == 0:
            raise TooFewRecords("no perturbed copy", value=predicted.shape, remedy="ask for one or more")
        result: FloatArray = (predicted == labels[:, None]).mean(axis=1)
        return result


def predicted_labels(predict: Predict, inputs: ArrayLike, augment: Augment, copies: int, seed: int) -> IntArray:
    """Ask a target for the labels of each input and of perturbed copies: what `LabelOnlyAttack` needs.

    Args:
        predict: the target.
        inputs: shape (n, ...).
        augment: makes one copy, such as `gaussian_noise(0.1)`, or a random shift or rotation.
        copies: perturbed copies, at least 1; the unperturbed input comes first, in addition.
        seed: of the perturbations.

    Returns:
        Shape (n, 1 + copies).

    Raises:
        BadSetting: fewer than one copy.
        ShapeMismatch: the target gave another number of labels, or the copy has another shape.
        BadLabels: the target gave something else than integers.
    """
    if copies < 1:
        raise BadSetting("copies out of range", value=copies, remedy="choose at least one")
    given, rng = np.asarray(inputs), np.random.default_rng(seed)
    columns = [_ask(predict, given)]
    for _ in range(copies):
        copy = augment(given, rng)
        if copy.shape != given.shape:
            raise ShapeMismatch("a copy has another shape", value=(copy.shape, given.shape), remedy="keep the shape")
        columns.append(_ask(predict, copy))
    return np.stack(columns, axis=1)


def gaussian_noise(deviation: float) -> Augment:
    """An augmentation that adds normal noise of this standard deviation, above 0, to every coordinate."""
    if not 0.0 < deviation < np.inf:
        raise BadSetting("deviation out of range", value=deviation, remedy="choose a finite one above 0")

    def augment(inputs: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.floating]:
        noisy: NDArray[np.floating] = inputs + deviation * rng.standard_normal(inputs.shape)
        return noisy

    return augment


def _ask(predict: Predict, inputs: NDArray[np.floating]) -> IntArray:
    labels = np.asarray(predict(inputs))
    if labels.shape != inputs.shape[:1]:
        raise ShapeMismatch(
            "the target gave another number of labels", value=(labels.shape, inputs.shape), remedy="one per input"
        )
    if labels.dtype.kind not in "iu":
        raise BadLabels("the target's labels must be integers", value=labels.dtype, remedy="give class indices")
    return labels.astype(np.int64)
