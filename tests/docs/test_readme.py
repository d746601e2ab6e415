"""The README's commands and code run as they stand there, in its order, in one folder.

Commands run in this process, as on a machine of one core: two dozen times Python, torch and worker processes would take
minutes to start. Code runs in processes of its own.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from securekd.cli.command import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python|toml)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
MODULES = {
    named.group(1): text for kind, text in BLOCKS if kind == "python" and (named := re.match(r"# (\w+\.py)\n", text))
}


def test_a_strategy_and_an_aggregator_of_ones_own_are_modules_of_at_most_60_lines() -> None:
    assert {"mystrategy.py", "mysum.py"} <= MODULES.keys()
    assert all(len(text.splitlines()) <= 60 for text in MODULES.values())


def test_every_block_is_known_to_this_test() -> None:
    fences = re.findall(r"^```(\w+)$", README, re.MULTILINE)
    assert sorted(fences) == sorted([kind for kind, _ in BLOCKS] + ["mermaid"])
    commands = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip()]
    assert all(shlex.split(line, comments=True)[0] in ("securekd", "python", "make", "pip") for line in commands)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README takes as given."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    rows = ["age,weight,smoker,hospital,diagnosis"]
    for i in range(900):
        age, weight, smoker = rng.uniform(20, 90), rng.normal(75, 12), rng.integers(2)
        sick = rng.random() < 1 / (1 + np.exp(-(age - 60) / 8 - smoker))
        hospital = ("north", "south", "east", "west")[i % 4]
        words = f"{'yes' if smoker else 'no'},{hospital},{'ill' if sick else 'well'}"
        rows.append(f"{age:.1f},{weight:.1f},{words}")
    (folder / "patients.csv").write_text("\n".join(rows) + "\n")
    for name, module in MODULES.items():
        (folder / name).write_text(module)
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


Run = Callable[..., None]


@pytest.fixture
def securekd(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the command in the folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)

    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["securekd", *words])
        try:
            main()
        except SystemExit as ended:
            pytest.fail(f"securekd {shlex.join(words)} ended with {ended.code}: {capsys.readouterr().err}")

    yield run
    for name in MODULES:
        sys.modules.pop(name.removesuffix(".py"), None)


def python(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr


def test_commands_and_code_run_in_order(folder: Path, securekd: Run) -> None:
    for kind, text in BLOCKS:
        if kind == "python" and text not in MODULES.values():
            python("-c", text, cwd=folder)
        if kind == "sh":
            for line in text.splitlines():
                match shlex.split(line, comments=True):
                    case ["securekd", *words]:
                        securekd(*words)
                    case ["python", *words]:
                        python(*words, cwd=folder)  # make and pip install the environment that runs this


def test_each_module_is_used_by_a_command() -> None:
    commands = "".join(text for kind, text in BLOCKS if kind == "sh")
    for name in MODULES:
        module = name.removesuffix(".py")
        assert f"{module}:" in commands, f"no command uses {name}"


def test_the_configuration_runs(folder: Path, securekd: Run) -> None:
    (text,) = (text for kind, text in BLOCKS if kind == "toml" and "[axes]" not in text)
    (folder / "patients.toml").write_text(text)
    securekd("run", "patients.toml", "--out", "patients")


def test_the_sweep_is_the_example() -> None:
    import tomllib

    (text,) = (text for kind, text in BLOCKS if kind == "toml" and "[axes]" in text)
    assert tomllib.loads(text) == tomllib.loads((ROOT / "examples" / "sweep_digits.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["mnist.toml", "ag_news.toml"])
def test_examples_are_valid_configurations(name: str) -> None:
    from securekd.settings.config import load_experiment

    assert load_experiment(ROOT / "examples" / name).rounds >= 1


@pytest.mark.parametrize("name", ["sweep_digits.toml", "sweep_mnist.toml"])
def test_sweeps_among_the_examples_can_be_planned(name: str) -> None:
    from securekd.sweep.plan import plan_sweep
    from securekd.sweep.settings import load_sweep

    plan = plan_sweep(*load_sweep(ROOT / "examples" / name))
    for run in plan.runs:
        models = {(m.kind, str(m.options)) for m in run.experiment.client_models(run.experiment.client_count() or 1)}
        student = run.experiment.student.model
        assert models == {(student.kind, str(student.options))}


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "SECURITY.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{page} links to {target}"


def test_the_result_is_the_one_that_was_measured() -> None:
    import importlib.util
    import json

    spec = importlib.util.spec_from_file_location("default_experiment", ROOT / "benchmarks" / "default_experiment.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    figures = json.loads((ROOT / "benchmarks" / "results" / "default_experiment.json").read_text())
    assert benchmark.BEGIN + "\n" + benchmark.section(figures) + benchmark.END in README


def test_the_ladder_shows_what_it_is_for_in_figures_that_were_measured() -> None:
    import importlib.util
    import json

    spec = importlib.util.spec_from_file_location("leakage_ladder", ROOT / "benchmarks" / "leakage_ladder.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # dataclasses look their module up
    spec.loader.exec_module(benchmark)
    record = json.loads((ROOT / "benchmarks" / "results" / "leakage_ladder.json").read_text())
    assert benchmark.markdown(record) == (ROOT / "benchmarks" / "results" / "leakage_ladder.md").read_text()
    assert all("do not touch" in said for said in benchmark.claims(record))
