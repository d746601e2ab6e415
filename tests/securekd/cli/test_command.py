"""The command as a user meets it: exit codes, one-line errors, nothing half-written, quick help."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from securekd.cli.command import cli
from tests.securekd.conftest import SMALL

SECUREKD = [sys.executable, "-m", "securekd"]


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [*SECUREKD, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300, check=False
    )


def said(*arguments: str | Path) -> str:
    """What the command says in this process, since starting Python and torch takes longer than most of what it does."""
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def config(tmp_path: Path) -> Path:
    import tomli_w

    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(SMALL))
    return path


BAD = [
    (["--set", "rouns=3"], "unknown setting 'rouns'; did you mean rounds?"),
    (["--set", "privacy.epsilon=-1"], "privacy.epsilon = -1: should be greater than 0"),
    (["--set", "privacy.epsilon=0"], "privacy.epsilon = 0: should be greater than 0"),
    (["--set", "privacy.delta=0.1"], "privacy.delta = 0.1 is not below 1/60"),
    (["--set", "privacy.client_delta=0.3"], "privacy.client_delta = 0.3 is not below 1/4"),
    (["--set", "clients.count=2"], "2 clients"),
    (["--set", "cohort.threshold=2"], "cohort.threshold = 2 is unsafe"),
    (["--set", "cohort.dropouts=2"], "cohort.dropouts = 2 leaves 2 of 4 clients"),
    (["--set", "cohort.colluders=4"], "4 clients, of whom 4 may collude"),
    (["--set", "data.private=5000"], "1797"),
    (["--set", "data.source=nowhere.csv"], "nowhere.csv"),
    (["--set", "data.source=labels.csv"], "label"),
    (["--set", "aggregation=paillier"], "no aggregation is called 'paillier'"),
    (["--set", "strategy=gossip"], "no strategy is called 'gossip'"),
    (["--set", 'audit.attacks=["magic"]'], "no attack is called 'magic'"),
    (["--set", 'clients.models=["resnet"]'], "no model is called 'resnet'"),
    (["--set", 'clients.models=[{kind="mlp", options={hiden=3}}]'], "hiden"),
    (["--set", 'clients.models=["nowhere.at:all"]'], "cannot load 'nowhere.at:all'"),
    (["--set", "training.epochs=0.1"], "leaves no step"),
    (["--set", "release.step=1e-9"], "change release.step"),
    (["--set", "release.step=1e-9", "--set", "release.mechanism=gaussian"], "raise release.step"),
    (["--set", "release.step=1e-18"], "release.step"),
    (["--set", "release.step=0.09", "--set", "release.mechanism=gaussian"], "below two encoding steps"),
    (["--set", "release.noise=1", "--set", "release.step=1e-6"], "outside 0.01 to 50000"),
    (["--set", "release.rows=81"], "release.rows = 81 is more than the 80 rows"),
    (["--set", "strategy=pate"], "set release.scores = 'votes'"),
    (["--set", "strategy=pate", "--set", "student.denoise=true"], "strategy = 'distil'"),
    (["--set", "student.consensus=weighted"], "set privacy.neighbours = 'zero_out'"),
    (["--set", "student.consensus=weighted", "--set", "release.scores=votes"], "votes are counted alike"),
    (["--set", "cohort.sampling_rate=0.5", "--set", "privacy.client_neighbours=replace_one"], "zero_out"),
    (["--set", "privacy.client_epsilon=1e-6"], "cannot be met"),
    (["--set", 'clients.models=[{kind="mlp", options={hidden=-1}}]'], "cannot be built"),
    (["--set", 'clients.models=[{kind="mlp", options={hidden="x"}}]'], "cannot be built"),
    (["--set", "data.test=3"], "too few to measure"),
    (["--out", "/dev/null/x"], "cannot make the folder /dev/null/x"),
    (["--set", "privacy.epsilon=1e-6"], "cannot be met"),
    (["--set", "runtime.device=warp"], "warp"),
    (["--out", "taken"], "taken exists"),
    (["--resume", "taken"], "--resume takes its settings"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_line_exit_two_and_leaves_nothing(
    arguments: list[str],
    message: str,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n3,4\n")
    before = sorted(tmp_path.rglob("*"))
    # In this process, since starting Python and torch for each line would take minutes; the entry point is the same.
    monkeypatch.setattr(sys, "argv", ["securekd", "run", str(config), *arguments])
    from securekd.cli.command import main

    with pytest.raises(SystemExit) as caught:
        main()
    shown = capsys.readouterr()
    assert caught.value.code == 2
    lines = [line for line in shown.err.splitlines() if line.strip()]
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in shown.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_config_is_exit_two(tmp_path: Path) -> None:
    done = command("run", "nowhere.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr.strip()
        == "error: cannot read nowhere.toml: No such file or directory; give the path of a TOML file"
    )


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = command("--debug", "run", "--set", "rouns=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_an_unknown_option_is_exit_two(tmp_path: Path) -> None:
    assert command("run", "--epsilon", "3", cwd=tmp_path).returncode == 2


def test_run_report_and_json(config: Path, tmp_path: Path) -> None:
    done = command("run", config, "--out", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"report: {Path('r') / 'report.html'}")
    assert "nothing is protected" in done.stdout
    page = (tmp_path / "r" / "report.html").read_bytes()
    (tmp_path / "r" / "report.html").unlink()
    again = command("report", "r", cwd=tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "r" / "report.html").read_bytes() == page
    assert command("report", "nowhere", cwd=tmp_path).returncode == 2


def test_dry_run_writes_nothing_and_speaks_json(config: Path, tmp_path: Path) -> None:
    shown = command("run", config, "--dry-run", "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    plan = json.loads(shown.stdout)
    assert [c["examples"] for c in plan["clients"]] == [60, 60, 60, 60]
    assert {g["view"] for g in plan["guarantees"]} == {"server", "clients", "public"}
    assert plan["upload_bytes_per_client"] > 2 * 80 * 10 * 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.toml"]
    text = " ".join(said("run", config, "--dry-run").split())
    assert "client-04" in text
    assert "only sums of at least 3 of 4 clients" in text
    assert "its weights instead" in text
    fedavg = ("--set", "strategy=fedavg", "--set", 'clients.models=["mlp"]', "--set", "audit.canaries=40")
    text = " ".join(said("run", config, "--dry-run", *fedavg).split())
    assert "its weights instead" not in text
    assert "40 canaries of each kind" in text


@pytest.mark.parametrize(
    ("epochs", "delta", "free"), [(1e-4, 2e-4, True), (1e-4, 1e-4, True), (1e-4, 9e-5, False), (5e-4, 2e-4, False)]
)
def test_a_dry_run_says_where_no_noise_is_needed(epochs: float, delta: float, free: bool) -> None:
    settings = {
        "clients.count": 3, "clients.models": '["logistic"]', "rounds": 1, "training.sampling_rate": 1e-4,
        "training.epochs": epochs, "privacy.delta": delta, "privacy.epsilon": 1,
    }  # fmt: skip
    arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    done = CliRunner().invoke(cli, ["run", "--dry-run", *arguments])
    assert done.exit_code == 0
    said = " ".join(done.output.split())
    assert (f"multiplier 0.05, the least that is taken: no noise is needed at δ = {delta:g}" in said) is free
    assert ("lower privacy.delta" in said) is free


def test_ctrl_c_leaves_a_folder_that_resume_finishes(config: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*SECUREKD, "run", str(config), "--set", "student.epochs=50", "--set", "runtime.workers=2", "--out", "r"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell's background job ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((tmp_path / "r" / "state").glob("train.1.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group, worker processes too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"securekd run --resume {Path('r')}" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "r" / "result.json").exists()
    assert json.loads(said("run", "--resume", tmp_path / "r", "--json"))["schema"] == "securekd.result/1"
    assert not (tmp_path / "r" / "state").exists()


def test_a_leak_above_its_epsilon_is_exit_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from securekd.cli import command as cli
    from securekd.cli import console
    from securekd.errors import PromiseError

    def leak(*args: object, **kwargs: object) -> None:
        raise PromiseError("more than promised")

    monkeypatch.setattr(console, "run", leak)
    monkeypatch.setattr(sys, "argv", ["securekd", "run", "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 3


def test_config_lists_every_setting(tmp_path: Path) -> None:
    from securekd.settings.config import all_settings

    text = command("config", cwd=tmp_path).stdout
    table = command("config", "--markdown", cwd=tmp_path).stdout
    for setting in all_settings():
        assert f"\n{setting.key}\n" in f"\n{text}"
        assert f"| {setting.key} |" in table


def test_help_has_examples_and_is_quick(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = command("--help", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert "securekd run --resume" in command("run", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    "code", ["import securekd", "import sys; sys.argv = ['securekd', '--help']; import securekd.__main__"]
)
def test_start_up_loads_no_numerics(code: str) -> None:
    probe = (
        "import sys\n"
        f"try:\n    exec({code!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'transformers', 'datasets', 'opacus', 'sklearn', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
