"""Linear smoothing of noisy scores on the transfer set, in bases made of public features.

Classes are smooth functions of the rows: neighbours mostly share a class. So a few directions carry nearly all of the
signal, while noise spreads evenly over all m of them; a smoother keeps the former. Bases are principal components, and
the first eigenvectors of a nearest-neighbour graph (Belkin and Niyogi 2004, "Semi-supervised learning on Riemannian
manifolds"), in which the classes of many data sets need a tenth as many directions. Which basis, and how much each
number of directions counts, is settled by Stein's unbiased estimate of the risk (Stein 1981; for ridge penalties Li
1985): with the noise variance known, it needs no labels and no second data set. Everything is post-processing of what
was released.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import eigsh

# Squared distances are computed for so many entries at a time.
BLOCK = 1 << 24


@dataclass(frozen=True, eq=False)
class Basis:
    """Directions in which public rows are smooth.

    Attributes:
        name: what it was made of.
        vectors: orthonormal columns (m, K), smoothest first.
        roughness: (K,), non-negative and ascending: how little a direction is to be believed.
        powers: exponents of the roughness that a smoother may take.
    """

    name: str
    vectors: np.ndarray
    roughness: np.ndarray
    powers: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Smooth:
    """A linear smoother's answer.

    Attributes:
        basis: the one that was chosen.
        gains: (K,) in [0, 1]: what is kept of each coefficient, on average over bandwidths.
        scores: smoothed scores (m, C), centred.
        risk: Stein's estimate of the mean squared error of an entry, at these gains.
    """

    basis: Basis
    gains: np.ndarray
    scores: np.ndarray
    risk: float


def public_bases(features: np.ndarray, *, neighbours: int = 10, size: int = 300) -> tuple[Basis, ...]:
    """Bases of functions on the transfer set's rows, from their features (m, p) alone."""
    return principal_basis(features, size=size), graph_basis(features, neighbours=neighbours, size=size)


def principal_basis(features: np.ndarray, *, size: int = 300) -> Basis:
    """The constant and the principal components; roughness 1/eigenvalue makes the gains those of ridge regression."""
    m = len(features)
    x = features - features.mean(axis=0)
    values, axes = np.linalg.eigh(x.T @ x)
    keep = np.argsort(values)[::-1][: min(size, m - 1)]
    keep = keep[values[keep] > 1e-8 * max(values.max(), 1e-300)]
    vectors = np.column_stack([np.full(m, m**-0.5), x @ axes[:, keep] / np.sqrt(values[keep])])
    return Basis("principal", vectors, np.append(0.0, values.max(initial=1.0) / values[keep]), (1.0,))


