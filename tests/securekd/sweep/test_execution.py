"""Sweeps that are carried out: in parts, interrupted, killed, with workers that die, on a cluster."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import tomli_w
from torch import nn

from securekd.cli import sweep_console as console
from securekd.errors import FolderError, InputError, RunError, SecurekdError
from securekd.laboratory.runner import run
from securekd.models.shape import InputShape
from securekd.records.record import read_result
from securekd.settings.experiment import Experiment
from securekd.sweep import execution
from securekd.sweep.execution import Progress, carry_out_run, carry_out_sweep
from securekd.sweep.folder import Failure, SweepFolder
from securekd.sweep.lifeline import lifeline
from securekd.sweep.page import write_outputs
from securekd.sweep.plan import SweepPlan
from securekd.sweep.table import table_of
from tests.securekd.sweep.conftest import BASE, SWEEP, begun

SECUREKD = [sys.executable, "-m", "securekd"]

CLUSTERS = ("ray", "dask")

ONE = {"axes": {"strategy": ["distil", "fedavg"]}, "seeds": [0], "baselines": []}


def without_times(experiment: Experiment, out: Path) -> dict[str, object]:
    return run(experiment, out).model_dump(exclude={"compute"})


def test_a_run_of_a_sweep_is_what_securekd_run_does(tmp_path: Path) -> None:
    folder, plan = begun(tmp_path / "s", **ONE)
    carry_out_sweep(plan, folder, workers=1)
    for one in plan.runs:
        found = read_result(folder.run(one.key)).model_dump(exclude={"compute"})
        assert found == without_times(one.experiment, tmp_path / one.key)


def test_yardsticks_are_trained_once(tmp_path: Path) -> None:
    folder, plan = begun(tmp_path / "s", **ONE)
    carry_out_sweep(plan, folder, workers=1)
    spent = [read_result(folder.run(r.key)).compute.by_phase["baseline"] for r in plan.runs]
    assert spent[0] > spent[1] == 0.0
    # Four clients alone, all data in one place with privacy and without, and a linear head on them.
    assert len(list(folder.shared.glob("*.safetensors"))) == 7


def test_max_runs_counts_over_all_calls(tmp_path: Path) -> None:
    folder, plan = begun(tmp_path / "s", **ONE)
    seen: list[Progress] = []
    carry_out_sweep(plan, folder, workers=1, max_runs=1)
    carry_out_sweep(plan, folder, workers=1, max_runs=1, on_progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(1, 1)]
    assert [folder.settled(r) for r in plan.runs] == [True, False]
    write_outputs(plan, folder)
    assert "1 run of 2 planned" in folder.page.read_text()
    carry_out_sweep(plan, folder, workers=1, on_progress=seen.append)
    assert [(p.done, p.total) for p in seen[1:]] == [(1, 2), (2, 2)]


def test_a_run_that_failed_is_tried_again_and_one_that_was_refused_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plan = begun(tmp_path / "s", **ONE, experiment=BASE)
    tried: list[str] = []

    def pretend(task: execution._Task) -> execution.Finished:
        tried.append(task.key)
        failure = Failure(kind="failed" if task.key == "run-0001" else "refused", error="no")
        folder.note(task.key, failure)
        return execution.Finished(task.key, 0.1, failure)

    monkeypatch.setattr(execution, "carry_out_run", pretend)
    carry_out_sweep(plan, folder, workers=1)
    carry_out_sweep(plan, folder, workers=1)
    assert tried == ["run-0001", "run-0002", "run-0001"]
    monkeypatch.undo()
    carry_out_sweep(plan, folder, workers=1)
    assert folder.failure(plan.runs[0]) is None
    assert table_of(plan, folder)["status"].unique().tolist() == ["done", "refused"]


def test_whatever_goes_wrong_in_a_run_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, plan = begun(tmp_path / "s", **ONE)
    import securekd.laboratory.runner

    def explode(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(securekd.laboratory.runner, "run", explode)
    for error, kind in (
        (ZeroDivisionError("by zero"), "failed"), (RunError("too few"), "failed"), (FolderError("taken"), "failed"),
    ):  # fmt: skip
        with lifeline(folder.path) as sweep:
            done = carry_out_run(execution._Task("run-0001", str(folder.path), plan.runs[0].experiment, sweep))
        assert done.failure == folder.failure(plan.runs[0])
        assert done.failure is not None
        assert (done.failure.kind, str(error) in done.failure.error) == (kind, True)


def test_a_run_whose_worker_died_when_all_was_written_is_finished(tmp_path: Path) -> None:
    folder, plan = begun(tmp_path / "s", **ONE)
    carry_out_sweep(plan, folder, workers=1)
    [key, *_] = [one.key for one in plan.runs]
    before = folder.run(key).joinpath("result.json").read_bytes()
    with lifeline(folder.path) as sweep:
        task = execution._Task(key, str(folder.path), plan.runs[0].experiment, sweep)
        assert carry_out_run(task).failure is None
    assert folder.run(key).joinpath("result.json").read_bytes() == before


def test_one_process_at_a_time_works_in_a_sweep(tmp_path: Path) -> None:
    folder, plan = begun(tmp_path / "s", **ONE)

    def intrude(progress: Progress) -> None:
        with pytest.raises(FolderError, match="another process works in"):
            carry_out_sweep(plan, folder, workers=1)

    carry_out_sweep(plan, folder, workers=1, max_runs=1, on_progress=intrude)


def test_a_missing_cluster_is_told_with_its_extra(tmp_path: Path) -> None:
    folder, plan = begun(tmp_path / "s", **ONE)
    for backend in CLUSTERS:
        if importlib.util.find_spec(backend) is None:
            with pytest.raises(InputError, match=rf"pip install 'securekd\[{backend}\]'"):
                carry_out_sweep(plan, folder, workers=1, backend=backend)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"data": {"source": "${NO_SUCH_VARIABLE}/x.csv"}}, RunError, "12 run.s. failed: run-0001, .* try them again"),
        (
            {"privacy": {"noise": "os", "epsilon": 1e-6}},
            InputError,
            "no run has a result; .* run-0001 .* cannot be met",
        ),
    ],
)
def test_a_sweep_without_a_single_result_ends_with_an_error(
    changed: dict[str, object],
    error: type[SecurekdError],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = tmp_path / "sweep.toml", tmp_path / "s"
    axes = {"strategy": ["distil", "fedavg"], "aggregation": ["plain", "masking"]}
    path.write_text(tomli_w.dumps({"seeds": [0, 1, 2], "axes": axes, "experiment": BASE | changed}))
    for go in (partial(console.begin, path, out), partial(console.resume, out, None)):
        with pytest.raises(error, match=said):
            go(workers=1, backend="local", max_runs=None)
        assert "looked at" not in capsys.readouterr().out
    assert "What went wrong" in (out / "sweep.html").read_text(encoding="utf-8")


# What follows takes real processes.


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SECUREKD, "sweep", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def wait_for(path: Path, pattern: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        time.sleep(0.05)


def group_of(leader: int) -> set[int]:
    """Processes of a session that are alive."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def working_in(folder: Path) -> set[int]:
    """Processes that have something open in a folder, as whoever carries a run out has."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            inside = link.readlink().is_relative_to(folder)
        except OSError:
            continue
        if inside:
            found.add(int(link.parts[2]))
    return found


def daemons_of(backend: str, leader: int) -> set[int]:
    """Ray's own processes in the leader's session, which work in no folder and take a minute to see that it is gone."""
    return group_of(leader) - set(workers_of(leader)) if backend == "ray" else set()


def wait_for_the_end_of(backend: str, leader: int, folder: Path, seconds: float) -> None:
    """Wait until nobody works in a folder, not between two runs either, and the leader's session is over."""
    deadline, seen = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < seen + 2:
        left = working_in(folder) | (group_of(leader) - daemons_of(backend, leader))
        if left:
            seen = time.monotonic()
        assert time.monotonic() < deadline + 2, left
        time.sleep(0.1)


