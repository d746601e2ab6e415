"""Denoising is judged by what it must satisfy, and on real digits with simulated sums."""

import inspect
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.datasets import load_digits

from securekd.learning.smoothing.denoising import Denoised, Recipe, Search, denoise, signal_p_value, thin
from securekd.learning.smoothing.noise_aware import learn, public_kernel, settled
from securekd.learning.smoothing.smoother import (
    Basis,
    centred,
    choose_smoother,
    graph_basis,
    nearest,
    principal_basis,
    public_bases,
    spread,
)

QUICK = Search(splits=2, penalties=(30.0,), sharpnesses=(0.3, 1.0))


@dataclass(frozen=True, eq=False)
class Digits:
    features: np.ndarray
    labels: np.ndarray
    sums: np.ndarray
    bases: tuple[Basis, ...]

    def released(self, deviation: float, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(scale=deviation, size=self.sums.shape)
        return self.sums + noise

    def accuracy(self, scores: np.ndarray) -> float:
        return float((scores.argmax(axis=1) == self.labels).mean())


@pytest.fixture(scope="module")
def digits() -> Digits:
    """Sums of 40 clients' votes, each right on 80% of the rows; class 0 is known to half of them only."""
    data = load_digits()
    rng = np.random.default_rng(0)
    wrong = rng.integers(0, 10, (40, len(data.target)))
    votes = np.where(rng.random(wrong.shape) < 0.8, data.target, wrong)
    one_hot = np.eye(10)[votes]
    one_hot[:20, data.target == 0] = 0.1
    features = data.data / 16.0
    return Digits(features, data.target, one_hot.sum(axis=0), public_bases(features))


def test_steins_estimate_is_unbiased(digits: Digits) -> None:
    truth = centred(digits.sums)
    _, graph = digits.bases
    one_bandwidth = Basis("fixed", graph.vectors[:, :30], np.zeros(30), (1.0,))  # always the same projection
    errors, estimates = [], []
    for seed in range(200):
        smooth = choose_smoother((one_bandwidth,), digits.released(30.0, seed), 30.0**2)
        errors.append(np.square(smooth.scores - truth).mean())
        estimates.append(smooth.risk)
    gap = np.array(estimates) - np.array(errors)
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))
    assert gap.std() / np.sqrt(len(gap)) < 0.05 * np.mean(errors) + 1.0


def test_the_chosen_smoother_is_nearly_the_best(digits: Digits) -> None:
    truth, released = centred(digits.sums), digits.released(40.0, 1)

    def loss(smooth_scores: np.ndarray) -> float:
        return float(np.square(smooth_scores - truth).mean())

    chosen = loss(choose_smoother(digits.bases, released, 40.0**2).scores)
    y = centred(released)
    v = digits.bases[1].vectors
    best = min(loss(v[:, :k] @ (v[:, :k].T @ y)) for k in range(5, 200, 5))
    assert chosen < 1.15 * best
    assert chosen < 0.2 * loss(y)


@pytest.mark.parametrize(("deviation", "most"), [(20.0, 1.0), (60.0, 1.0), (150.0, 1.05)])
def test_averaged_smoothers_against_the_one_of_least_estimated_risk(
    digits: Digits, deviation: float, most: float
) -> None:
    """Ahead where the signal is clear; where it is faint, little is lost."""
    truth, graph = centred(digits.sums), digits.bases[1]
    candidates = [
        1.0 / (1.0 + (graph.roughness / bandwidth) ** power)
        for bandwidth in np.geomspace(graph.roughness[1] / 10.0, 1e4 * graph.roughness[-1], 60)
        for power in graph.powers
    ]
    errors = []
    for seed in range(40):
        released = digits.released(deviation, seed)
        coefficients = graph.vectors.T @ centred(released)
        estimates = [  # Stein's, less what all candidates share
            np.square((1.0 - h)[:, None] * coefficients).sum() + 2.0 * deviation**2 * 9 * h.sum() for h in candidates
        ]
        least = candidates[int(np.argmin(estimates))]
        averaged = choose_smoother((graph,), released, deviation**2)
        assert averaged.gains.min() >= 0.0
        assert averaged.gains.max() <= 1.0 + 1e-12
        alone = graph.vectors @ (least[:, None] * coefficients)
        errors.append([np.square(scores - truth).mean() for scores in (averaged.scores, alone)])
    ours, theirs = np.mean(errors, axis=0)
    assert ours < most * theirs


