"""Federated averaging: means of weights, the events that pay for them, and what is refused."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securekd.federation.averaging import GlobalModel

from securekd.checkpoint import PhaseStore
from securekd.errors import MixedArchitecturesError, ModelError, RunError, SettingError
from securekd.knowledge.weights import WeightUpdateShape, set_trainable_weights, trainable_weights, weight_update
from securekd.laboratory.plan import make_plan
from securekd.laboratory.preview import preview
from securekd.laboratory.runner import Progress, phases, resume, run
from securekd.models.registry import build
from securekd.privacy.gaussian import gaussian_epsilon
from securekd.privacy.ledger import read_ledger
from securekd.records.record import read_result
from securekd.settings.experiment import Experiment
from tests.securekd.conftest import small

MODEL = {"kind": "mlp", "options": {"hidden": 16}}
WEIGHTS = 64 * 16 + 16 + 16 * 10 + 10
EXACT = {"fedavg": {"clip": 100.0, "noise": 0.0}, "release": {"step": 2.0**-20}}
CLIENTS = [f"client-{i:02}" for i in (1, 2, 3, 4)]


def averaging(**changes: object) -> Experiment:
    """The small federation with one architecture, which is averaged."""
    alike = {"strategy": "fedavg", "clients": {"models": [MODEL]}, "student": {"model": MODEL}}
    return small(**alike | changes)


def stopping_at(phase: str) -> Callable[[object], None]:
    def interrupt(progress: object) -> None:
        if progress.phase == phase:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    return interrupt


def stopped_at(experiment: Experiment, out: Path, phase: str) -> PhaseStore:
    with pytest.raises(KeyboardInterrupt):
        run(experiment, out, stopping_at(phase))
    return PhaseStore(out / "state")


def record(folder: Path) -> dict[str, object]:
    found = json.loads((folder / "result.json").read_text())
    del found["compute"]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, which tests only read."""
    folder = tmp_path_factory.mktemp("averaging") / "finished"
    steps: list[Progress] = []
    run(averaging(), folder, steps.append)
    assert steps[-1].done == steps[-1].total == phases(make_plan(averaging()))
    return folder


@pytest.mark.parametrize("dp_sgd", [True, False])
def test_without_noise_the_global_model_is_the_mean_of_the_clients(dp_sgd: bool, out: Path) -> None:
    experiment = averaging(aggregation="plain", **EXACT, privacy={"dp_sgd": dp_sgd})
    store = stopped_at(experiment, out, "average.2")
    step = make_plan(experiment).question.release.mechanism.step
    for number in (1, 2):
        trained = [store.get(f"train.{number}.{c}").arrays for c in CLIENTS]
        averaged = store.get(f"average.{number}").arrays
        apart = max(np.abs(trained[0][name] - trained[1][name]).max() for name in averaged)
        assert apart > 1000 * step
        for name, value in averaged.items():
            mean = np.mean([t[name].astype(np.float64) for t in trained], axis=0)
            assert np.abs(value - mean).max() <= step + 1e-6  # each client's rounding, and float32's


def test_masked_and_plain_sums_give_the_same_run(finished: Path, out: Path) -> None:
    masked, plain = read_result(finished), run(averaging(aggregation="plain"), out)
    assert masked.utility == plain.utility
    assert "only sums" in masked.privacy.server_sees
    assert "every client's" in plain.privacy.server_sees
    one, other = ((folder / "student" / "model.safetensors").read_bytes() for folder in (finished, out))
    assert one == other


def test_training_and_release_are_charged_for_in_every_round(out: Path) -> None:
    experiment = averaging(fedavg={"clip": 2.0, "noise": 1.0})
    run(experiment, out)
    plan, entries = make_plan(experiment), read_ledger(out / "ledger.json").entries
    training = [e for e in entries if e.unit == "example"]
    assert [(e.round, e.client) for e in training] == [(r, c) for r in (1, 2) for c in CLIENTS]
    assert {(e.event.steps, e.event.noise_multiplier) for e in training} == {(plan.dp.steps, plan.dp.noise_multiplier)}
    releases = [e for e in entries if e.unit == "client"]
    assert len(releases) == 2 * 4 * 3
    step = plan.question.release.mechanism.step
    for e in releases:
        assert (e.event.dimension, e.event.sigma) == (WEIGHTS, 1.0 / step)
        assert 2.0 <= e.event.l2 * step <= 2.0 * 1.01
    digests = {r: {e.transfer for e in releases if e.round == r} for r in (1, 2)}
    assert len(digests[1]) == len(digests[2]) == 1
    assert digests[1] != digests[2]


