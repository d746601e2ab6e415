"""Signals against the papers' formulas, computed by hand or in the obvious way, and at the edges of the input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from securekd_attacks import BadLabels, BadProbabilities, ShapeMismatch, TooFewRecords, signals

LABELLED = [signals.cross_entropy_loss, signals.modified_entropy, signals.scaled_logit]


def logs(*rows):
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows))


def random_log_probs(seed, records=50, classes=7, scale=5.0):
    rng = np.random.default_rng(seed)
    return special.log_softmax(scale * rng.normal(size=(records, classes)), axis=1), rng.integers(
        0, classes, size=records
    )


def call(signal, log_probs, labels):
    return signal(log_probs) if signal is signals.entropy else signal(log_probs, labels)


def test_by_hand():
    log_probs, labels = logs([0.5, 0.25, 0.25], [0.1, 0.8, 0.1]), np.array([0, 2])
    assert signals.cross_entropy_loss(log_probs, labels) == pytest.approx([math.log(2), math.log(10)])
    assert signals.entropy(log_probs)[0] == pytest.approx(1.5 * math.log(2))
    assert signals.scaled_logit(log_probs, labels) == pytest.approx([0.0, math.log(0.1 / 0.9)])
    first = -0.5 * math.log(0.5) - 2 * 0.25 * math.log(0.75)
    second = -0.9 * math.log(0.1) - 0.1 * math.log(0.9) - 0.8 * math.log(0.2)
    assert signals.modified_entropy(log_probs, labels) == pytest.approx([first, second])


def test_equal_to_the_formulas_written_out():
    log_probs, labels = random_log_probs(1)
    for row, label, loss, spread, modified, logit in zip(
        np.exp(log_probs),
        labels,
        signals.cross_entropy_loss(log_probs, labels),
        signals.entropy(log_probs),
        signals.modified_entropy(log_probs, labels),
        signals.scaled_logit(log_probs, labels),
        strict=True,
    ):
        own = row[label]
        others = [p for index, p in enumerate(row) if index != label]
        assert loss == pytest.approx(-math.log(own))
        assert spread == pytest.approx(-sum(p * math.log(p) for p in row))
        assert modified == pytest.approx(
            -(1 - own) * math.log(own) - sum(p * math.log(1 - p) for p in others), rel=1e-6
        )
        assert logit == pytest.approx(math.log(own) - math.log(sum(others)), rel=1e-6)


def test_zero_probability_is_legal_and_finite():
    log_probs = logs([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0])
    labels = np.array([0, 1, 2])
    cut = signals.LOG_ZERO
    assert signals.cross_entropy_loss(log_probs, labels) == pytest.approx([0.0, -cut, -cut])
    assert signals.entropy(log_probs) == pytest.approx([0.0, 0.0, math.log(2)])
    assert signals.scaled_logit(log_probs, labels) == pytest.approx([-cut, cut, cut])
    assert signals.modified_entropy(log_probs, labels) == pytest.approx([0.0, -2 * cut, -cut + math.log(2)])


def test_zero_probability_never_ranks_above_a_small_one():
    log_probs = np.array([[-np.inf, 0.0], [-5000.0, 0.0], [-700.0, 0.0], [-600.0, 0.0]])
    loss = signals.cross_entropy_loss(log_probs, np.zeros(4, dtype=int))
    assert np.all(np.diff(loss) <= 0)
    assert loss[2] > loss[3]


def test_confident_predictions_keep_their_digits():
    """1 − p_y is lost when p_y rounds to one; the sum over the other classes is not."""
    for gap in (40.0, 60.0, 200.0, 700.0):
        log_probs = special.log_softmax(np.array([[gap, 0.0, 0.0]]), axis=1)
        assert log_probs[0, 0] == 0.0
        assert signals.scaled_logit(log_probs, [0])[0] == pytest.approx(gap - math.log(2))
        assert signals.scaled_logit(log_probs, [1])[0] == pytest.approx(-gap)
        mistaken = 2 * gap - math.log(2)  # −log p_y − log(1 − p_top)
        assert signals.modified_entropy(log_probs, [1])[0] == pytest.approx(mistaken)


def test_entropy_is_blind_to_the_label_and_modified_entropy_is_not():
    log_probs = logs([0.98, 0.01, 0.01], [0.98, 0.01, 0.01])
    right, wrong = signals.modified_entropy(log_probs, [0, 1])
    assert right < 0.1 < 3 < wrong


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.floats(0.0, 300.0))
def test_ranges(seed, classes, scale):
    log_probs, labels = random_log_probs(seed, records=8, classes=classes, scale=scale)
    for signal in (*LABELLED, signals.entropy):
        values = call(signal, log_probs, labels)
        assert values.shape == (8,)
        assert values.dtype == np.float64
        assert np.all(np.isfinite(values))
    assert np.all(signals.cross_entropy_loss(log_probs, labels) >= 0)
    assert np.all(signals.entropy(log_probs) <= math.log(classes) + 1e-9)
    assert np.all(signals.modified_entropy(log_probs, labels) >= 0)


def test_two_classes_logit_turns_sign_with_the_label():
    log_probs, _ = random_log_probs(3, classes=2)
    zeros = np.zeros(50, dtype=int)
    np.testing.assert_allclose(
        signals.scaled_logit(log_probs, zeros), -signals.scaled_logit(log_probs, zeros + 1), rtol=1e-12
    )


def test_float32_agrees_with_float64():
    log_probs, labels = random_log_probs(4)
    for signal in (*LABELLED, signals.entropy):
        np.testing.assert_allclose(
            call(signal, log_probs.astype(np.float32), labels), call(signal, log_probs, labels), rtol=1e-4, atol=1e-6
        )


def test_input_is_left_alone():
    log_probs, labels = random_log_probs(5)
    before = log_probs.copy()
    for signal in (*LABELLED, signals.entropy):
        call(signal, log_probs, labels)
    np.testing.assert_array_equal(log_probs, before)


@pytest.mark.parametrize("signal", [*LABELLED, signals.entropy])
@pytest.mark.parametrize(
    ("log_probs", "error", "names"),
    [
        ([[0.0, np.nan]], BadProbabilities, "nan"),
        ([[-0.7, np.inf]], BadProbabilities, "inf"),
        ([[-np.inf, -np.inf]], BadProbabilities, "sum to one"),
        ([[0.5, 0.5]], BadProbabilities, "log_softmax"),
        ([[900.0, 1.0]], BadProbabilities, "inf"),
        ([[0, 1]], BadProbabilities, "float"),
        ([-0.7, -0.7], ShapeMismatch, "2,"),
        ([[0.0]], ShapeMismatch, "1, 1"),
    ],
)
def test_refuses_what_is_no_log_distribution(signal, log_probs, error, names):
    with pytest.raises(error, match=names):
        call(signal, np.array(log_probs), [0])


def test_refusal_names_the_row():
    log_probs, labels = random_log_probs(6)
    log_probs[17] += 1e-3
    with pytest.raises(BadProbabilities, match="row 17") as caught:
        signals.cross_entropy_loss(log_probs, labels)
    assert caught.value.value == pytest.approx(math.exp(1e-3))


@pytest.mark.parametrize("signal", LABELLED)
@pytest.mark.parametrize(
    ("labels", "error"),
    [
        ([0, 7], BadLabels),
        ([0, -1], BadLabels),
        ([0.0, 1.0], BadLabels),
        ([True, False], BadLabels),
        ([0], ShapeMismatch),
    ],
)
def test_refuses_bad_labels(signal, labels, error):
    log_probs, _ = random_log_probs(7, records=2)
    with pytest.raises(error):
        signal(log_probs, np.array(labels))


def test_refuses_no_records():
    with pytest.raises(TooFewRecords):
        signals.entropy(np.empty((0, 3)))
