"""Whole runs: what they write, that they repeat, resume and refuse."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from securekd.checkpoint import PhaseStore
from securekd.errors import FolderError, PromiseError, RunError, SettingError
from securekd.federation.aggregation.catalogue import AGGREGATORS
from securekd.federation.aggregation.seam import Aggregator, Terms
from securekd.federation.aggregation.session import add_up
from securekd.federation.carrier import InProcess
from securekd.laboratory import parties as parties_module
from securekd.laboratory.leakage import Measured
from securekd.laboratory.plan import make_plan
from securekd.laboratory.promises import refuse_leak, refuse_overspending
from securekd.laboratory.replay_record import RATES
from securekd.laboratory.runner import phases, resume, run
from securekd.models.folder import load_student
from securekd.privacy.accountant import Guarantee, guarantees
from securekd.privacy.ledger import read_ledger
from securekd.records.record import POINTS, Leakage, Rate, Result, read_result
from tests.securekd.conftest import small


def comparable(folder: Path) -> dict[str, object]:
    """The record without what may differ between two runs of the same seed: times and memory."""
    record = json.loads((folder / "result.json").read_text())
    del record["compute"]
    return record


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished small run, which tests only read."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(small(), folder)
    return folder


def test_the_folder_holds_what_the_contract_says(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.toml", "result.json", "ledger.json", "report.html", "student"}
    record = read_result(finished)
    assert [r.round for r in record.rounds] == [1, 2]
    assert record.utility.student == record.rounds[-1].student
    assert {leak.point for leak in record.leakage} == set(POINTS)
    assert {leak.attack for leak in record.leakage} == {"loss", "entropy"}
    assert all(set(leak.tpr_at_fpr) == set(RATES) for leak in record.leakage)
    assert {(g.view, g.unit) for g in record.privacy.guarantees} == {
        (view, unit) for view in ("server", "clients", "public") for unit in ("example", "client")
    }


def test_the_record_says_how_gradients_were_computed(finished: Path) -> None:
    # Two logistic regressions and a perceptron in closed form, a CNN with hooks.
    assert [r.gradients for r in read_result(finished).rounds] == [{"closed_form": 3, "hooks": 1}] * 2


def test_members_and_nonmembers_are_all_there_and_counted_once(finished: Path) -> None:
    for leak in read_result(finished).leakage:
        assert (leak.members, leak.nonmembers) == (240, 120)
        assert leak.auc_ci[0] <= leak.auc <= leak.auc_ci[1]


def test_the_record_says_what_the_ledger_proves(finished: Path) -> None:
    recorded = read_result(finished).privacy.guarantees
    assert [vars(g) for g in guarantees(read_ledger(finished / "ledger.json"))] == [g.model_dump() for g in recorded]
    assert all(g.epsilon is None and "seeded" in str(g.why) for g in recorded)


def test_the_dry_run_promises_what_the_run_then_proves(finished: Path) -> None:
    plan = make_plan(small())
    assert plan.guarantees() == guarantees(read_ledger(finished / "ledger.json"))
    assert set(plan.ledger().entries) == set(read_ledger(finished / "ledger.json").entries)


def test_local_mean_and_best_summarise_the_locals(finished: Path) -> None:
    utility = read_result(finished).utility
    accuracies = [one.utility.accuracy for one in utility.locals]
    assert utility.local_mean.accuracy == pytest.approx(np.mean(accuracies))
    assert utility.local_best.accuracy == max(accuracies)
    assert sum(one.examples for one in utility.locals) == 240


def test_bytes_by_phase_add_up_to_bytes_by_client(finished: Path) -> None:
    sent = read_result(finished).communication
    for way, per_client in (("upload", sent.upload_bytes_per_client), ("download", sent.download_bytes_per_client)):
        assert sum(phase[way] for phase in sent.by_phase.values()) == pytest.approx(4 * per_client.mean)
    # Two rounds of 80 rows of 10 scores at 4 bytes; a protocol may add to that, never send less.
    assert sent.upload_bytes_per_client.mean >= 2 * 80 * 10 * 4
    assert sent.by_phase["consensus"] == {"upload": 0, "download": 4 * 80 * 10 * 4}


def test_seeded_runs_repeat_in_one_process_or_several(finished: Path, out: Path) -> None:
    run(small(runtime={"workers": 2}), out)
    again, before = comparable(out), comparable(finished)
    again["experiment"]["runtime"] = before["experiment"]["runtime"]  # type: ignore[index]
    assert again == before
    assert (out / "ledger.json").read_bytes() == (finished / "ledger.json").read_bytes()


def test_another_seed_gives_another_run(finished: Path, out: Path) -> None:
    run(small(seed=1), out)
    assert comparable(out)["leakage"] != comparable(finished)["leakage"]


@pytest.mark.parametrize("stop", [1, 4, 6, 9, 10, 12, 19, 23])
def test_a_run_interrupted_anywhere_resumes_to_the_same_record(stop: int, finished: Path, out: Path) -> None:
    def interrupt(progress: object) -> None:
        if progress.done == stop:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(), out, interrupt)
    assert not (out / "result.json").exists()
    resume(out)
    assert comparable(out) == comparable(finished)
    assert (out / "ledger.json").read_bytes() == (finished / "ledger.json").read_bytes()


def test_a_resumed_run_sends_the_stored_release_again(out: Path) -> None:
    # With the system's randomness a second draw would differ: the stored one must be what is summed.
    def interrupt(progress: object) -> None:
        if progress.phase.startswith("aggregate.1"):  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(privacy={"noise": "os"}), out, interrupt)
    store = PhaseStore(out / "state")
    names = [f"release.1.client-{i:02}" for i in (1, 2, 3, 4)]
    stored = {name: store.get(name).arrays["integers"] for name in names}
    (out / "state" / "aggregate.1.safetensors").unlink()
    seen: dict[str, np.ndarray] = {}

    def remember(progress: object) -> None:
        if progress.phase == "distil.1":  # type: ignore[attr-defined]
            seen.update({name: store.get(name).arrays["integers"] for name in names})
            seen["total"] = store.get("aggregate.1").arrays["total"]

    resume(out, remember)
    for name in names:
        np.testing.assert_array_equal(seen[name], stored[name])
    np.testing.assert_array_equal(seen["total"], np.sum([stored[n] for n in names], axis=0))


@pytest.mark.parametrize("lost", ["state", "release.1.client-02", "train.1.client-03"])
def test_a_run_that_lost_what_was_charged_for_draws_no_second_one(lost: str, out: Path) -> None:
    def interrupt(progress: object) -> None:
        if progress.phase == "aggregate.1":  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(privacy={"noise": "os"}), out, interrupt)
    before = (out / "ledger.json").read_bytes()
    if lost == "state":
        shutil.rmtree(out / "state")
    else:
        (out / "state" / f"{lost}.safetensors").unlink()
    with pytest.raises(FolderError, match="no longer holds what it gave"):
        resume(out)
    assert (out / "ledger.json").read_bytes() == before


def test_neither_keys_nor_noise_are_stored(out: Path) -> None:
    def interrupt(progress: object) -> None:
        if progress.phase == "distil.1":  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(), out, interrupt)
    store = PhaseStore(out / "state")
    for path in (out / "state").glob("*.safetensors"):
        saved = store.get(path.name.removesuffix(".safetensors"))
        if path.name.startswith("release"):
            assert set(saved.arrays) == {"integers"}
            assert set(saved.info) == {"clipped", "zeroed", "asked", "trained"}
            assert bytes.fromhex(saved.info["asked"])  # a digest of what everybody was told
        if path.name.startswith("aggregate"):
            assert set(saved.arrays) == {"total"}
            assert set(saved.info) == {"survivors", "upload", "download", "decryptor"}


def test_every_phase_is_announced(out: Path) -> None:
    steps = []
    run(small(), out, steps.append)
    assert steps[-1].done == steps[-1].total == phases(make_plan(small()))


def test_masked_and_plain_runs_agree(finished: Path, out: Path) -> None:
    plain = run(small(aggregation="plain"), out)
    masked = read_result(finished)
    assert plain.utility == masked.utility
    assert "every client's" in plain.privacy.server_sees
    assert "only sums" in masked.privacy.server_sees


def test_dropouts_are_recovered_from(out: Path) -> None:
    result = run(small(clients={"count": 5}, cohort={"dropouts": 1}), out)
    for one in result.rounds:
        assert one.survivors == 4
        assert len(one.dropped) == 1


def test_weighted_consensus_runs(out: Path) -> None:
    weighted = {"consensus": "weighted"}
    quantity = {"partition": {"kind": "quantity"}}
    result = run(small(student={"epochs": 5} | weighted, data=quantity, privacy={"neighbours": "zero_out"}), out)
    assert {g.neighbours for g in guarantees(read_ledger(out / "ledger.json"))} <= {"zero_out", None}
    assert len({one.examples for one in result.utility.locals}) > 1


def test_public_labels_pre_train_the_clients(out: Path) -> None:
    labelled = run(small(data={"transfer_labels": True}, training={"pretrain_epochs": 40}, rounds=1), out)
    unlabelled = run(small(rounds=1), out.with_name("unlabelled"))
    assert labelled.rounds[0].clients_mean_accuracy > unlabelled.rounds[0].clients_mean_accuracy + 0.05


def test_without_dp_no_guarantee_is_given_and_the_reason_stands_there(out: Path) -> None:
    result = run(small(privacy={"noise": "os", "dp_sgd": False}, release={"noise": 0}), out)
    whys = {g.unit: g.why for g in result.privacy.guarantees if g.epsilon is None}
    assert "without DP-SGD" in whys["example"]
    assert "no noise" in whys["client"]
    assert len(result.privacy.guarantees) == 6
    assert result.utility.centralized == result.utility.centralized_nonprivate


def test_a_client_level_target_is_met(out: Path) -> None:
    result = run(small(privacy={"noise": "os", "client_epsilon": 50.0}), out)
    server = next(g for g in result.privacy.guarantees if (g.view, g.unit) == ("server", "client"))
    assert 49.9 < server.epsilon <= 50.0
    assert server.neighbours == "zero_out"


def test_a_client_with_one_class_only_is_allowed(out: Path) -> None:
    result = run(small(data={"partition": {"kind": "dirichlet", "alpha": 0.01, "minimum": 1}}, seed=2), out)
    assert any(sum(count > 0 for count in row) == 1 for row in result.data.counts)


def test_a_folder_that_exists_is_left_alone(out: Path) -> None:
    out.mkdir()
    (out / "mine").write_text("precious")
    with pytest.raises(FolderError, match="run exists; take another folder$"):
        run(small(), out)
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_a_run_that_exists_can_be_finished(finished: Path) -> None:
    with pytest.raises(FolderError, match=f"take another folder, or finish the run in it with --resume {finished}"):
        run(small(), finished)


def test_nothing_is_written_for_a_request_that_is_refused(out: Path) -> None:
    with pytest.raises(SettingError):
        run(small(clients={"count": 2}), out)
    assert not out.exists()


def test_resume_needs_an_unfinished_run(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="holds no run"):
        resume(tmp_path)
    with pytest.raises(FolderError, match="finished"):
        resume(finished)


def test_the_student_loads_as_it_was_trained_and_its_weights_load_without_the_toolkit(finished: Path) -> None:
    folder = finished / "student"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "securekd.json"}
    network, x = load_student(folder), torch.rand(5, 1, 8, 8)
    weights = load_file(folder / "model.safetensors")
    hidden = (x.flatten(1) - weights["0.0.mean"].flatten()) / weights["0.0.deviation"]
    for layer in sorted({int(name.split(".")[0]) for name in weights} - {0}):
        hidden = hidden @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        hidden = hidden if f"{layer + 2}.weight" not in weights else hidden.tanh()
    torch.testing.assert_close(network(x), hidden)
    assert json.loads((folder / "securekd.json").read_text())["classes"] == list("0123456789")


def test_a_hugging_face_student_loads_with_transformers(out: Path) -> None:
    vit = {
        "kind": "transformers",
        "options": {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "intermediate_size": 16, "patch_size": 4},
    }  # fmt: skip
    run(small(student={"epochs": 2, "model": vit}, rounds=1), out)
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(out / "student")
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model.eval()(pixel_values=2 * x - 1).logits, load_student(out / "student")(x))
    assert model.config.id2label[7] == "7"


def test_a_leak_above_its_epsilon_is_an_error_that_names_the_point() -> None:
    rate = Rate(value=1.0, low=0.9, high=1.0, resolved=True)
    leak = Leakage(
        point="aggregate", attack="loss", auc=1.0, auc_ci=(0.9, 1.0), tpr_at_fpr=dict.fromkeys(RATES, rate),
        epsilon_lower=3.5, confidence=0.95, members=10, nonmembers=10, epsilon=3.0, comparable=True, assumptions=(),
        seen_by="the server",
    )  # fmt: skip
    with pytest.raises(PromiseError, match="loss attack at aggregate"):
        refuse_leak(Measured((leak,), None, ()))
    harmless = ({"epsilon": 4.0}, {"epsilon": None}, {"comparable": False})
    refuse_leak(Measured(tuple(leak.model_copy(update=change) for change in harmless), None, ()))


def test_an_epsilon_above_what_was_asked_for_is_an_error() -> None:
    asked = small(privacy={"client_epsilon": 2.0, "epsilon": 3.0}).privacy

    def proves(view: str, unit: str, epsilon: float | None) -> Guarantee:
        return Guarantee(view, unit, "zero_out", epsilon, 1e-5, 1, None)  # type: ignore[arg-type]

    refuse_overspending(
        asked,
        (proves("server", "client", 2.0), proves("public", "client", 9.0), proves("public", "example", None)),
    )
    for found in (proves("server", "client", 2.01), proves("clients", "example", 3.01)):
        with pytest.raises(PromiseError, match="that was asked for"):
            refuse_overspending(asked, (found,))


@pytest.mark.parametrize("kind", AGGREGATORS.values(), ids=AGGREGATORS)
def test_aggregators_keep_their_contract(kind: Callable[[], Aggregator]) -> None:
    rng = np.random.default_rng(0)
    releases = {f"c{i}": rng.integers(-1000, 1001, 300) for i in range(6)}
    terms = Terms(6, 300, 1000, threshold=4, colluders=1, context=b"x", round_number=1)
    done = add_up(kind(), releases, terms, silent={"c1", "c4"})
    assert done.survivors == ("c0", "c2", "c3", "c5")
    np.testing.assert_array_equal(done.total, sum(releases[c] for c in done.survivors))
    assert all(set(by) <= set(releases) for by in done.upload.values())
    with pytest.raises(RunError, match="3 of 6 clients survived"):
        add_up(kind(), releases, terms, silent={"c1", "c2", "c4"})


@pytest.mark.parametrize("how", ["ckks", "bfv"])
def test_homomorphic_sums_that_cannot_be_exact_are_refused_before_anything_is_trained(how: str) -> None:
    with pytest.raises(SettingError, match=f"aggregation = '{how}'.*coarser encoding step"):
        AGGREGATORS[how]().refuse_unfit(10_000, 100, 2**40)  # type: ignore[attr-defined]


def test_without_its_library_a_homomorphic_sum_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenseal.sealapi", None)
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(SettingError, match=r"pip install 'securekd\[ckks\]'"):
        make_plan(small(aggregation="bfv"))


def sums_and_record(folder: Path, how: str) -> tuple[dict[str, np.ndarray], Result]:
    sums: dict[str, np.ndarray] = {}

    def collect(progress: object) -> None:
        name = progress.phase  # type: ignore[attr-defined]
        if name.startswith("aggregate"):
            sums[name] = PhaseStore(folder / "state").get(name).arrays["total"]

    return sums, run(small(aggregation=how), folder, collect)


def test_every_way_to_add_up_gives_the_masked_runs_sums(out: Path) -> None:
    masked, record = sums_and_record(out / "masking", "masking")
    assert len(masked) == 2
    for how in ("ckks", "bfv", "plain"):
        sums, other = sums_and_record(out / how, how)
        for name, total in masked.items():
            np.testing.assert_array_equal(sums[name], total)
        assert other.utility.student == record.utility.student
        assert ("decryptor" in other.communication.by_phase) == (how != "plain")


def test_the_server_receives_no_release_in_a_masked_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []
    monkeypatch.setattr(parties_module, "InProcess", partial(InProcess, witness=received.append))
    releases: dict[str, np.ndarray] = {}

    def collect(progress: object) -> None:
        if progress.phase.startswith("release"):  # type: ignore[attr-defined]
            releases[progress.phase] = PhaseStore(out / "state").get(progress.phase).arrays["integers"]  # type: ignore[attr-defined]

    run(small(), out, collect)
    view = b"".join(received)
    assert len(releases) == 8
    assert len(view) > 8 * 4 * 800
    for integers in releases.values():
        for kind in ("<i4", ">i4", "<i8", ">i8"):
            for start in range(0, len(integers) - 4, 97):  # any run of four neighbouring values would give it away
                assert integers[start : start + 4].astype(kind).tobytes() not in view


def test_institutions_may_have_any_name(out: Path, tmp_path: Path) -> None:
    names = ["St Mary/North", "centralized", "..", "x" * 300]
    rng = np.random.default_rng(0)
    rows = [f"{rng.random():.3f},{names[i % 4]},{'ab'[int(rng.random() > 0.5)]}" for i in range(500)]
    (tmp_path / "clinics.csv").write_text("age,clinic,label\n" + "\n".join(rows) + "\n")
    experiment = small(
        data={"source": str(tmp_path / "clinics.csv"), "partition": {"kind": "column", "column": "clinic"}},
        clients={"count": 4, "models": ["logistic"]},
    )
    result = run(experiment, out)
    assert {one.client for one in result.utility.locals} == set(names)
    assert not any(leak.comparable for leak in result.leakage)


def test_a_run_is_not_resumed_with_other_data(out: Path, tmp_path: Path) -> None:
    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        rows = [f"{rng.random():.3f},{rng.random():.3f},{'ab'[i % 2]}" for i in range(500)]
        (tmp_path / "data.csv").write_text("x,y,label\n" + "\n".join(rows) + "\n")

    def interrupt(progress: object) -> None:
        if progress.phase == "distil.1":  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    write(0)
    experiment = small(data={"source": str(tmp_path / "data.csv")}, clients={"models": ["logistic"]})
    with pytest.raises(KeyboardInterrupt):
        run(experiment, out, interrupt)
    write(1)
    with pytest.raises(FolderError, match="the data is not what the run"):
        resume(out)
    write(0)
    assert resume(out).rounds


def test_two_processes_do_not_work_in_one_folder(out: Path) -> None:
    def intrude(progress: object) -> None:
        if progress.phase == "distil.1":  # type: ignore[attr-defined]
            with pytest.raises(FolderError, match="another process works in"):
                resume(out)

    run(small(), out, intrude)


def test_small_clients_do_not_break_the_audit(out: Path) -> None:
    skewed = {"test": 10, "partition": {"kind": "quantity", "alpha": 0.3, "minimum": 2}}
    result = run(small(data=skewed, clients={"count": 8}), out)
    assert all(leak.nonmembers == 10 for leak in result.leakage)


def test_a_run_killed_at_the_very_end_is_cleaned_up(finished: Path, out: Path) -> None:
    shutil.copytree(finished, out)
    (out / "state").mkdir()
    assert resume(out) == read_result(finished)
    assert not (out / "state").exists()


def test_a_run_killed_at_the_very_end_still_says_what_it_broke(finished: Path, out: Path) -> None:
    shutil.copytree(finished, out)
    (out / "state").mkdir()
    record = read_result(finished)
    leak = record.leakage[0].model_copy(update={"epsilon": 1.0, "epsilon_lower": 2.0, "comparable": True})
    (out / "result.json").write_bytes(record.model_copy(update={"leakage": (leak,)}).to_json())
    with pytest.raises(PromiseError, match="proves ε ≥ 2"):
        resume(out)


def test_only_survivors_are_members_of_the_aggregate(out: Path) -> None:
    result = run(small(clients={"count": 5}, cohort={"dropouts": 1}, rounds=1), out)
    by_point = {leak.point: leak.members for leak in result.leakage}
    assert by_point["client_model"] == 240
    assert by_point["aggregate"] == by_point["student"] == 192
