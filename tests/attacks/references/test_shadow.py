"""Shadow training: the design from its seed, resumption, refusals, and that LiRA finds with it what loss does not."""

import json
from functools import partial

import numpy as np
import pytest
from scipy import special

from securekd_attacks import (
    BadSetting,
    DamagedStore,
    DesignChanged,
    NotFiniteScores,
    ShadowDesign,
    ShapeMismatch,
    SignalStore,
    TooFewRecords,
    auc,
    lira,
    one_run_bound,
    scores_by_membership,
    signals,
    train_shadows,
)

RECORDS = 40


def train_mean(indices):
    return np.asarray(indices, dtype=float).mean()


def signal_mean(model, scale=1.0):
    return scale * (np.arange(RECORDS) - model)


def fail_at(limit, calls, indices):
    if len(calls) == limit:
        raise RuntimeError("the lights went out")
    calls.append(len(indices))
    return train_mean(indices)


def test_design_follows_from_its_seed():
    design = ShadowDesign(records=10_000, references=8, seed=3)
    coins = design.inclusion()
    assert coins.shape == (8, 10_000)
    assert coins.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(80_000))
    np.testing.assert_array_equal(coins, ShadowDesign(10_000, 8, 3).inclusion())
    np.testing.assert_array_equal(coins, ShadowDesign(10_000, 16, 3).inclusion()[:8])
    assert not np.array_equal(coins, ShadowDesign(10_000, 8, 4).inclusion())
    np.testing.assert_array_equal(design.indices(5), np.flatnonzero(coins[5]))
    origin = ShadowDesign(10, 2, 3, split="test", hashes=(("records", "ab"),)).provenance()
    assert (origin.inclusion, origin.probability, origin.seed, origin.split) == ("bernoulli", 0.5, 3, "test")
    assert origin.hashes == (("records", "ab"),)


def test_streams_each_models_signals(tmp_path):
    design = ShadowDesign(RECORDS, 6, seed=1)
    seen = []
    store = train_shadows(design, train_mean, signal_mean, tmp_path / "s", progress=lambda *n: seen.append(n))
    assert seen == [(i, 6) for i in range(1, 7)]
    matrix = store.signals()
    assert isinstance(matrix, np.memmap)
    assert matrix.dtype == np.float32
    expected = [signal_mean(train_mean(design.indices(r))) for r in range(6)]
    np.testing.assert_array_equal(matrix, np.float32(expected))
    np.testing.assert_array_equal(store.inclusion, design.inclusion())
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1.0
    again = SignalStore.read(tmp_path / "s")
    assert again.design == design


def test_resumes_where_it_was_interrupted(tmp_path):
    design, calls = ShadowDesign(RECORDS, 6, seed=1), []
    with pytest.raises(RuntimeError, match="lights"):
        train_shadows(design, partial(fail_at, 4, calls), signal_mean, tmp_path / "s")
    store = SignalStore.open(tmp_path / "s", design)
    assert store.finished.sum() == 4
    with pytest.raises(TooFewRecords, match="2 reference models"):
        store.signals()
    more = []
    resumed = train_shadows(design, partial(fail_at, 6, more), signal_mean, tmp_path / "s")
    assert len(more) == 2
    whole = train_shadows(design, train_mean, signal_mean, tmp_path / "whole")
    np.testing.assert_array_equal(resumed.signals(), whole.signals())


def test_several_processes_give_the_same(tmp_path):
    design = ShadowDesign(RECORDS, 5, seed=2)
    alone = train_shadows(design, train_mean, signal_mean, tmp_path / "alone")
    together = train_shadows(design, train_mean, signal_mean, tmp_path / "together", workers=2)
    np.testing.assert_array_equal(alone.signals(), together.signals())


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"seed": 2}, "seed 1, now 2"),
        ({"references": 7}, "references 6, now 7"),
        ({"records": 41}, "records 40, now 41"),
        ({"probability": 0.3}, "probability 0.5, now 0.3"),
        ({"signal": "loss"}, "signal 'scaled_logit', now 'loss'"),
        ({"split": "test"}, "split '', now 'test'"),
        ({"hashes": (("records", "cd"),)}, "hashes"),
    ],
)
def test_another_design_is_refused_and_named(tmp_path, changed, word):
    given = {"records": RECORDS, "references": 6, "seed": 1}
    SignalStore.open(tmp_path / "s", ShadowDesign(**given))
    with pytest.raises(DesignChanged, match=word):
        train_shadows(ShadowDesign(**given | changed), train_mean, signal_mean, tmp_path / "s")


