"""The best test on releases meets its analytic curve at every point, and missing noise is noticed."""

import math

import numpy as np
import pytest

from securekd_attacks import (
    BadCounts,
    BadSetting,
    NotFiniteScores,
    ReleaseNotSeen,
    ShapeMismatch,
    TooFewRecords,
    auc,
    bounds,
    tpr_at_fpr,
)
from securekd_attacks.attacks.releases import (
    check_release,
    coop_lira_scores,
    distillation_lira_scores,
    release_mu,
    release_scores,
)

POINTS = [(1, 0, 1), (10, 0, 1), (10, 5, 1), (100, 0, 1), (100, 0, 30), (10, 9, 4)]


def trials(rng, count, clients, colluders, rounds, *, clip=1.0, silent=0, coordinates=6):
    """What an adversary sees of a sum: honest clients' noise; the record's direction has length `clip`, Δ = 1."""
    direction = np.array([3.0, -4.0, 0, 0, 0, 0])[:coordinates] / 5.0
    mean = rng.normal(size=coordinates)
    sigma = math.sqrt(clients - colluders - silent)
    noise = sigma * rng.normal(size=(2, count, rounds, coordinates))
    inside, outside = mean + noise[0] + clip * direction, mean + noise[1]
    stated = math.sqrt(clients - colluders)
    return [release_scores(each, mean, np.tile(direction, (rounds, 1)), stated) for each in (inside, outside)]


@pytest.mark.parametrize(("clients", "epsilon"), [(1, 4.377), (10, 1.199), (100, 0.341)])
def test_published(clients, epsilon):
    assert bounds.gaussian_epsilon(release_mu(1.0, 1.0, clients), 1e-5) == pytest.approx(epsilon, abs=6e-4)


def test_mu_by_hand():
    assert release_mu(2.0, 4.0, clients=10, colluders=1, rounds=9) == pytest.approx(2 * 3 / (4 * 3))
    for bad in ({"sensitivity": 0.0}, {"sigma": math.nan}, {"clients": 3, "colluders": 3}):
        with pytest.raises(BadSetting):
            release_mu(**{"sensitivity": 1.0, "sigma": 1.0} | bad)
    with pytest.raises(BadCounts):
        release_mu(1.0, 1.0, rounds=0)


@pytest.mark.parametrize(("clients", "colluders", "rounds"), POINTS)
def test_reaches_the_analytic_curve_at_every_point(clients, colluders, rounds):
    """20,000 trials a side, root 51: the AUC, and the TPR at two rates, within four standard errors of the curve."""
    inside, outside = trials(np.random.default_rng(51), 20_000, clients, colluders, rounds)
    mu = release_mu(1.0, 1.0, clients, colluders, rounds)
    area = auc(inside, outside, confidence=0.9999)
    assert area.low <= bounds.gaussian_tpr(mu / math.sqrt(2), 0.5) <= area.high
    for fpr in (0.01, 0.1):
        found = tpr_at_fpr(inside, outside, fpr)
        expected = bounds.gaussian_tpr(mu, fpr)
        slope = (bounds.gaussian_tpr(mu, 1.001 * fpr) - expected) / (0.001 * fpr)
        error = math.sqrt((expected * (1 - expected) + slope**2 * fpr * (1 - fpr)) / 20_000)
        assert found.value == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize(("clients", "colluders", "rounds"), POINTS)
def test_bounds_keep_below_the_accountants_epsilon(clients, colluders, rounds):
    inside, outside = trials(np.random.default_rng(52), 4000, clients, colluders, rounds)
    mu = release_mu(1.0, 1.0, clients, colluders, rounds)
    threshold = mu / 2
    counts = int((inside >= threshold).sum()), 4000, int((outside >= threshold).sum()), 4000
    assert bounds.clopper_pearson(*counts, delta=1e-5).epsilon_lower <= bounds.gaussian_epsilon(mu, 1e-5)
    bound = bounds.gdp(*counts, delta=1e-5)
    assert bound.mu_lower <= mu