def skip_without(backend: str) -> None:
    if backend != "local" and importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")


def workers_of(leader: int) -> list[int]:
    """Workers: they, and not the processes that look after them, have torch loaded."""
    found = []
    for pid in group_of(leader) - {leader}:
        try:
            if "libtorch" in Path(f"/proc/{pid}/maps").read_text():
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of an uninterrupted sweep."""
    folder, plan = begun(tmp_path_factory.mktemp("whole") / "s")
    carry_out_sweep(plan, folder, workers=1)
    found = table_of(plan, folder)
    assert set(found["status"]) == {"done"}
    return found


def table(out: Path) -> tuple[SweepPlan, pd.DataFrame]:
    folder = SweepFolder(out)
    plan = folder.plan()
    return plan, table_of(plan, folder)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("backend", ["local", *CLUSTERS])
def test_a_killed_sweep_takes_its_workers_along_and_resumes_to_the_same_table(
    backend: str, sweep_file: Path, whole: pd.DataFrame, tmp_path: Path
) -> None:
    skip_without(backend)
    process = start(tmp_path, str(sweep_file), "--out", "s", "--workers", "2", "--backend", backend)
    wait_for(tmp_path, "s/runs/*/result.json")
    process.kill()
    process.wait(timeout=30)
    wait_for_the_end_of(backend, process.pid, tmp_path, 10)
    done = len(list(tmp_path.glob("s/runs/*/result.json")))
    assert 1 <= done < len(SweepFolder(tmp_path / "s").plan().runs)
    again = start(tmp_path, str(sweep_file), "--resume", "s", "--workers", "2", "--backend", backend)
    _, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    plan, found = table(tmp_path / "s")
    pd.testing.assert_frame_equal(found, whole)
    assert len(list(tmp_path.glob("s/runs/*"))) == len(plan.runs)


@pytest.mark.slow
def test_ctrl_c_is_exit_130_and_resumable(sweep_file: Path, tmp_path: Path) -> None:
    process = start(tmp_path, str(sweep_file), "--out", "s", "--workers", "2")
    wait_for(tmp_path, "s/runs/*/state/train.*")
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "securekd sweep --resume s" in errors
    assert "Traceback" not in errors
    again = start(tmp_path, "--resume", "s", "--max-runs", "2")
    shown, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    assert "page: s/sweep.html" in shown


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_a_worker_that_dies_does_not_stop_the_others(sweep_file: Path, whole: pd.DataFrame, tmp_path: Path) -> None:
    process = start(tmp_path, str(sweep_file), "--out", "s", "--workers", "2")
    wait_for(tmp_path, "s/runs/*/result.json")
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    pd.testing.assert_frame_equal(table(tmp_path / "s")[1], whole)


@pytest.mark.slow
@pytest.mark.parametrize("backend", CLUSTERS)
def test_a_cluster_gives_the_same_table(backend: str, sweep_file: Path, whole: pd.DataFrame, tmp_path: Path) -> None:
    skip_without(backend)
    process = start(tmp_path, str(sweep_file), "--out", "s", "--workers", "2", "--backend", backend)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    pd.testing.assert_frame_equal(table(tmp_path / "s")[1], whole)


@pytest.mark.slow
def test_the_command_prints_the_plan_first_and_then_what_came_of_it(tmp_path: Path) -> None:
    changed = SWEEP | {"axes": {"privacy.epsilon": [1e-6, 8.0]}, "seeds": [0], "baselines": ["fedavg"]}
    (tmp_path / "sweep.toml").write_text(tomli_w.dumps(changed))
    process = start(tmp_path, "sweep.toml", "--out", "s", "--workers", "1")
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors.index("run-0001") < errors.index("cannot be met")
    assert "2 of 4 runs have a result" in shown
    assert "2 runs were looked at, and choosing the best of them is itself a release" in shown
    for arguments, code, said in (
        (["s", "--min-accuracy", "0.01"], 0, "securekd run s/runs/run-000"),
        (["s", "--max-epsilon", "3"], 1, "no setting proves"),
        (["s"], 2, "--min-accuracy"),
        (["nowhere", "--max-epsilon", "3"], 2, "holds no sweep"),
    ):
        done = subprocess.run(
            [*SECUREKD, "frontier", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr


def narrow(shape: InputShape) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, shape.classes))


@pytest.mark.parametrize("part", ["clients", "student"])
def test_runs_of_a_model_in_the_program_that_calls_are_carried_out_in_its_process(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "narrow", narrow, raising=False)
    named = {"models": ["__main__:narrow"]} if part == "clients" else {"model": "__main__:narrow"}
    folder, plan = begun(
        tmp_path / "s", experiment=BASE | {part: BASE[part] | named}, axes={"privacy.epsilon": [4.0, 8.0]}, seeds=[0],
        baselines=[],
    )  # fmt: skip
    carry_out_sweep(plan, folder, workers=2)
    assert [folder.failure(run) for run in plan.runs] == [None, None]
