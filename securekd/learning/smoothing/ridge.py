"""Ridge regression on class probabilities, with penalty and sharpness by leave-one-out."""

from dataclasses import dataclass

import numpy as np

from securekd.numerics import log_softmax


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear student.

    Attributes:
        weights: (r, C).
        penalty: of its ridge regression.
        sharpness: what turns its scores to log-odds.
    """

    weights: np.ndarray
    penalty: float
    sharpness: float


def ridge(design: np.ndarray, log_probabilities: np.ndarray) -> Ridge:
    """Least squares on the probabilities that are believed.

    Penalty and sharpness are those with which each row is best foretold by all others: the leave-one-out residual is
    the residual over one minus the leverage (Allen 1974), so that labels which neighbours contradict are unlearnt.

    Args:
        design: features of the rows (m, r), float64.
        log_probabilities: what they are believed to be (m, C).
    """
    targets = np.exp(log_probabilities)
    targets = targets / targets.sum(axis=1, keepdims=True)
    offset = targets - 1.0 / targets.shape[1]
    energy, rotation, turned = _principal(design)
    moments = turned.T @ offset
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for penalty in np.geomspace(1e-3, 1e2, 11):
        weights = moments / (energy + penalty)[:, None]
        leverage = np.square(turned) @ (1.0 / (energy + penalty))
        residual = (offset - turned @ weights) / np.maximum(1.0 - leverage, 1e-6)[:, None]
        error = float(np.square(residual).mean())
        if best is None or error < best[0]:
            best = (error, float(penalty), weights, offset - residual)
    assert best is not None
    _, penalty, weights, foretold = best
    losses = {s: -float((targets * log_softmax(s * foretold)).sum()) for s in (1.0, 2.0, 4.0, 8.0, 16.0)}
    return Ridge(rotation @ weights, penalty, min(losses, key=lambda s: losses[s]))


def _principal(design: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies (k,) and axes (r, k) of the features' directions, and the rows on them (m, k), by the smaller side."""
    m, r = design.shape
    if r <= m:
        energy, axes = np.linalg.eigh(design.T @ design)
        return np.maximum(energy, 0.0), axes, design @ axes
    energy, left = np.linalg.eigh(design @ design.T)
    keep = energy > 1e-12 * energy.max()
    root = np.sqrt(energy[keep])
    return energy[keep], design.T @ (left[:, keep] / root), left[:, keep] * root