def graph_basis(features: np.ndarray, *, neighbours: int = 10, size: int = 300) -> Basis:
    """Eigenvectors of the normalised nearest-neighbour graph; roughness: eigenvalues of its Laplacian."""
    values, vectors = neighbour_graph(features, neighbours).eigenvectors(min(size, max(1, len(features) // 3)))
    return Basis("graph", vectors, np.maximum(1.0 - values, 0.0), (1.0, 2.0, 4.0, 8.0))


@dataclass(frozen=True, eq=False)
class Graph:
    """Who is near to whom among public rows.

    Attributes:
        scale: each row's own distance (m,), to its seventh neighbour (Zelnik-Manor and Perona 2004).
        weights: symmetric sparse (m, m): exp(-d²/(s_i s_j)) between neighbours.
        degree: sums of the weights' rows (m,).
    """

    scale: np.ndarray
    weights: csr_matrix
    degree: np.ndarray

    def eigenvectors(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest eigenvalues (K,) of D^-1/2 W D^-1/2, descending, and their eigenvectors (m, K)."""
        root = diags(self.degree**-0.5)
        start = np.random.default_rng(0).standard_normal(len(self.degree))
        values, vectors = eigsh(root @ self.weights @ root, k=size, which="LA", v0=start)
        order = np.argsort(values)[::-1]
        return values[order], vectors[:, order]


def neighbour_graph(features: np.ndarray, neighbours: int = 10) -> Graph:
    """The graph of the rows' nearest neighbours, from features (m, p)."""
    m = len(features)
    count = min(neighbours, m - 1)
    index, squares = nearest(features, features, count + 1)
    index, squares = index[:, 1:], squares[:, 1:]
    scale = own_scale(squares)
    weights = np.exp(-squares / (scale[:, None] * scale[index]))
    graph = coo_matrix((weights.ravel(), (np.repeat(np.arange(m), count), index.ravel())), shape=(m, m)).tocsr()
    graph = graph.maximum(graph.T)
    return Graph(scale, graph, np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-300))


def own_scale(squares: np.ndarray) -> np.ndarray:
    """Distance (n,) to the seventh neighbour, or the last, from squared distances (n, k) in ascending order."""
    return np.asarray(np.sqrt(np.maximum(squares[:, min(6, squares.shape[1] - 1)], 1e-300)))


def nearest(queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and squared distances (n, count) of each query's nearest rows, nearest first."""
    rows_t, half = np.ascontiguousarray(rows.T), 0.5 * np.square(rows).sum(axis=1)
    step = max(1, BLOCK // len(rows))
    index, squares = [], []
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        distance = half - part @ rows_t
        near = np.argpartition(distance, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(near, np.take_along_axis(distance, near, 1).argsort(axis=1, kind="stable"), 1)
        index.append(near)
        twice = 2.0 * np.take_along_axis(distance, near, 1) + np.square(part).sum(axis=1, keepdims=True)
        squares.append(np.maximum(twice, 0.0))
    return np.concatenate(index), np.concatenate(squares).astype(np.float64)


def choose_smoother(bases: Sequence[Basis], released: np.ndarray, noise_variance: float) -> Smooth:
    """The basis of least estimated risk, and an average of all its bandwidths and powers.

    With coefficients b = Vᵀy and gains h, Stein's estimate of E‖VhVᵀy - truth‖² is
    ‖y‖² - Σ h(2-h)‖b‖² + σ²(C-1)(2 Σ h - m): row-centred scores have C-1 dimensions. Each candidate counts with weight
    exp(-estimate/4σ²) (Leung and Barron 2006). To take the least estimate alone is a gamble: it often cuts by a hair's
    breadth the one direction that tells a part of a class from its neighbours, and that whole part is then lost.
    """
    y = centred(released)
    best: tuple[float, Basis, np.ndarray, np.ndarray] | None = None
    for basis in bases:
        gains = np.stack(list(_gains(basis)))
        risks = _risks(basis, gains, y, noise_variance)
        if best is None or risks.min() < best[0]:
            best = (float(risks.min()), basis, gains, risks)
    if best is None:
        raise ValueError("no basis was given")
    least, basis, gains, risks = best
    weights = np.exp(-(risks - least) / (4.0 * noise_variance)) if noise_variance > 0 else 1.0 * (risks == least)
    averaged = weights @ gains / weights.sum()
    scores = basis.vectors @ (averaged[:, None] * (basis.vectors.T @ y))
    return Smooth(basis, averaged, scores, float(_risks(basis, averaged[None], y, noise_variance)[0]) / y.size)


def _risks(basis: Basis, gains: np.ndarray, y: np.ndarray, noise_variance: float) -> np.ndarray:
    """Stein's estimate of the summed squared error (n,) for each of n gains (n, K), of centred scores y (m, C)."""
    m, dimensions = len(y), y.shape[1] - 1
    energy = np.square(basis.vectors.T @ y).sum(axis=1)
    kept = np.square(y).sum() - (gains * (2.0 - gains)) @ energy
    return np.asarray(kept + noise_variance * dimensions * (2.0 * gains.sum(axis=1) - m))


def spread(basis: Basis, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Scores (m, C) of all rows from targets of some: ridge regression in a basis' first directions.

    How many directions, and the penalty on their roughness, are those with which each target is best foretold by the
    others (leave-one-out, Allen 1974). Targets may be noisy labels: nothing needs to be known of their errors.

    Args:
        basis: with an ascending roughness.
        rows: indices of rows (n,).
        targets: what they are to score (n, C).
    """
    best: tuple[float, np.ndarray] | None = None
    for size in sorted({min(size, basis.vectors.shape[1]) for size in (10, 20, 30, 50, 100)}):
        directions = basis.vectors[:, :size] * len(basis.vectors) ** 0.5
        x, rough = directions[rows], np.diag(basis.roughness[:size] + 1e-3)
        for strength in (0.3, 3.0, 30.0, 300.0):
            inverse = np.linalg.inv(x.T @ x + strength * rough)
            weights = inverse @ (x.T @ targets)
            leverage = (x @ inverse * x).sum(axis=1)
            residual = (targets - x @ weights) / np.maximum(1.0 - leverage, 1e-6)[:, None]
            error = float(np.square(residual).mean())
            if best is None or error < best[0]:
                best = (error, directions @ weights)
    assert best is not None
    return best[1]


def _gains(basis: Basis) -> Iterator[np.ndarray]:
    positive = basis.roughness[basis.roughness > 1e-12]
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    for bandwidth in np.geomspace(low / 10.0, 1e4 * high, 60):
        for power in basis.powers:
            yield 1.0 / (1.0 + (basis.roughness / bandwidth) ** power)


def centred(scores: np.ndarray) -> np.ndarray:
    """Scores (m, C) less each row's mean."""
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))
