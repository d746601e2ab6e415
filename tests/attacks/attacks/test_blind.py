"""The blind classifier: silent where both sides are alike, loud where they are not, whatever the attack says."""

import math

import numpy as np
import pytest

from securekd_attacks import (
    BadSetting,
    LossAttack,
    NotFiniteScores,
    ShapeMismatch,
    Signals,
    TooFewRecords,
    auc,
    membership_scores,
)
from securekd_attacks.attacks.blind import blind_baseline
from securekd_attacks.attacks.logistic import Logistic
from securekd_attacks.signals.features import text_features


def flags(draw, seeds, root):
    raised = 0
    for seed, rng in enumerate(np.random.default_rng(root).spawn(seeds)):
        raised += blind_baseline(*draw(rng), seed=seed).distribution_shift
    return raised / seeds


def allowed(seeds, rate=0.05):
    return rate + 3 * math.sqrt(rate * (1 - rate) / seeds)


@pytest.mark.parametrize(("records", "features"), [(200, 3), (200, 30)])
def test_alike_sides_are_rarely_flagged(records, features):
    """300 seeds, root 91: at most 5% and three standard errors."""
    draw = lambda rng: (rng.normal(size=(records, features)), rng.normal(size=(records, features)))  # noqa: E731
    assert flags(draw, 300, 91) <= allowed(300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("records", "features", "seeds"), [(50, 5, 1000), (200, 10, 1000), (200, 100, 300), (500, 20, 500), (2000, 20, 200)]
)
def test_alike_sides_are_rarely_flagged_over_many_seeds(records, features, seeds):
    draw = lambda rng: (rng.normal(size=(records, features)), rng.normal(size=(records, features)))  # noqa: E731
    assert flags(draw, seeds, 92) <= allowed(seeds)


def test_a_shift_is_flagged():
    """A third of a standard deviation in one of ten features, 1,000 a side: in each of 20 seeds."""
    shifted = np.zeros(10)
    shifted[4] = 1 / 3
    draw = lambda rng: (rng.normal(size=(1000, 10)), rng.normal(size=(1000, 10)) + shifted)  # noqa: E731
    assert flags(draw, 20, 93) == 1.0


def test_an_untrained_model_with_shifted_non_members_makes_no_claim():
    """The model has seen nothing, the loss attack "works" all the same, and the flag says why."""
    rng = np.random.default_rng(94)
    weights = rng.normal(size=(8, 3))

    def side(shift):
        inputs = rng.normal(size=(1000, 8)) + shift * weights[:, 0] / np.linalg.norm(weights[:, 0])
        logits = inputs @ weights
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return inputs, Signals(log_probs, np.zeros(1000, dtype=int))

    (inside, members), (outside, nonmembers) = side(0.5), side(0.0)
    scores = membership_scores(LossAttack(), members, nonmembers)
    assert auc(scores.members, scores.nonmembers).low > 0.55
    found = blind_baseline(inside, outside, seed=0)
    assert found.distribution_shift
    assert found.auc.low > 0.5


def test_texts_of_another_period_are_flagged_and_alike_ones_are_not():
    rng = np.random.default_rng(95)
    old, new = (["thee", "thou", "hath", "the", "and"], ["you", "your", "has", "the", "and"])
    write = lambda words: [" ".join(rng.choice(words, size=12)) for _ in range(150)]  # noqa: E731
    assert blind_baseline(text_features(write(old)), text_features(write(new)), seed=1).distribution_shift
    assert not blind_baseline(text_features(write(old)), text_features(write(old)), seed=1).distribution_shift


def test_text_features_by_hand():
    features = text_features(["abcabc", "", "ab"], width=16)
    assert features.shape == (3, 17)
    assert features[0, :16].sum() == pytest.approx(1.0)
    assert features[1].sum() == 0.0
    assert features[2, 16] == pytest.approx(math.log(3))
    with pytest.raises(TooFewRecords):
        text_features([])
    with pytest.raises(BadSetting):
        text_features(["a"], width=0)


def test_same_seed_same_figure():
    rng = np.random.default_rng(96)
    sides = rng.normal(size=(100, 4)), rng.normal(size=(80, 4))
    assert blind_baseline(*sides, seed=3) == blind_baseline(*sides, seed=3)


def test_refuses():
    good = np.random.default_rng(97).normal(size=(20, 2))
    with pytest.raises(ShapeMismatch):
        blind_baseline(good, good[:, :1], seed=0)
    with pytest.raises(ShapeMismatch):
        blind_baseline(good[:, 0], good, seed=0)
    with pytest.raises(NotFiniteScores):
        blind_baseline(np.where(good == good[0, 0], np.nan, good), good, seed=0)
    with pytest.raises(TooFewRecords):
        blind_baseline(good[:9], good, seed=0)
    for bad in ({"folds": 1}, {"confidence": 1.0}, {"ridge": 0.0}):
        with pytest.raises(BadSetting):
            blind_baseline(good, good, seed=0, **bad)


def test_logistic_meets_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(98)
    features = rng.normal(size=(300, 4)) * [1, 10, 0.1, 1] + [0, 5, 0, 0]
    labels = (features[:, 0] + rng.normal(size=300) > 0).astype(float)
    ours = Logistic.fit(features, labels, ridge=2.0)
    standard = (features - features.mean(0)) / features.std(0)
    theirs = LogisticRegression(C=0.5, tol=1e-10).fit(standard, labels)
    np.testing.assert_allclose(ours.weights, theirs.coef_[0], atol=1e-3)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=0.02)  # ours has two pseudo-records


def test_logistic_stays_finite_when_separated_or_constant():
    features = np.repeat([[1.0, 7.0], [-1.0, 7.0]], 50, axis=0)
    labels = np.repeat([1.0, 0.0], 50)
    found = Logistic.fit(features, labels, ridge=1e-6)
    assert np.all(np.isfinite(found.weights))
    assert found.logits(features)[0] > 5 > -5 > found.logits(features)[-1]
    one_sided = Logistic.fit(features, np.ones(100))
    assert np.all(np.isfinite(one_sided.logits(features)))
