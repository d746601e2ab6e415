"""Inputs come back from one gradient exactly, and from paired logits better than by guessing the mean."""

import numpy as np
import pytest
from scipy import special
from sklearn.datasets import load_digits

from securekd_attacks import BadSetting, NotFiniteScores, ShapeMismatch, TooFewRecords
from securekd_attacks.attacks.reconstruction import PairedLogitsInversion, invert_gradient


def gradient(inputs, labels, weights, bias):
    """Mean gradient of the log loss of a softmax model, written out."""
    error = special.softmax(inputs @ weights.T + bias, axis=1)
    error[np.arange(len(labels)), labels] -= 1.0
    return error.T @ inputs / len(labels), error.mean(axis=0)


@pytest.mark.parametrize("record", range(5))
def test_one_record_comes_back(record):
    """A real digit and a model that has learned nothing or something: pixel by pixel, and the label too."""
    digits = load_digits()
    inputs, labels = digits.data[record : record + 1] / 16.0, digits.target[record : record + 1]
    rng = np.random.default_rng(61)
    for scale in (0.0, 0.5):
        found = invert_gradient(*gradient(inputs, labels, scale * rng.normal(size=(10, 64)), np.zeros(10)))
        np.testing.assert_allclose(found.inputs, inputs[0], atol=1e-9)
        assert found.label == labels[0]
        assert found.residual < 1e-9


def test_a_local_step_is_a_gradient_times_the_learning_rate():
    digits = load_digits()
    weights, bias = gradient(digits.data[:1], digits.target[:1], np.zeros((10, 64)), np.zeros(10))
    np.testing.assert_allclose(invert_gradient(0.1 * weights, 0.1 * bias).inputs, digits.data[0])


def test_several_records_are_told_from_one():
    digits = load_digits()
    found = invert_gradient(*gradient(digits.data[:8] / 16, digits.target[:8], np.zeros((10, 64)), np.zeros(10)))
    assert found.residual > 0.1
    assert found.label is None


def test_a_sum_over_clients_gives_no_record():
    """Why updates are masked: the sum of 50 clients' gradients is near no client's digit."""
    digits = load_digits()
    inputs, labels = digits.data[:50] / 16, digits.target[:50]
    found = invert_gradient(*gradient(inputs, labels, np.zeros((10, 64)), np.zeros(10)))
    nearest = np.linalg.norm(inputs - found.inputs, axis=1).min()
    assert nearest > 0.5 * np.linalg.norm(inputs - inputs.mean(axis=0), axis=1).min()


@pytest.mark.parametrize(
    ("weights", "bias", "error"),
    [
        (np.zeros((2, 3)), np.zeros(2), BadSetting),
        (np.zeros((2, 3)), np.ones(3), ShapeMismatch),
        (np.zeros(3), np.ones(3), ShapeMismatch),
        (np.full((2, 3), np.nan), np.ones(2), NotFiniteScores),
        (np.zeros((2, 3)), [np.inf, 1.0], NotFiniteScores),
    ],
)
def test_refuses_gradients(weights, bias, error):
    with pytest.raises(error):
        invert_gradient(weights, bias)


def two_models():
    """A client whose linear model was made from private digits, a server's from public ones; public pairs of logits."""
    digits = load_digits()
    inputs, labels = digits.data / 16.0, digits.target
    public, private = labels < 5, labels >= 5
    rng = np.random.default_rng(62)
    client, server = (rng.normal(size=(20, 64)) / 8 for _ in range(2))
    return inputs[public], inputs[private], client, server


def test_pairs_of_logits_give_inputs_away():
    """On digits of classes that the inversion never saw: closer than the mean, and pairs closer than one of the two."""
    public, private, client, server = two_models()

    def error(*matrices):
        first, second = matrices
        attack = PairedLogitsInversion.fit(public @ first.T, public @ second.T, public)
        guesses = attack.invert(private @ first.T, private @ second.T)
        assert guesses.shape == private.shape
        return float(((guesses - private) ** 2).mean())

    mean = float(((public.mean(axis=0) - private) ** 2).mean())
    alone = error(client, client)
    both = error(client, server)
    assert both < alone < mean
    assert both < 0.5 * mean


def test_logits_that_say_nothing_give_the_mean():
    public, _, _, _ = two_models()
    attack = PairedLogitsInversion.fit(np.ones((len(public), 3)), np.ones((len(public), 3)), public)
    np.testing.assert_allclose(attack.invert(np.ones((1, 3)), np.ones((1, 3)))[0], public.mean(axis=0))


def test_refuses_pairs():
    good = np.ones((4, 3))
    with pytest.raises(ShapeMismatch):
        PairedLogitsInversion.fit(good, good[:3], good)
    with pytest.raises(ShapeMismatch):
        PairedLogitsInversion.fit(good, good, good[:3])
    with pytest.raises(TooFewRecords):
        PairedLogitsInversion.fit(good[:1], good[:1], good[:1])
    with pytest.raises(BadSetting):
        PairedLogitsInversion.fit(good, good, good, ridge=0.0)
    with pytest.raises(ShapeMismatch, match="classes"):
        PairedLogitsInversion.fit(good, good, good).invert(np.ones((1, 2)), np.ones((1, 2)))