def test_without_noise_the_least_estimate_alone_counts(digits: Digits) -> None:
    smooth = choose_smoother(digits.bases, digits.sums, 0.0)
    assert np.isfinite(smooth.scores).all()
    assert smooth.gains.min() > 0.99


def test_thinned_copies_are_independent_and_average_to_the_release() -> None:
    rng = np.random.default_rng(0)
    truth = centred(rng.normal(size=(4000, 5)))
    released = truth + centred(rng.normal(scale=2.0, size=truth.shape))
    fit, fit_variance, judge, judge_variance = thin(released, 4.0, 0.2, rng)
    np.testing.assert_allclose(0.8 * fit + 0.2 * judge, released, atol=1e-9)
    assert (fit_variance, judge_variance) == pytest.approx((5.0, 20.0))
    a, b = fit - truth, judge - truth
    entries = truth.size
    assert abs(np.mean(a * b)) < 4 * np.sqrt(5.0 * 20.0 / entries)
    assert np.mean(a**2) * 5 / 4 == pytest.approx(5.0, rel=0.05)  # centred rows have 4 dimensions of 5
    assert np.mean(b**2) * 5 / 4 == pytest.approx(20.0, rel=0.05)


@pytest.mark.parametrize("deviation", [20.0, 60.0])
def test_denoised_labels_beat_arg_max_and_plain_ridge(digits: Digits, deviation: float) -> None:
    gains = []
    for seed in range(3):
        released = digits.released(deviation, seed)
        ridge = choose_smoother(digits.bases[:1], released, deviation**2)
        denoised = denoise(digits.features, released, deviation**2, bases=digits.bases, search=QUICK)
        ours = digits.accuracy(denoised.log_probabilities)
        gains.append([ours - digits.accuracy(released), ours - digits.accuracy(ridge.scores)])
    arg_max, ridge_gain = np.mean(gains, axis=0)
    assert arg_max > 0.05
    assert ridge_gain > 0.01


def test_the_student_is_right_on_rows_it_has_not_seen(digits: Digits) -> None:
    known, new = slice(0, 1200), slice(1200, None)
    released = digits.released(30.0, 5)[known]
    student = learn(digits.features[known], released, 900.0, search=QUICK)
    predicted = student.log_probabilities(digits.features[new])
    assert (predicted.argmax(axis=1) == digits.labels[new]).mean() > 0.93
    np.testing.assert_allclose(np.exp(predicted).sum(axis=1), 1.0)


@pytest.mark.parametrize("deviation", [20.0, 60.0])
def test_settling_repairs_labels_and_leaves_silence_alone(digits: Digits, deviation: float) -> None:
    gains = []
    for seed in range(3):
        released = digits.released(deviation, seed)
        denoised = denoise(digits.features, released, deviation**2, bases=digits.bases, search=QUICK)
        before, after = (d.log_probabilities for d in (denoised, settled(denoised, digits.bases)))
        gains.append(digits.accuracy(after) - digits.accuracy(before))
    assert np.mean(gains) > -0.002
    noise = np.random.default_rng(0).normal(size=digits.sums.shape)
    silent = denoise(digits.features, noise, 1.0, bases=digits.bases, search=QUICK)
    assert settled(silent, digits.bases) is silent
    assert settled(denoised, digits.bases[:1]) is denoised


