"""Teachers of one release: the bound that noise is made for always holds, and skewed clients still say much."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from securekd.learning.smoothing.smoother import centred
from securekd.learning.smoothing.teachers import PublicGraph, public_graph, scaled, sharpened, teacher_scores

NORM = 2.5


@dataclass(frozen=True, eq=False)
class Digits:
    graph: PublicGraph
    transfer_labels: np.ndarray
    private: np.ndarray
    placed: np.ndarray
    labels: np.ndarray

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return teacher_scores(self.graph.coordinates, self.placed[rows], self.labels[rows], classes=10, norm=NORM)

    def cosine(self, scores: np.ndarray) -> float:
        truth = centred(np.eye(10)[self.transfer_labels])
        return float((scores * truth).sum() / np.linalg.norm(scores) / np.linalg.norm(truth))

    def of(self, *classes: int) -> np.ndarray:
        """Twelve examples of each of these classes."""
        return np.concatenate([np.flatnonzero(self.labels == c)[:12] for c in classes])


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = load_digits()
    features, order = data.data / 16.0, np.random.default_rng(0).permutation(len(data.target))
    transfer, private = order[:900], order[900:]
    graph = public_graph(features[transfer])
    placed = graph.place(features[private])
    return Digits(graph, data.target[transfer], features[private], placed, data.target[private])


def ridge_votes(digits: Digits, rows: np.ndarray) -> np.ndarray:
    """One-hot votes of a ridge on the client's own examples."""
    x, y = digits.private[rows], np.eye(10)[digits.labels[rows]] - 0.1
    votes = digits.graph.rows @ (x.T @ np.linalg.solve(x @ x.T + 0.02 * np.eye(len(x)), y))
    return centred(np.eye(10)[votes.argmax(axis=1)])


@given(st.integers(0, 10_000), st.integers(0, 30), st.floats(1e-3, 1e3), st.integers(2, 6))
def test_the_bound_always_holds(seed: int, examples: int, norm: float, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, examples)
    wild = 10.0 ** rng.integers(-6, 6)
    scores = teacher_scores(
        rng.normal(size=(20, 4)), wild * rng.normal(size=(examples, 4)), labels, classes=classes, norm=norm
    )
    assert np.linalg.norm(scores) <= norm
    np.testing.assert_allclose(scores.sum(axis=1), 0.0, atol=1e-9 * norm)


def test_probabilities_are_probabilities() -> None:
    wild = np.random.default_rng(1).normal(scale=3.0, size=(50, 10))
    for held in (np.ones(10, bool), np.arange(10) < 4, np.arange(10) == 7):
        p = sharpened(wild, held)
        assert p.min() >= 0
        np.testing.assert_allclose(p.sum(axis=1), 1.0)
        shared = p[:, ~held]  # by classes that are not held, evenly
        assert held.all() or np.ptp(shared, axis=1).max() < 1e-12


def test_a_client_of_one_class_finds_its_rows(digits: Digits) -> None:
    scores = digits.scores(digits.of(6))
    assert np.linalg.norm(scores) == pytest.approx(NORM)
    found = np.argsort(scores[:, 6])[::-1][:50]
    assert (digits.transfer_labels[found] == 6).mean() > 0.95
    others = np.delete(scores, 6, axis=1)
    assert np.ptp(others, axis=1).max() < 1e-12


def test_a_client_without_examples_sends_zeros(digits: Digits) -> None:
    assert not digits.scores(np.array([], int)).any()
    assert not scaled(np.full((5, 3), 1 / 3), 1.0).any()


def test_a_class_that_nobody_holds_gets_what_others_leave(digits: Digits) -> None:
    scores = digits.scores(digits.of(*range(9)))
    rows = digits.transfer_labels == 9
    assert scores[rows, 9].mean() > scores[~rows, 9].mean()


@pytest.mark.parametrize("classes", [(0,), (1, 8), (2, 3, 5), (0, 4, 6, 7, 9)])
def test_skewed_teachers_beat_votes(digits: Digits, classes: tuple[int, ...]) -> None:
    rows = digits.of(*classes)
    assert digits.cosine(digits.scores(rows)) > digits.cosine(ridge_votes(digits, rows)) + 0.05


def test_a_public_row_is_placed_near_where_it_lies(digits: Digits) -> None:
    jittered = digits.graph.rows + 1e-6
    again, coordinates = digits.graph.place(jittered), digits.graph.coordinates
    correlation = (again * coordinates).mean(axis=0) / np.sqrt(np.square(again).mean(axis=0))
    assert correlation[:10].min() > 0.97
