"""Reconstruction of inputs: from one client's gradient, and from a released matrix of soft labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from securekd_attacks.errors import BadSetting, ShapeMismatch, TooFewRecords
from securekd_attacks.inputs import FloatArray, finite_matrix, finite_scores


@dataclass(frozen=True, eq=False)
class FromGradient:
    """An input read off a gradient.

    Attributes:
        inputs: shape (D,): the record's input, where the gradient is one record's; else a weighted mean of several.
        label: the class whose bias gradient is negative, the record's label; None where there is none or several.
        residual: in [0, 1], the share of the gradient's length that no single record explains: 0 for one record.
    """

    inputs: FloatArray
    label: int | None
    residual: float


@dataclass(frozen=True, eq=False)
class PairedLogitsInversion:
    """A ridge regression from pairs of logits to inputs, learned on public records.

    Attributes:
        centre: shape (2C,), mean of the public pairs.
        mean: shape (D,), mean of the public inputs.
        weights: shape (2C, D).
    """

    centre: FloatArray
    mean: FloatArray
    weights: FloatArray

    @classmethod
    def fit(
        cls, client_logits: ArrayLike, server_logits: ArrayLike, inputs: ArrayLike, ridge: float = 1e-3
    ) -> "PairedLogitsInversion":
        """Learn to invert what a client and the server say of the same public inputs (Takahashi et al. 2023).

        The paper trains a network on such pairs; this is its linear form, with logits standing for the soft labels
        that were released (their logarithms do, up to a constant for each row).

        Args:
            client_logits: shape (n, C), the client's on public records.
            server_logits: shape (n, C), the server's on the same records.
            inputs: shape (n, D), these records.
            ridge: above 0, relative to the mean square of the logits.

        Raises:
            ShapeMismatch, NotFiniteScores, TooFewRecords: unfit matrices.
            BadSetting: the ridge is not positive.
        """
        if not 0.0 < ridge < np.inf:
            raise BadSetting("ridge out of range", value=ridge, remedy="choose a finite one above 0")
        pairs, known = _pairs(client_logits, server_logits), finite_matrix(inputs, "inputs").astype(np.float64)
        if len(pairs) != len(known):
            raise ShapeMismatch("logits and inputs disagree", value=(len(pairs), len(known)), remedy="one per record")
        if len(pairs) < 2:
            raise TooFewRecords("too few public records", value=len(pairs), remedy="give at least two")
        centre, mean = pairs.mean(axis=0), known.mean(axis=0)
        spread = pairs - centre
        gram = spread.T @ spread
        penalty = ridge * float(np.trace(gram)) / len(gram)
        if penalty == 0.0:  # logits that are all the same say nothing
            return cls(centre=centre, mean=mean, weights=np.zeros((len(gram), known.shape[1])))
        weights = linalg.solve(gram + penalty * np.eye(len(gram)), spread.T @ (known - mean), assume_a="pos")
        return cls(centre=centre, mean=mean, weights=weights)

    def invert(self, client_logits: ArrayLike, server_logits: ArrayLike) -> FloatArray:
        """Guess the inputs behind pairs of logits, shape (m, D).

        For a private class the server's logits are its own for an unsure prediction, and the client's those that a
        record of the class would have; that the two part is what tells private inputs from public ones.

        Raises:
            ShapeMismatch, NotFiniteScores, TooFewRecords: unfit matrices.
        """
        pairs = _pairs(client_logits, server_logits)
        if pairs.shape[1] != self.centre.size:
            raise ShapeMismatch("another number of classes", value=pairs.shape, remedy="use those fitted on")
        result: FloatArray = self.mean + (pairs - self.centre) @ self.weights
        return result


def invert_gradient(weight_gradient: ArrayLike, bias_gradient: ArrayLike) -> FromGradient:
    """Read a record off the gradient of a linear or logistic model's loss: why an update must be masked.

    The gradient of one record is (p − y) xᵀ for the weights and p − y for the bias, so that each row of the first over
    its entry of the second is x (Phong et al. 2018, section 3). All rows are used, by least squares. A single
    step of FedAvg is the same up to the learning rate, which cancels.

    Args:
        weight_gradient: shape (C, D).
        bias_gradient: shape (C,), not all zero.

    Raises:
        ShapeMismatch, NotFiniteScores, TooFewRecords: unfit gradients.
        BadSetting: a bias gradient of zero, from which nothing can be read.
    """
    weights = finite_matrix(weight_gradient, "weight gradients").astype(np.float64)
    bias = finite_scores(bias_gradient, "the bias gradient", fewest=1)
    if len(weights) != bias.size:
        raise ShapeMismatch("gradients disagree", value=(weights.shape, bias.shape), remedy="pass (C, D) and (C,)")
    length = float(bias @ bias)
    if length == 0.0:
        raise BadSetting("the bias gradient is zero", value=0.0, remedy="attack a step that changes the bias")
    inputs = bias @ weights / length
    whole = float(np.linalg.norm(weights))
    left = float(np.linalg.norm(weights - np.outer(bias, inputs)))
    negative = np.flatnonzero(bias < 0.0)
    return FromGradient(
        inputs=inputs,
        label=int(negative[0]) if negative.size == 1 else None,
        residual=0.0 if whole == 0.0 else min(1.0, left / whole),
    )


def _pairs(client_logits: ArrayLike, server_logits: ArrayLike) -> FloatArray:
    client, server = finite_matrix(client_logits, "client logits"), finite_matrix(server_logits, "server logits")
    if client.shape != server.shape:
        raise ShapeMismatch("logits disagree", value=(client.shape, server.shape), remedy="pass the same records")
    return np.concatenate([client, server], axis=1).astype(np.float64)