def test_spreading_corrects_labels_and_needs_few(digits: Digits) -> None:
    rng = np.random.default_rng(2)
    wrong = np.where(rng.random(len(digits.labels)) < 0.2, rng.integers(0, 10, len(digits.labels)), digits.labels)
    everywhere = np.arange(len(digits.labels))
    assert digits.accuracy(spread(digits.bases[1], everywhere, np.eye(10)[wrong])) > 0.94
    few = rng.permutation(everywhere)[:100]
    assert digits.accuracy(spread(digits.bases[1], few, np.eye(10)[digits.labels[few]])) > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_noise_alone_teaches_nothing(digits: Digits, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(scale=7.0, size=digits.sums.shape)
    denoised = denoise(digits.features, noise, 49.0, bases=digits.bases, search=QUICK)
    assert denoised.method == "uniform"
    np.testing.assert_allclose(denoised.log_probabilities, -np.log(10), atol=1e-9)


def test_the_gate_closes_as_the_signal_fades(digits: Digits) -> None:
    faint = [
        denoise(digits.features, digits.released(d, 0), d**2, bases=digits.bases, search=QUICK)
        for d in (10.0, 60.0, 5000.0)
    ]
    assert [d.method == "uniform" for d in faint] == [False, False, True]
    assert faint[0].evidence > max(faint[1].evidence, faint[2].evidence)
    assert faint[0].p_value < faint[1].p_value < QUICK.level <= faint[2].p_value


def test_noise_passes_for_signal_as_rarely_as_is_said(digits: Digits) -> None:
    rng = np.random.default_rng(0)
    p_values = [signal_p_value(digits.bases, rng.normal(size=digits.sums.shape), 1.0) for _ in range(300)]
    for level in (0.05, 0.2):
        passed = np.mean(np.array(p_values) < level)
        assert passed < level + 3 * np.sqrt(level * (1 - level) / 300)
    assert min(p_values) < 0.2  # and it is a test, not a constant


def test_the_mixture_wins_where_it_is_true_and_a_row_says_more_than_its_neighbours() -> None:
    """Features that tell nothing: only each row's own scores do, which the evidence recipes use."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 600)
    features, templates = rng.normal(size=(600, 4)), 3.0 * np.eye(3)
    released = templates[labels] + rng.normal(size=(600, 3))
    denoised = denoise(features, released, 1.0, search=QUICK)
    assert denoised.recipe.evidence
    assert (denoised.log_probabilities.argmax(axis=1) == labels).mean() > 0.95


def test_without_noise_nothing_is_lost(digits: Digits) -> None:
    denoised = denoise(digits.features, digits.sums, 0.0, bases=digits.bases, search=QUICK)
    assert np.isfinite(denoised.log_probabilities).all()
    assert digits.accuracy(denoised.log_probabilities) > 0.97


@pytest.mark.parametrize("released", [np.zeros((40, 3)), np.ones((40, 3)), np.tile([1.0, 2.0, 3.0], (40, 1))])
@pytest.mark.parametrize("variance", [0.0, 1.0])
def test_degenerate_scores_give_finite_probabilities(released: np.ndarray, variance: float) -> None:
    features = np.random.default_rng(0).normal(size=(40, 6))
    for public in (features, np.ones_like(features)):  # all rows the same: a graph without distances
        denoised = denoise(public, released, variance, search=QUICK)
        assert np.isfinite(denoised.log_probabilities).all()
        np.testing.assert_allclose(np.exp(denoised.log_probabilities).sum(axis=1), 1.0, atol=1e-6)


def test_order_of_rows_and_names_of_classes_do_not_matter(digits: Digits) -> None:
    features = digits.features + np.random.default_rng(0).normal(scale=1e-3, size=digits.features.shape)  # no ties
    bases = public_bases(features)
    rows = np.random.default_rng(1).permutation(len(digits.labels))
    classes = np.random.default_rng(2).permutation(10)
    released = digits.released(30.0, 2)
    plain = choose_smoother(bases, released, 900.0).scores
    moved_bases = public_bases(features[rows])
    moved = choose_smoother(moved_bases, released[rows][:, classes], 900.0).scores
    np.testing.assert_allclose(moved, plain[rows][:, classes], atol=1e-3 * np.abs(plain).max())
    one = denoise(features, released, 900.0, bases=bases, search=QUICK)
    other = denoise(features[rows], released[rows][:, classes], 900.0, bases=moved_bases, search=QUICK)
    agree = one.log_probabilities[rows][:, classes].argmax(axis=1) == other.log_probabilities.argmax(axis=1)
    assert agree.mean() > 0.98  # the thinning noise falls differently


def test_scale_and_offset_of_the_release_do_not_matter(digits: Digits) -> None:
    released = digits.released(30.0, 3)
    one = denoise(digits.features, released, 900.0, bases=digits.bases, search=QUICK)
    other = denoise(digits.features, released / 40.0 + 7.0, 900.0 / 1600.0, bases=digits.bases, search=QUICK)
    assert one.recipe == other.recipe
    np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-3)


def test_it_is_a_function_of_public_features_and_the_release(digits: Digits) -> None:
    """Post-processing: nothing else goes in, and the same goes in the same comes out."""
    assert list(inspect.signature(learn).parameters)[:3] == ["transfer", "released", "noise_variance"]
    one, other = (
        denoise(digits.features, digits.released(30.0, 4), 900.0, bases=digits.bases, search=QUICK) for _ in range(2)
    )
    np.testing.assert_array_equal(one.log_probabilities, other.log_probabilities)


@pytest.mark.parametrize(
    ("features", "released", "variance"),
    [
        (np.zeros((5, 2)), np.zeros((4, 3)), 1.0),
        (np.zeros((5, 2)), np.zeros((5, 1)), 1.0),
        (np.zeros((5, 2)), np.full((5, 3), np.nan), 1.0),
        (np.full((5, 2), np.inf), np.zeros((5, 3)), 1.0),
        (np.zeros((5, 2)), np.zeros((5, 3)), -1.0),
        (np.zeros((5, 2)), np.zeros((5, 3)), np.nan),
    ],
)
def test_bad_input_is_refused(features: np.ndarray, released: np.ndarray, variance: float) -> None:
    with pytest.raises(ValueError, match="not|none"):
        denoise(features, released, variance)


@pytest.mark.parametrize("make", [principal_basis, graph_basis])
def test_bases_are_orthonormal_and_smoothest_first(digits: Digits, make) -> None:  # type: ignore[no-untyped-def]
    basis = make(digits.features, size=50)
    np.testing.assert_allclose(basis.vectors.T @ basis.vectors, np.eye(basis.vectors.shape[1]), atol=1e-6)
    assert (np.diff(basis.roughness) >= -1e-9).all()


def test_nearest_equals_the_naive_search() -> None:
    rng = np.random.default_rng(0)
    queries, rows = rng.normal(size=(30, 4)), rng.normal(size=(50, 4))
    index, squares = nearest(queries, rows, 6)
    naive = np.square(queries[:, None] - rows[None]).sum(axis=2)
    np.testing.assert_array_equal(index, np.argsort(naive, axis=1)[:, :6])
    np.testing.assert_allclose(squares, np.sort(naive, axis=1)[:, :6])


def test_the_kernel_of_landmarks_is_the_kernel_where_all_rows_are_landmarks(digits: Digits) -> None:
    rows = digits.features[:60]
    kernel = public_kernel(rows)
    naive = np.exp(-np.square(rows[:, None] - rows[None]).sum(axis=2) / kernel.landmarks.bandwidth)
    np.testing.assert_allclose(kernel.design @ kernel.design.T, naive, atol=1e-4)
    np.testing.assert_allclose(kernel.map(rows), kernel.design, atol=1e-6)


def test_recipes_are_ordered_from_simple_to_elaborate() -> None:
    assert isinstance(Denoised.method, property)
    assert Recipe("em", 1.0) < Recipe("em", 2.0)
