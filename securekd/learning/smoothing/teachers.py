"""A client's teacher for one release under client-level privacy: few own examples, and the public transfer set.

A client with some hundred examples, of few classes maybe, labels a transfer set badly if it learns from them alone.
The transfer set itself says much: its rows' nearest-neighbour graph has some thirty smooth directions that hold nearly
all of what classes are (Belkin and Niyogi 2004). A client only has to say where its classes lie in them, for which a
class mean each suffices. It sees its own rows and public ones, and what it gives has a norm that noise is made for.
"""

from dataclasses import dataclass

import numpy as np

from securekd.learning.smoothing.smoother import Graph, nearest, neighbour_graph, own_scale


@dataclass(frozen=True, eq=False)
class PublicGraph:
    """Smooth coordinates of public rows, and of any other row by its neighbours among them.

    Attributes:
        rows: public features (m, p).
        graph: their neighbours.
        eigenvalues: (K,), of the random walk on the graph, descending from 1.
        coordinates: its eigenvectors (m, K), each with a mean square of 1.
        neighbours: rows that place another row.
    """

    rows: np.ndarray
    graph: Graph
    eigenvalues: np.ndarray
    coordinates: np.ndarray
    neighbours: int

    def place(self, features: np.ndarray) -> np.ndarray:
        """Coordinates (n, K) of other rows (n, p), by Nyström's extension (Bengio et al. 2004).

        An eigenvector of the random walk is the mean over neighbours, divided by the eigenvalue; so is a new row's.
        """
        index, squares = nearest(features, self.rows, self.neighbours)
        weights = np.exp(-squares / (own_scale(squares)[:, None] * self.graph.scale[index]))
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
        return np.asarray(np.einsum("nk,nkd->nd", weights, self.coordinates[index]) / self.eigenvalues)


def public_graph(features: np.ndarray, *, neighbours: int = 10, size: int = 30) -> PublicGraph:
    """The first `size` smooth coordinates of public rows (m, p), the constant one included."""
    graph = neighbour_graph(features, neighbours)
    values, vectors = graph.eigenvectors(min(size, max(1, len(features) // 3)))
    walk = vectors / np.sqrt(graph.degree)[:, None]
    coordinates = walk / np.sqrt(np.square(walk).mean(axis=0))
    return PublicGraph(features, graph, np.maximum(values, 1e-3), coordinates, min(neighbours, len(features)))


def prototype_scores(transfer: np.ndarray, own: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Least squares on class indicators, with the second moments of the transfer set: P_c(x) = ⟨mean of class c, x⟩/C.

    Coordinates have about the identity for second moments on the transfer set, and classes are taken to be equally
    frequent there; so a class' scores need no example of any other class, which a skewed client does not have.

    Args:
        transfer: coordinates of the transfer set (m, K).
        own: the client's (n, K); n may be 0.
        labels: its classes (n,).
        classes: C.

    Returns:
        (m, C); 0 for classes that the client does not hold.
    """
    counts = np.bincount(labels, minlength=classes)
    sums = np.eye(classes)[labels].T @ own
    return np.asarray(transfer @ (sums / np.maximum(counts, 1)[:, None]).T / classes)


def sharpened(scores: np.ndarray, held: np.ndarray, *, slope: float = 3.0, midpoint: float = 0.4) -> np.ndarray:
    """Probabilities (m, C) from prototype scores: steeper, and what held classes leave goes evenly to all others.

    Args:
        scores: (m, C).
        held: whether the client holds the class (C,), bool.
        slope: of the clipped line that takes scores to probabilities.
        midpoint: the score that becomes 1/2.
    """
    p = np.clip(slope * (scores - midpoint) + 0.5, 0.0, 1.0) * held
    p = p / np.maximum(p.sum(axis=1, keepdims=True), 1.0)
    rest = np.maximum(1.0 - p.sum(axis=1, keepdims=True), 0.0)
    if not held.all():
        return np.asarray(p + rest * ~held / np.count_nonzero(~held))
    sums = p.sum(axis=1, keepdims=True)
    return np.where(sums > 0, p / np.where(sums > 0, sums, 1.0), 1.0 / len(held))


def scaled(probabilities: np.ndarray, norm: float) -> np.ndarray:
    """Centred rows (m, C), the whole matrix brought to the Frobenius norm `norm`; zeros stay zeros.

    The longest matrix within the bound has the most signal for the noise that the bound costs; a client's confidence
    in one row then counts against that in its others, and not against the noise.
    """
    offset = probabilities - probabilities.mean(axis=1, keepdims=True)
    length = float(np.linalg.norm(offset))
    # A hair under the bound, which rounding may not exceed.
    return np.asarray(offset * (norm * (1.0 - 1e-12) / length)) if length > 1e-9 else np.zeros_like(offset)


def teacher_scores(
    transfer: np.ndarray, own: np.ndarray, labels: np.ndarray, *, classes: int, norm: float
) -> np.ndarray:
    """What one client releases before noise: scores (m, C) of Frobenius norm `norm`, or zeros if it has no example.

    Args:
        transfer: coordinates of the transfer set (m, K).
        own: coordinates of the client's examples (n, K).
        labels: their classes (n,).
        classes: C.
        norm: B, the bound of the release.
    """
    held = np.bincount(labels, minlength=classes) > 0
    if not held.any():
        return np.zeros((len(transfer), classes))
    return scaled(sharpened(prototype_scores(transfer, own, labels, classes), held), norm)
