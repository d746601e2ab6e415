"""Soft labels: scores on transfer rows, bounded row by row.

Logits over temperature → soft labels, logits, the k largest soft labels, or a one-hot vote → centred → clipped.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from securekd.errors import RunError
from securekd.knowledge.bounded import HAIR, Bounded, weighted, weighted_mean
from securekd.numerics import log_softmax
from securekd.privacy.mechanisms import Bounds

Scores = Literal["probabilities", "logits", "votes", "top_k"]
Norm = Literal["l2", "l1", "linf"]
ClipUnit = Literal["row", "matrix"]


@dataclass(frozen=True)
class Clip:
    """To what scores are clipped.

    Attributes:
        bound: norm of a row at most; for a whole matrix, of a row on average (root mean square for l2, mean for l1).
        norm: which norm.
        unit: each row, or the matrix as a whole.
    """

    bound: float
    norm: Norm = "l2"
    unit: ClipUnit = "row"

    def of_matrix(self, rows: int) -> float:
        """What the norm of a whole matrix may be at most, where that is the unit."""
        return {"l2": math.sqrt(rows), "l1": float(rows), "linf": 1.0}[self.norm] * self.bound


@dataclass(frozen=True)
class SoftLabelShape:
    """Shape and bounds of every client's scores in a round: public, and the same for all.

    Votes are counted in units of 1/C, in which a centred one-hot row (C − 1 for its class, −1 elsewhere) is whole; they
    have the bounds that they have, and no clip.

    Attributes:
        rows: transfer rows m.
        classes: C.
        scores: what a row is.
        clip: what bounds it.
        weight_cap: examples at which a weight is capped to 1; None for equal weights.
    """

    rows: int
    classes: int
    scores: Scores
    clip: Clip
    weight_cap: int | None = None

    @property
    def parts(self) -> int:
        """Each row is one."""
        return self.rows

    @property
    def size(self) -> int:
        """Entries of the mean: m·C."""
        return self.rows * self.classes

    @property
    def length(self) -> int:
        """Entries of the vector: m·C, and one for the weight where weights are used."""
        return self.size + (self.weight_cap is not None)

    @property
    def unit(self) -> int:
        """Votes are counted in units of 1/C."""
        return self.classes if self.scores == "votes" else 1

    @property
    def bounds(self) -> Bounds:
        """What bounds one client's vector; its length counts from a client that sends zeros."""
        m, classes = self.rows, self.classes
        if self.scores == "votes":
            square = m * classes * (classes - 1)
            return Bounds(math.sqrt(square), 2.0 * m * (classes - 1), classes - 1.0, self.length, whole=True)
        c = self.clip.bound
        if self.clip.unit == "matrix" and self.clip.norm != "linf":
            whole = self.clip.of_matrix(m)
            l2, l1, entry = whole, whole * (math.sqrt(m * classes) if self.clip.norm == "l2" else 1.0), whole
        else:
            l2, l1 = {
                "l2": (c * math.sqrt(m), c * m * math.sqrt(classes)),
                "l1": (c * math.sqrt(m), c * m),
                "linf": (c * math.sqrt(m * classes), c * m * classes),
            }[self.clip.norm]
            entry = c
        if self.weight_cap is not None:
            l2, l1 = math.hypot(l2, c), l1 + c
        return Bounds(l2, l1, max(entry, c), self.length)

    @property
    def weight_bound(self) -> float:
        """What a weight of 1 is in the vector."""
        return self.clip.bound

    @property
    def unclipped(self) -> "SoftLabelShape":
        """The same scores with nothing that bounds them, and no weight: what a client has before its clip."""
        return replace(self, clip=replace(self.clip, bound=math.inf), weight_cap=None)

    def mean(self, total: np.ndarray, survivors: float) -> np.ndarray:
        """The mean of the survivors' scores (m, C); votes as centred shares."""
        if self.weight_cap is None:
            return total.reshape(self.rows, self.classes) / (self.unit * survivors)
        return weighted_mean(total, self.clip.bound, self.weight_cap).reshape(self.rows, self.classes)


def soft_labels(
    logits: np.ndarray,
    shape: SoftLabelShape,
    *,
    temperature: float,
    examples: int,
    top_k: int = 1,
    nonfinite: Literal["zero", "refuse"] = "zero",
    share: float | None = None,
) -> Bounded:
    """Bound a model's logits on transfer rows.

    Args:
        logits: (m, C); with one column more, for the background, where there is a share.
        shape: rows, classes, scores and bounds.
        temperature: divides them first.
        examples: the client's number of private examples, which sets its weight where weights are used.
        top_k: soft labels kept in a row, where scores are 'top_k'.
        nonfinite: what becomes of a row with a logit that is not finite.
        share: what probabilities are multiplied by, which do not add up to 1: the background keeps its own to itself.

    Raises:
        RunError: for such a row, where it is to be refused.
    """
    finite = np.isfinite(logits).all(axis=1)
    zeroed = int((~finite).sum())
    if zeroed and nonfinite == "refuse":
        raise RunError(
            f"{zeroed} of {len(logits)} transfer rows have a NaN or infinite logit (release.nonfinite = 'refuse'); "
            "lower the learning rate, or send them as zeros with release.nonfinite = 'zero'"
        )
    # Beyond ±1e100 a logit says no more, and its square would overflow.
    z = np.clip(np.where(finite[:, None], logits, 0.0), -1e100, 1e100) / temperature
    if shape.scores == "votes":
        votes = np.full(z.shape, -1.0)
        votes[np.arange(len(z)), z.argmax(axis=1)] = shape.classes - 1.0
        votes[~finite] = 0.0
        return Bounded(votes.reshape(-1), 0, zeroed)
    z = _scored(z, shape.scores, top_k) if share is None else share * np.exp(log_softmax(z))[:, : shape.classes]
    z = z - z.mean(axis=1, keepdims=True)
    z[~finite] = 0.0
    rows, clipped = _clipped(z, shape.clip)
    vector = rows.reshape(-1)
    if shape.weight_cap is not None:
        vector = weighted(vector, shape.clip.bound, examples, shape.weight_cap)
    return Bounded(vector, clipped, zeroed)


def _scored(z: np.ndarray, scores: Scores, top_k: int) -> np.ndarray:
    if scores == "logits":
        return z
    probabilities: np.ndarray = np.exp(log_softmax(z))
    if scores == "top_k" and top_k < z.shape[1]:
        least = np.argsort(probabilities, axis=1, kind="stable")[:, :-top_k]
        np.put_along_axis(probabilities, least, 0.0, axis=1)
    return probabilities


def _clipped(z: np.ndarray, clip: Clip) -> tuple[np.ndarray, int]:
    """Shorten what is longer than the clip; also the number of rows that were."""
    order = {"l2": 2, "l1": 1, "linf": np.inf}[clip.norm]
    if clip.unit == "row":
        norms = np.linalg.norm(z, ord=order, axis=1)
        return z * np.minimum(1.0, clip.bound * HAIR / np.maximum(norms, 1e-300))[:, None], int(
            (norms > clip.bound).sum()
        )
    norm, bound = float(np.linalg.norm(z.reshape(-1), ord=order)), clip.of_matrix(len(z))
    return z * min(1.0, bound * HAIR / max(norm, 1e-300)), len(z) if norm > bound else 0


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
