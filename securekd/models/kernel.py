"""A kernel machine: a linear head on a Gaussian kernel of public features, through landmarks of the transfer set."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.models.builtin import Centre
from securekd.models.hog import Hog
from securekd.models.public import Principal, PublicLayer, checked
from securekd.models.shape import InputShape
from securekd.models.tfidf import GRAMS, TfIdf


class Landmarks(NamedTuple):
    """A Gaussian kernel on public rows, through landmarks (Nyström method, Williams and Seeger 2001).

    Attributes:
        points: the landmarks (L, p).
        bandwidth: squared distance at which the kernel is 1/e: the median between landmarks that differ.
        whitening: (L, r), with which kernel values become features whose inner products are the kernel's.
    """

    points: np.ndarray
    bandwidth: float
    whitening: np.ndarray

    def map(self, features: np.ndarray) -> np.ndarray:
        """Features (n, p) to the kernel's (n, r)."""
        return np.asarray(np.exp(-_squares(features, self.points) / self.bandwidth) @ self.whitening)


def landmarks_of(features: np.ndarray, count: int, *, seed: int = 0) -> Landmarks:
    """The kernel of public features (m, p), with `count` of the rows as landmarks, or all.

    Raises:
        ModelError: The rows are all alike.
    """
    chosen = np.random.default_rng(seed).permutation(len(features))[:count]
    points = np.asarray(features[chosen], dtype=np.float64)
    squares = _squares(points, points)
    apart = squares[np.triu_indices(len(points), 1)]
    apart = apart[apart > 1e-9 * max(float(np.square(points).sum(axis=1).mean()), 1e-300)]  # beyond rounding
    if not len(apart):
        raise ModelError("the rows of the transfer set are all alike to a kernel; take another model, or other rows")
    bandwidth = float(np.median(apart))
    values, axes = np.linalg.eigh(np.exp(-squares / bandwidth))
    keep = values > 1e-6 * values.max()
    return Landmarks(points, bandwidth, axes[:, keep] / np.sqrt(values[keep]))


class GaussianKernel(PublicLayer):
    """The kernel as a layer; directions that the landmarks do not span are zeros.

    Args:
        landmarks: L; where the transfer set has fewer rows, the others count for nothing.
    """

    takes = ("points", "bandwidth", "whitening")
    points: Tensor
    bandwidth: Tensor
    whitening: Tensor

    def __init__(self, landmarks: int) -> None:
        super().__init__(checked(landmarks, "landmarks"))

    def fit(self, inputs: Tensor) -> dict[str, Tensor]:
        """Landmarks among features (m, p)."""
        found = landmarks_of(inputs.double().numpy(), self.size)
        whitening = np.zeros((len(found.points), self.size))
        whitening[:, : found.whitening.shape[1]] = found.whitening
        return {
            "points": torch.from_numpy(found.points),
            "bandwidth": torch.tensor(found.bandwidth, dtype=torch.float64),
            "whitening": torch.from_numpy(whitening),
        }

    def refuse_unfit(self) -> None:
        """Refuse landmarks, a bandwidth and a whitening that do not belong together."""
        points, width = self.points, self.bandwidth
        if points.dim() != 2 or width.dim() or not width > 0 or self.whitening.shape != (len(points), self.size):
            raise ModelError("the landmarks of this kernel are damaged; fit it anew")

    def features(self, inputs: Tensor) -> Tensor:
        """Features (N, p) to (N, L), computed in float64: the whitening would lose half of float32's digits."""
        x = inputs.double()
        squares = x.square().sum(1, keepdim=True) + self.points.square().sum(1) - 2.0 * x @ self.points.T
        return (torch.exp(-squares.clamp(min=0.0) / self.bandwidth) @ self.whitening).float()


def kernel(
    shape: InputShape, *, landmarks: int = 1000, components: int | None = None, whitening: float = 0.0
) -> nn.Module:
    """A linear head on a Gaussian kernel of public features: of oriented gradients, of words, or of columns.

    Args:
        shape: of the inputs.
        landmarks: rows of the transfer set that others are compared with.
        components: principal components that are compared; None: all features.
        whitening: see `Principal`.
    """
    layers = public_layers(shape)
    if components is not None:
        layers.append(Principal(components, whitening))
    return nn.Sequential(*layers, GaussianKernel(landmarks), nn.Linear(landmarks, shape.classes))


def public_layers(shape: InputShape) -> list[nn.Module]:
    """Layers that give a modality's public features (N, p)."""
    if shape.modality == "text":
        return [TfIdf(GRAMS, shape)]
    if shape.oriented:
        return [Hog()]
    return [Centre(shape), nn.Flatten()]


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2.0 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0))