def test_sound_releases_pass():
    """P[not passed] over 400 seeds at N = 10: at most 5% and three standard errors, root 53."""
    failed = 0
    for rng in np.random.default_rng(53).spawn(400):
        failed += not check_release(*trials(rng, 200, 10, 0, 1), release_mu(1.0, 1.0, 10)).passed
    assert failed / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize(
    ("clients", "fault"), [(2, {"silent": 1}), (10, {"silent": 1}), (1, {"clip": 2.0}), (10, {"clip": 2.0})]
)
def test_missing_noise_and_a_doubled_clip_are_noticed(clients, fault):
    """4,000 trials a side notice it in each of 20 seeds."""
    for rng in np.random.default_rng(54).spawn(20):
        found = check_release(*trials(rng, 4000, clients, 0, 1, **fault), release_mu(1.0, 1.0, clients))
        assert not found.passed
        assert (found.noise_p_value < 1e-3) == ("silent" in fault)


def test_a_doubled_clip_refutes_the_accountants_epsilon():
    """Δ doubled, N = 1: ε = 4.377 was promised; 20,000 trials a side at a fixed threshold refute it."""
    inside, outside = trials(np.random.default_rng(55), 20_000, 1, 0, 1, clip=2.0)
    counts = int((inside >= 2.5).sum()), 20_000, int((outside >= 2.5).sum()), 20_000
    assert bounds.gdp(*counts, delta=1e-5).epsilon_lower > 4.377


def test_whitens():
    """Noise that differs by coordinate: the score weighs each by its own, and beats the plain inner product."""
    rng = np.random.default_rng(56)
    direction, sigma = np.array([1.0, 1.0]), np.array([0.5, 4.0])
    outside = sigma * rng.normal(size=(20_000, 2))
    inside = direction + sigma * rng.normal(size=(20_000, 2))
    scores = [release_scores(each, np.zeros(2), direction, sigma) for each in (inside, outside)]
    mu = float(np.linalg.norm(direction / sigma))
    assert scores[0].mean() - scores[1].mean() == pytest.approx(mu, abs=0.05)
    assert scores[1].std() == pytest.approx(1.0, abs=0.02)
    assert auc(*scores).value > auc(inside @ direction, outside @ direction).value + 0.1


def test_refuses():
    with pytest.raises(ShapeMismatch):
        release_scores(np.zeros(3), np.zeros(3), np.ones(3), 1.0)
    with pytest.raises(ShapeMismatch):
        release_scores(np.zeros((2, 3)), np.zeros(3), np.ones(4), 1.0)
    with pytest.raises(NotFiniteScores):
        release_scores(np.full((2, 3), np.nan), np.zeros(3), np.ones(3), 1.0)
    for direction, sigma in ((np.zeros(3), 1.0), (np.ones(3), 0.0), (np.ones(3), np.nan)):
        with pytest.raises(BadSetting):
            release_scores(np.zeros((2, 3)), np.zeros(3), direction, sigma)
    with pytest.raises(BadSetting):
        check_release([1.0, 2.0], [1.0, 2.0], mu=-1.0)


def clients_signals(rng, clients=12, records=2000, leak=1.5):
    base = 2 * rng.normal(size=records)
    signals = base + rng.normal(size=(clients, records))
    held = rng.random(records) < 0.5
    signals[3] += leak * held
    return signals, held


def test_coop_lira_finds_the_victims_records():
    signals, held = clients_signals(np.random.default_rng(57))
    scores = coop_lira_scores(signals, 3, individual=True)
    ours, plain = (auc(s[held], s[~held]) for s in (scores, signals[3]))
    assert ours.low > plain.high
    other = coop_lira_scores(signals, 4, individual=True)
    blind = auc(other[held], other[~held])
    assert blind.low <= 0.55


def test_secure_aggregation_takes_the_references_away():
    signals, _ = clients_signals(np.random.default_rng(58))
    with pytest.raises(ReleaseNotSeen, match="sums alone"):
        coop_lira_scores(signals, 3, individual=False)
    with pytest.raises(TooFewRecords):
        coop_lira_scores(signals[:2], 1, individual=True)
    with pytest.raises(BadCounts):
        coop_lira_scores(signals, 12, individual=True)


def test_distillation_lira_beats_the_plain_signal():
    rng = np.random.default_rng(59)
    base, member = 2 * rng.normal(size=2000), rng.random(2000) < 0.5
    target = base + 1.5 * member + rng.normal(size=2000)
    students = base + rng.normal(size=(8, 2000))
    scores = distillation_lira_scores(target, students, np.zeros(students.shape, dtype=bool))
    assert auc(scores[member], scores[~member]).low > auc(target[member], target[~member]).high
    with pytest.raises(TooFewRecords):
        distillation_lira_scores(target, students[:1], np.zeros((1, 2000), dtype=bool))
