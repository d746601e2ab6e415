"""The student that knows the noise: denoise what was released, then learn it with a kernel machine.

`learn` is for any transfer set with fixed features; a neural student learns `denoise(...).log_probabilities` instead,
as it would learn a consensus. Both see public features and released scores alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from securekd.learning.smoothing.denoising import Denoised, Search, denoise
from securekd.learning.smoothing.smoother import Basis, public_bases, spread
from securekd.numerics import log_softmax


@dataclass(frozen=True, eq=False)
class Kernel:
    """A Gaussian kernel on public rows, through landmarks (Nyström method, Williams and Seeger 2001).

    Attributes:
        landmarks: rows (L, p).
        bandwidth: squared distance at which the kernel is 1/e.
        whitening: (L, r), with which kernel values become features whose second moments on the transfer set are
            diagonal.
        design: those features of the transfer set (m, r).
        energy: sums of their squares (r,).
    """

    landmarks: np.ndarray
    bandwidth: float
    whitening: np.ndarray
    design: np.ndarray
    energy: np.ndarray

    def map(self, features: np.ndarray) -> np.ndarray:
        """Features (n, p) to the kernel's (n, r)."""
        return np.asarray(np.exp(-_squares(features, self.landmarks) / self.bandwidth) @ self.whitening)


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
    """The same with each row's class settled by its neighbours, where something was learnt and there is a graph.

    Smoothing as much as the noise asks for leaves out directions in which classes still bend. The likeliest classes
    have hardly any noise left, so they can be spread with more directions than the scores that they came from (self-
    training). Hard labels also undo what teachers share: scores of a class that few of them know are small.
    """
    graph = next((basis for basis in bases if basis.name == "graph"), None)
    if denoised.method == "uniform" or graph is None:
        return denoised
    m, classes = denoised.log_probabilities.shape
    labels = np.eye(classes)[denoised.log_probabilities.argmax(axis=1)]
    scores = spread(graph, np.arange(m), labels - 1.0 / classes)
    believed = np.eye(classes)[scores.argmax(axis=1)]
    return replace(denoised, log_probabilities=np.log(np.maximum(believed, 1e-12)))


def public_kernel(features: np.ndarray, *, landmarks: int = 1000, seed: int = 0) -> Kernel:
    """The kernel of public features (m, p); its bandwidth is the median squared distance between landmarks."""
    chosen = np.random.default_rng(seed).permutation(len(features))[:landmarks]
    points = np.asarray(features[chosen], dtype=np.float64)
    squares = _squares(points, points)
    apart = squares[np.triu_indices(len(points), 1)]
    bandwidth = max(float(np.median(apart)) if len(apart) else 1.0, 1e-12)
    values, axes = np.linalg.eigh(np.exp(-squares / bandwidth))
    keep = values > 1e-6 * values.max()
    whitening = axes[:, keep] / np.sqrt(values[keep])
    design = np.exp(-_squares(features, points) / bandwidth) @ whitening
    energy, rotation = np.linalg.eigh(design.T @ design)
    return Kernel(points, bandwidth, whitening @ rotation, design @ rotation, np.maximum(energy, 0.0))


def teach(kernel: Kernel, denoised: Denoised) -> NoiseAwareStudent:
    """Ridge regression on the believed probabilities.

    Penalty and sharpness are those with which each row is best foretold by all others: the leave-one-out residual is
    the residual over one minus the leverage (Allen 1974), so that labels which neighbours contradict are unlearnt.
    """
    targets = np.exp(denoised.log_probabilities)
    targets = targets / targets.sum(axis=1, keepdims=True)
    offset = targets - 1.0 / targets.shape[1]
    moments = kernel.design.T @ offset
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for penalty in np.geomspace(1e-3, 1e2, 11):
        weights = moments / (kernel.energy + penalty)[:, None]
        leverage = np.square(kernel.design) @ (1.0 / (kernel.energy + penalty))
        residual = (offset - kernel.design @ weights) / np.maximum(1.0 - leverage, 1e-6)[:, None]
        error = float(np.square(residual).mean())
        if best is None or error < best[0]:
            best = (error, float(penalty), weights, offset - residual)
    assert best is not None
    _, penalty, weights, foretold = best
    losses = {s: -float((targets * log_softmax(s * foretold)).sum()) for s in (1.0, 2.0, 4.0, 8.0, 16.0)}
    return NoiseAwareStudent(kernel, weights, penalty, min(losses, key=lambda s: losses[s]), denoised)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2.0 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0))