def test_the_client_level_epsilon_is_that_of_the_clip_and_the_honest_noise(out: Path) -> None:
    noisy = averaging(
        privacy={"noise": "os"}, fedavg={"clip": 2.0, "noise": 1.5}, release={"mechanism": "gaussian"},
        cohort={"threshold": 4, "colluders": 1},
    )  # fmt: skip
    result = run(noisy, out)
    found = {(g.view, g.unit): g for g in result.privacy.guarantees}
    # Two rounds, three honest clients' noise: μ = √2 · 2 / (1.5·√3), zero-out.
    expected = gaussian_epsilon(2**0.5 * 2.0 / (1.5 * 3**0.5), 1e-5)
    assert found["server", "client"].epsilon == pytest.approx(expected, rel=1e-6)
    assert found["server", "client"].neighbours == "zero_out"
    assert 7.9 < found["public", "example"].epsilon <= 8.0


def test_a_client_level_target_sets_the_noise_of_updates(out: Path) -> None:
    result = run(averaging(privacy={"noise": "os", "client_epsilon": 20.0}), out)
    server = next(g for g in result.privacy.guarantees if (g.view, g.unit) == ("server", "client"))
    assert 19.9 < server.epsilon <= 20.0
    assert result.privacy.release_sensitivity == 10.0


def test_the_dry_run_foretells_guarantee_and_bytes(out: Path) -> None:
    for aggregation in ("plain", "masking"):
        experiment = averaging(aggregation=aggregation, privacy={"noise": "os"})
        folder = out.with_name(aggregation)
        result, foretold = run(experiment, folder), preview(make_plan(experiment))
        assert foretold.guarantees == result.privacy.guarantees
        sent = result.communication
        assert foretold.upload_bytes_per_client == sent.upload_bytes_per_client.mean
        assert foretold.download_bytes_per_client == sent.download_bytes_per_client.mean
        assert sent.by_phase["model"] == {"upload": 0, "download": 4 * 4 * WEIGHTS}
        if aggregation == "plain":
            assert sent.upload_bytes_per_client.mean == 2 * 4 * WEIGHTS


@pytest.mark.parametrize("stop", ["train.1.client-02", "aggregate.1", "average.1", "release.2.client-04"])
def test_a_run_interrupted_anywhere_resumes_to_the_same_record(stop: str, finished: Path, out: Path) -> None:
    stopped_at(averaging(), out, stop)
    resume(out)
    assert record(out) == record(finished)
    assert (out / "ledger.json").read_bytes() == (finished / "ledger.json").read_bytes()


def test_an_adversary_adds_what_it_sees_to_the_model_before(out: Path) -> None:
    experiment = averaging(aggregation="plain", **EXACT)
    store = stopped_at(experiment, out, "average.2")
    plan, before = make_plan(experiment), store.get("average.1").arrays
    taught = GlobalModel(before, WEIGHTS)
    step = plan.question.release.mechanism.step
    for client in CLIENTS:
        seen = store.get(f"release.2.{client}").arrays["integers"]
        guess = taught.surrogate(plan, seen, 1, "surrogate", client).state
        for name, value in store.get(f"train.2.{client}").arrays.items():
            assert np.abs(guess[name] - value).max() <= step + 1e-6
    total = store.get("aggregate.2").arrays["total"]
    for name, value in store.get("average.2").arrays.items():
        np.testing.assert_array_equal(taught.surrogate(plan, total, 4, "surrogate").state[name], value)


def test_more_examples_weigh_more(out: Path) -> None:
    uneven = {"partition": {"kind": "quantity", "alpha": 0.5, "minimum": 5}}
    experiment = averaging(
        aggregation="plain", **EXACT, data=uneven, rounds=1,
        student={"consensus": "weighted"} | {"model": MODEL}, privacy={"neighbours": "zero_out"},
    )  # fmt: skip
    store, plan = stopped_at(experiment, out, "average.1"), make_plan(experiment)
    sizes = np.array([len(c.examples) for c in plan.clients], dtype=float)
    assert len(set(sizes)) > 1
    for name, value in store.get("average.1").arrays.items():
        trained = np.stack([store.get(f"train.1.{c}").arrays[name].astype(np.float64) for c in CLIENTS])
        mean = np.tensordot(sizes / sizes.sum(), trained, axes=1)
        assert np.abs(value - mean).max() < 1e-3  # weights of hundredths make the encoding step count more


def test_a_labelled_transfer_set_gives_a_better_first_model(out: Path) -> None:
    few = {"rounds": 1, "training": {"epochs": 1, "pretrain_epochs": 40}}
    labelled = run(averaging(**few, data={"transfer_labels": True}), out)
    assert labelled.utility.student.accuracy > run(averaging(**few), out.with_name("no")).utility.student.accuracy + 0.1


