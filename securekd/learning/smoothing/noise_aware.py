"""The student that knows the noise: denoise what was released, then learn it with a kernel machine.

`learn` is for any transfer set with fixed features; a neural student learns `denoise(...).log_probabilities` instead,
as it would learn a consensus. Both see public features and released scores alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from securekd.learning.smoothing.denoising import Denoised, Search, denoise
from securekd.learning.smoothing.ridge import ridge
from securekd.learning.smoothing.smoother import Basis, public_bases, spread
from securekd.models.kernel import Landmarks, landmarks_of
from securekd.numerics import log_softmax


@dataclass(frozen=True, eq=False)
class Kernel:
    """A Gaussian kernel on public rows.

    Attributes:
        landmarks: what it compares with.
        design: its features of the transfer set (m, r).
    """

    landmarks: Landmarks
    design: np.ndarray

    def map(self, features: np.ndarray) -> np.ndarray:
        """Features (n, p) to the kernel's (n, r)."""
        return self.landmarks.map(features)


@dataclass(frozen=True, eq=False)
class NoiseAwareStudent:
    """A student that was taught noisy scores.

    Attributes:
        kernel: what it sees of an input.
        weights: (r, C).
        penalty: of its ridge regression, chosen by leave-one-out.
        sharpness: what turns its scores to log-odds.
        denoised: what it was taught.
    """

    kernel: Kernel
    weights: np.ndarray
    penalty: float
    sharpness: float
    denoised: Denoised

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Log-probabilities (n, C) of inputs with features (n, p)."""
        return log_softmax(self.sharpness * (self.kernel.map(features) @ self.weights))


def learn(
    transfer: np.ndarray,
    released: np.ndarray,
    noise_variance: float,
    *,
    bases: tuple[Basis, ...] | None = None,
    kernel: Kernel | None = None,
    search: Search | None = None,
    seed: int = 0,
) -> NoiseAwareStudent:
    """A student of noisy scores.

    Args:
        transfer: public features (m, p).
        released: noisy scores (m, C).
        noise_variance: of each entry.
        bases: those of `public_bases(transfer)`, where they are at hand.
        kernel: that of `public_kernel(transfer)`, where it is at hand.
        search: what denoising tries.
        seed: of the thinning.
    """
    bases = public_bases(transfer) if bases is None else bases
    denoised = denoise(transfer, released, noise_variance, bases=bases, search=search, seed=seed)
    return teach(public_kernel(transfer) if kernel is None else kernel, settled(denoised, bases))


def settled(denoised: Denoised, bases: Sequence[Basis]) -> Denoised:
    """The same with each row's class settled by its neighbours, where something was learnt."""
    if denoised.method == "uniform" or all(basis.name != "graph" for basis in bases):
        return denoised
    return replace(denoised, log_probabilities=settled_by_neighbours(denoised.log_probabilities, bases))


def settled_by_neighbours(log_probabilities: np.ndarray, bases: Sequence[Basis]) -> np.ndarray:
    """The same (m, C) with each row's class settled by its neighbours, where there is a graph of the rows.

    Smoothing as much as the noise asks for leaves out directions in which classes still bend. The likeliest classes
    have hardly any noise left, so they can be spread with more directions than the scores that they came from (self-
    training). Hard labels also undo what teachers share: scores of a class that few of them know are small.
    """
    graph = next((basis for basis in bases if basis.name == "graph"), None)
    if graph is None:
        return log_probabilities
    m, classes = log_probabilities.shape
    labels = np.eye(classes)[log_probabilities.argmax(axis=1)]
    scores = spread(graph, np.arange(m), labels - 1.0 / classes)
    believed = np.eye(classes)[scores.argmax(axis=1)]
    return np.asarray(np.log(np.maximum(believed, 1e-12)))


def public_kernel(features: np.ndarray, *, landmarks: int = 1000, seed: int = 0) -> Kernel:
    """The kernel of public features (m, p)."""
    found = landmarks_of(features, landmarks, seed=seed)
    return Kernel(found, found.map(features))


def teach(kernel: Kernel, denoised: Denoised) -> NoiseAwareStudent:
    """Ridge regression on the believed probabilities."""
    found = ridge(kernel.design, denoised.log_probabilities)
    return NoiseAwareStudent(kernel, found.weights, found.penalty, found.sharpness, denoised)
