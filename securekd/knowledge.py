"""What a client lets go of, before any noise: bounded scores on the transfer set.

A `SoftLabels` knows its shape and its bound, and becomes a vector and back. Row by row: logits over temperature →
probabilities or logits → centred → clipped to an L2 norm. Weighted means append one more entry, the weight itself, so
that neither the weighted sum nor the sum of weights is seen for one client.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Scores = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class SoftLabelShape:
    """Shape and bounds of every client's soft labels in a run: public, and the same for all.

    Attributes:
        rows: transfer-set rows m.
        classes: C.
        clip: L2 norm of a row at most.
        weight_cap: examples at which a weight is capped to 1; None for equal weights.
    """

    rows: int
    classes: int
    clip: float
    weight_cap: int | None = None

    @property
    def length(self) -> int:
        """Entries of the vector: m·C, and one for the weight where weights are used."""
        return self.rows * self.classes + (self.weight_cap is not None)

    @property
    def sensitivity(self) -> float:
        """L2 norm of one client's whole vector at most, which is its distance from a client that contributes zeros."""
        return self.clip * float(np.sqrt(self.rows + (self.weight_cap is not None)))


@dataclass(frozen=True)
class SoftLabels:
    """One client's bounded scores.

    Attributes:
        vector: float64 (length,), of L2 norm at most `shape.sensitivity`.
        clipped_rows: rows that the clip made shorter.
        zeroed_rows: rows with a NaN or infinite logit, which became zeros.
    """

    vector: np.ndarray
    clipped_rows: int
    zeroed_rows: int


def soft_labels(
    logits: np.ndarray, shape: SoftLabelShape, *, scores: Scores, temperature: float, examples: int
) -> SoftLabels:
    """Bound a model's logits on the transfer set.

    Args:
        logits: (m, C).
        shape: rows, classes and bounds.
        scores: what to make of the logits.
        temperature: divides them first.
        examples: the client's number of private examples, which sets its weight where weights are used.
    """
    finite = np.isfinite(logits).all(axis=1)
    # Beyond ±1e100 a logit says no more, and its square would overflow.
    z = np.clip(np.where(finite[:, None], logits, 0.0), -1e100, 1e100) / temperature
    if scores == "probabilities":
        z = np.exp(log_softmax(z))
    z = z - z.mean(axis=1, keepdims=True)
    z[~finite] = 0.0
    norms = np.linalg.norm(z, axis=1)
    # The factor 1 - 1e-12 keeps the float64 norm from ending above the bound by rounding.
    rows = z * np.minimum(1.0, shape.clip * (1 - 1e-12) / np.maximum(norms, 1e-300))[:, None]
    vector = rows.reshape(-1)
    if shape.weight_cap is not None:
        weight = min(examples, shape.weight_cap) / shape.weight_cap
        vector = np.append(weight * vector, weight * shape.clip * (1 - 1e-12))
    return SoftLabels(vector=vector, clipped_rows=int((norms > shape.clip).sum()), zeroed_rows=int((~finite).sum()))


def mean_scores(total: np.ndarray, shape: SoftLabelShape, survivors: int) -> np.ndarray:
    """The mean of the survivors' scores (m, C), from the (noisy) sum of their vectors."""
    if shape.weight_cap is None:
        return total.reshape(shape.rows, shape.classes) / survivors
    weight = max(total[-1] / shape.clip, 1.0 / shape.weight_cap)  # the noise may have pushed it to zero or below
    mean: np.ndarray = total[:-1].reshape(shape.rows, shape.classes) / weight
    return mean


def consensus_log_probabilities(mean: np.ndarray, *, scores: Scores, sharpness: float) -> np.ndarray:
    """Log-probabilities (m, C) of the consensus.

    Args:
        mean: mean scores, centred.
        scores: what they are.
        sharpness: 1 for the plain mean; above 1 reduces its entropy (ERA, Itahara et al. 2021, DS-FL, eq. 9).
    """
    if scores == "logits":
        return log_softmax(mean * sharpness)
    probabilities = np.maximum(mean + 1.0 / mean.shape[1], 1e-4)
    return log_softmax(np.log(probabilities) * sharpness)


def log_softmax(z: np.ndarray) -> np.ndarray:
    """Row-wise log-softmax (N, C)."""
    shifted = z - z.max(axis=1, keepdims=True)
    normalised: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised
