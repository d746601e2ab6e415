"""A disk that is full, or closed to us: one line that names the path and the remedy, nothing half-written or lost."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from securekd.audit.auditing import AuditRequest, audit_deployment
from securekd.checkpoint import PhaseStore
from securekd.errors import FolderError, RunError
from securekd.files import is_there, write_atomically
from securekd.kept import Kept
from securekd.laboratory.runner import resume, run
from securekd.models.folder import load_student, save_model
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.records.account import account
from securekd.settings.experiment import Experiment
from securekd.settings.models import TINY_VIT, Model
from securekd.sweep.execution import carry_out_sweep
from securekd.sweep.folder import Failure
from securekd.sweep.lifeline import lifeline
from securekd.sweep.page import write_outputs
from securekd_attacks.audit import AuditSettings
from tests.securekd.conftest import small
from tests.securekd.sweep.conftest import begun

DIGITS = InputShape(modality="image", dimensions=(1, 8, 8), classes=10)

VIT = Model(kind=TINY_VIT.kind, options=TINY_VIT.options)


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a full disk; python ignores the signal that tells of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def quick() -> Experiment:
    """One round of three small clients."""
    return small(rounds=1, clients={"count": 3, "models": ["logistic"]}, student={"epochs": 1, "model": "logistic"})


def test_a_run_on_a_full_disk_names_what_it_could_not_write_and_resume_finishes_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    named = []
    for size in (2500, 50_000):
        with full_beyond(size), pytest.raises(RunError) as caught:
            resume(out) if out.exists() else run(quick(), out)
        line = str(caught.value)
        named.append(
            line.partition(": File too large; make room there and give the command again")[0].removeprefix(
                f"cannot write {out}/"
            )
        )
        assert "what was finished is kept: a run, an audit or a sweep takes --resume" in line
        assert "\n" not in line
        assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
    assert named[0].startswith("state/")
    assert named[-1] == "report.html"
    record = resume(out)
    assert {path.name for path in out.iterdir()} == {
        "config.toml", "ledger.json", "report.html", "result.json", "student"
    }  # fmt: skip
    found = account(out)
    assert len(found.ledger.entries) == len(
        {(e.client, e.phase, e.round, e.unit, e.views) for e in found.ledger.entries}
    )
    assert record == found.record


def test_a_run_that_could_not_begin_leaves_no_folder(tmp_path: Path) -> None:
    again = "File too large; make room there and give the command again; nothing is left of it"
    with full_beyond(100), pytest.raises(RunError, match=f"config.toml: {again}"):
        run(small(), tmp_path / "run")
    with full_beyond(100), pytest.raises(RunError, match=f"sweep.json: {again}"):
        begun(tmp_path / "sweep")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", [VIT, Model(kind="logistic"), Model(kind="cnn")], ids=lambda m: m.kind)
def test_a_model_that_a_full_disk_did_not_take_leaves_the_older_one(model: Model, tmp_path: Path) -> None:
    network, classes = build(model, DIGITS, 0), tuple("0123456789")
    save_model(network, model, DIGITS, classes, tmp_path / "student")
    before = {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}
    with full_beyond(2000), pytest.raises(RunError, match=r"cannot write .*student.*: .*File too large"):
        save_model(network, model, DIGITS, classes, tmp_path / "student")
    assert {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    assert load_student(tmp_path / "student")


def test_an_audit_on_a_full_disk_names_what_it_could_not_write_and_resume_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deployed_here.py").write_text(
        "def predict(inputs):\n    return [[0.6 + row[0] / 1000, 0.4 - row[0] / 1000] for row in inputs]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    random = np.random.default_rng(0)
    for side in ("in", "out"):
        arrays = {"inputs": random.random((300, 3)), "labels": random.integers(2, size=300)}
        np.savez(tmp_path / f"{side}.npz", **arrays)
    asked = AuditRequest(
        "deployed_here:predict",
        tmp_path / "in.npz",
        tmp_path / "out.npz",
        settings=AuditSettings(attacks=("loss",)),
    )
    out = tmp_path / "audit"
    for size, name in ((1200, "answers/target/000000.npz"), (5000, "audit.json"), (25_000, "audit.html")):
        with full_beyond(size), pytest.raises(RunError, match=f"cannot write {out / name}: File too large; make room"):
            audit_deployment(asked, out, resume=out.exists())
        assert not [path for path in out.rglob(".*") if path.is_file()]
    audit_deployment(asked, out, resume=True)
    assert (out / "audit.html").exists()
    sys.modules.pop("deployed_here")


def test_a_sweep_on_a_full_disk_names_what_it_could_not_write_and_goes_on(tmp_path: Path) -> None:
    folder, plan = begun(tmp_path / "s", seeds=[0], baselines=[], axes={"privacy.epsilon": [8.0]})
    with full_beyond(2500):
        carry_out_sweep(plan, folder, workers=1)  # small files still find room: what failed is noted
    failure = folder.failure(plan.runs[0])
    assert failure is not None
    assert (failure.kind, "File too large; make room there" in failure.error) == ("failed", True)
    assert str(folder.path) in failure.error
    with full_beyond(10), pytest.raises(RunError, match=r"failures/run-0001.json: File too large"):
        folder.note("run-0001", Failure(kind="failed", error="of one kind or another"))
    carry_out_sweep(plan, folder, workers=1)
    with full_beyond(2500), pytest.raises(RunError, match=r"s/(sweep.parquet|plots/.*): File too large"):
        write_outputs(plan, folder)
    write_outputs(plan, folder)
    assert folder.page.exists()
    assert folder.failure(plan.runs[0]) is None


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    inside = tmp_path / "file" / "state"
    for write in (
        lambda: write_atomically(inside / "a", b""),
        lambda: PhaseStore(inside),
        lambda: Kept(inside),
        lambda: lifeline(inside).__enter__(),
    ):
        with pytest.raises(RunError, match=rf"cannot write {inside}.*: Not a directory; see that it can be written"):
            write()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match=r"cannot write .*a: Permission denied; see that it can be written"):
            write_atomically(tmp_path / "a", b"")
        with pytest.raises(FolderError, match="Permission denied"):
            run(small(), tmp_path / "run")
    finally:
        tmp_path.chmod(0o700)


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        f"run --out {LONG}",
        f"run --resume {LONG}",
        f"run --out {LONG}/run",
        f"report {LONG}",
        f"account {LONG}",
        f"sweep sweep.toml --out {LONG}",
        f"sweep {LONG}.toml",
        f"run {LONG}.toml",
        f"audit signals.npz --out {LONG}",
        f"audit signals.npz --out {LONG} --resume",
    ],
)
def test_a_name_that_is_too_long_is_refused_in_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from securekd.cli.command import main

    monkeypatch.chdir(tmp_path)
    Path("sweep.toml").write_text("seeds = [0]\n")
    monkeypatch.setattr(sys, "argv", ["securekd", *words.split()])
    with pytest.raises(SystemExit) as caught:
        main()
    shown = capsys.readouterr().err.strip()
    assert caught.value.code == 2
    assert shown.startswith("error: ")
    assert f"{LONG}" in shown
    assert "File name too long" in shown
    assert "unexpected" not in shown
    assert shown.count("\n") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.toml"]


def test_whether_something_is_there_is_known_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert is_there(tmp_path / "file")
    assert is_there(tmp_path / "nowhere")
    assert not is_there(tmp_path / "other")
    assert not is_there(tmp_path / "file" / "below")
    for name in (LONG, "null\0byte"):
        with pytest.raises(FolderError, match="take another"):
            is_there(tmp_path / name)