def test_damage_is_found(tmp_path):
    design = ShadowDesign(RECORDS, 3, seed=1)
    store = train_shadows(design, train_mean, signal_mean, tmp_path / "s")
    matrix = np.load(tmp_path / "s" / "signals.npy", mmap_mode="r+")
    matrix[1, 7] += 1
    matrix.flush()
    with pytest.raises(DamagedStore, match="reference 1"):
        SignalStore.open(tmp_path / "s", design)
    (tmp_path / "s" / "rows" / "000001.json").unlink()
    assert train_shadows(design, train_mean, signal_mean, tmp_path / "s").finished.all()
    np.save(tmp_path / "s" / "inclusion.npy", ~np.asarray(store.inclusion))
    with pytest.raises(DamagedStore, match="inclusion"):
        SignalStore.open(tmp_path / "s", design)
    (tmp_path / "s" / "signals.npy").unlink()
    with pytest.raises(DamagedStore, match="missing"):
        SignalStore.open(tmp_path / "s", design)


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"schema": "securekd.signals/1", "records": 3})])
def test_a_folder_that_is_no_store_is_refused(tmp_path, content):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "manifest.json").write_text(content)
    with pytest.raises(DamagedStore):
        SignalStore.open(tmp_path / "s", ShadowDesign(RECORDS, 3, seed=1))


def test_signals_are_checked(tmp_path):
    design = ShadowDesign(RECORDS, 3, seed=1)
    with pytest.raises(ShapeMismatch, match="reference 0"):
        train_shadows(design, train_mean, lambda model: np.zeros(3), tmp_path / "s")
    with pytest.raises(NotFiniteScores):
        train_shadows(design, train_mean, lambda model: np.full(RECORDS, np.nan), tmp_path / "s")
    assert not SignalStore.open(tmp_path / "s", design).finished.any()
    with pytest.raises(BadSetting):
        train_shadows(design, train_mean, signal_mean, tmp_path / "s", workers=0)
    for bad in ((0, 3, 1), (3, 0, 1), (3, 3, -1), (3, 3, 1, 1.0)):
        with pytest.raises(BadSetting):
            ShadowDesign(*bad)


DIMENSIONS, WORLD = 60, 400


def world():
    rng = np.random.default_rng(71)
    inputs = rng.normal(size=(WORLD, DIMENSIONS))
    truth = inputs[:, 0] + 0.5 * rng.normal(size=WORLD) > 0
    flipped = rng.random(WORLD) < 0.1
    return inputs, (truth ^ flipped).astype(int)


def overfit(indices):
    """A linear model by least squares, with as many weights as a third of its records."""
    inputs, labels = world()
    return np.linalg.lstsq(inputs[indices], 8.0 * labels[indices] - 4.0, rcond=None)[0]


def logits_of(weights):
    inputs, labels = world()
    margin = inputs @ weights
    log_probs = np.stack([special.log_expit(-margin), special.log_expit(margin)], axis=1)
    return signals.scaled_logit(log_probs, labels)


def test_lira_on_trained_shadows_beats_the_plain_signal_and_bounds_epsilon(tmp_path):
    """The whole way on a model that overfits: coins, 64 shadows, store, scores with their origin, one-run bound."""
    design = ShadowDesign(WORLD, 64, seed=5)
    store = train_shadows(design, overfit, logits_of, tmp_path / "s")
    coins = ShadowDesign(WORLD, 1, seed=99)
    member = coins.inclusion()[0]
    target = logits_of(overfit(coins.indices(0)))
    raw = lira.scores(target, store.signals(), store.inclusion, "residual", "online")
    scores = scores_by_membership("lira", raw, member, coins.provenance())
    ours, plain = auc(scores.members, scores.nonmembers), auc(target[member], target[~member])
    assert ours.value > plain.value
    assert ours.low > 0.5
    assert one_run_bound(scores, 100, delta=0.0).epsilon_lower > 0.0