def test_mixed_architectures_are_refused_by_name_before_anything_is_written(out: Path) -> None:
    mixed = averaging(clients={"models": [MODEL, "logistic", {"kind": "mlp", "options": {"hidden": 8}}]})
    with pytest.raises(MixedArchitecturesError, match=r"client-02 \(logistic\), client-03 \(mlp with.*8") as refused:
        run(mixed, out)
    assert "client-01" not in str(refused.value)
    assert not out.exists()


def test_learning_rates_may_differ(out: Path) -> None:
    quick, slow = MODEL | {"learning_rate": 0.5}, MODEL | {"learning_rate": 0.1}
    assert run(averaging(clients={"models": [quick, slow]}, rounds=1), out).rounds


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"release": {"rows": 30}}, "release.rows = 30"),
        ({"student": {"model": MODEL, "denoise": True}}, "student.denoise"),
        ({"fedavg": {"clip": 0.0}}, "fedavg.clip"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        make_plan(averaging(**changes))


def test_batch_statistics_are_refused_without_dp_sgd_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    (tmp_path / "normed_model.py").write_text(
        textwrap.dedent(
            """
            from torch import nn

            def normed(shape):
                return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, shape.classes))
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = {"clients": {"models": ["normed_model:normed"]}, "student": {"model": "normed_model:normed"}}
    with pytest.raises(ModelError, match=r"keeps statistics of its batches \(1\.running_mean\)"):
        run(averaging(**own, privacy={"dp_sgd": False}), out)


def test_of_a_frozen_encoder_only_the_head_is_sent() -> None:
    vit = {
        "kind": "transformers",
        "options": {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "intermediate_size": 16, "patch_size": 4, "frozen": True},
    }  # fmt: skip
    plan = make_plan(averaging(clients={"models": [vit]}, student={"model": vit}))
    assert plan.question.weights.size == 16 * 10 + 10


def test_weights_go_to_a_vector_and_back() -> None:
    plan = make_plan(averaging())
    network, other = (build(plan.experiment.student.model, plan.shape, seed) for seed in (0, 1))
    assert not np.array_equal(trainable_weights(network), trainable_weights(other))
    set_trainable_weights(other, trainable_weights(network))
    np.testing.assert_array_equal(trainable_weights(network), trainable_weights(other))
    with pytest.raises(RunError, match="scores on transfer rows"):
        _ = plan.question.labels


@settings(max_examples=60, deadline=None)
@given(
    change=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40),
    clip=st.floats(1e-3, 1e3),
    examples=st.integers(1, 3000),
    cap=st.none() | st.integers(1, 2000),
)
def test_an_update_stays_within_its_bounds(change: list[float], clip: float, examples: int, cap: int | None) -> None:
    shape = WeightUpdateShape(len(change), clip, cap)
    before = np.linspace(-1, 1, len(change))
    made = weight_update(before, before + np.array(change), shape, examples=examples)
    bounds = shape.bounds
    assert made.vector.shape == (bounds.dimension,) == (shape.length,)
    assert np.linalg.norm(made.vector) <= bounds.l2 * (1 + 1e-12)
    assert np.abs(made.vector).sum() <= bounds.l1 * (1 + 1e-9)
    assert np.abs(made.vector).max() <= bounds.entry
    within = np.linalg.norm(np.array(change)) <= clip * (1 - 1e-9)
    if within:
        np.testing.assert_allclose(shape.mean(made.vector, 1), change, atol=1e-9, rtol=1e-9)


def test_an_update_that_is_not_finite_is_sent_as_zeros_or_refused() -> None:
    shape = WeightUpdateShape(2, 1.0)
    after = np.array([np.nan, 1.0])
    made = weight_update(np.zeros(2), after, shape, examples=1)
    assert (made.vector.tolist(), made.zeroed) == ([0.0, 0.0], 1)
    with pytest.raises(RunError, match=r"release\.nonfinite"):
        weight_update(np.zeros(2), after, shape, examples=1, nonfinite="refuse")


def test_points_of_the_audit_and_the_page(finished: Path) -> None:
    result = read_result(finished)
    by_point = {leak.point: leak for leak in result.leakage if leak.attack == "loss"}
    assert set(by_point) == {"client_model", "client_release", "aggregate", "student"}
    assert by_point["aggregate"].auc == by_point["student"].auc  # the sum's mean makes the global model
    page = (finished / "report.html").read_text()
    assert "Federated averaging: clients send weight updates" in page
    assert "distilled by" not in page
