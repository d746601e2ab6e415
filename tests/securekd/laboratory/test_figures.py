"""The figures that the project stands for, on whole runs: slow, and with seeded noise, so that they repeat."""

import os
from pathlib import Path

import numpy as np
import pytest

from securekd.laboratory.runner import run
from securekd.records.record import Result
from securekd.settings.config import load_experiment

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("SECUREKD_DATA", ROOT.parent / "shared" / "data"))
SEEDS = (0, 1, 2)

pytestmark = pytest.mark.slow


def runs(folder: Path, *overrides: str) -> list[Result]:
    return [
        run(load_experiment(None, [f"seed={seed}", "privacy.noise=seeded", *overrides]), folder / f"{i}-{seed}")
        for i, seed in enumerate(SEEDS)
    ]


def accuracy(results: list[Result], who: str) -> float:
    return float(np.mean([getattr(r.utility, who).accuracy for r in results]))


def test_the_default_student_beats_the_mean_client_and_nears_the_centralised_model(tmp_path: Path) -> None:
    results = runs(tmp_path)
    assert accuracy(results, "student") >= accuracy(results, "local_mean") + 0.10
    assert accuracy(results, "student") >= accuracy(results, "centralized") - 0.05


def test_without_privacy_the_student_is_within_four_points_of_the_centralised_model(tmp_path: Path) -> None:
    results = runs(tmp_path, "privacy.dp_sgd=false", "release.noise=0")
    assert accuracy(results, "student") >= accuracy(results, "centralized_nonprivate") - 0.04


def test_masked_plain_and_homomorphic_students_agree_in_the_default_run(tmp_path: Path) -> None:
    masked, *others = (
        run(load_experiment(None, ["privacy.noise=seeded", f"aggregation={how}"]), tmp_path / how)
        for how in ("masking", "plain", "ckks", "bfv")
    )
    for other in others:
        assert abs(masked.utility.student.accuracy - other.utility.student.accuracy) <= 0.01


def example(name: str, needs: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    if not (DATA / needs).is_dir():
        pytest.skip(f"no {needs} in {DATA}; set SECUREKD_DATA to a folder that has it")
    monkeypatch.setenv("SECUREKD_DATA", str(DATA))
    return run(load_experiment(ROOT / "examples" / name), folder / "run")


def test_mnist_at_epsilon_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = example("mnist.toml", "mnist", tmp_path, monkeypatch)
    assert all(g.epsilon <= 3.0 for g in result.privacy.guarantees if g.unit == "example" and g.epsilon is not None)
    assert result.privacy.guarantees[0].epsilon is not None
    assert result.utility.student.examples == 10_000
    assert result.utility.student.accuracy >= 0.975
    assert result.utility.student.accuracy > result.utility.local_mean.accuracy + 0.10


def test_ag_news_student_is_better_than_the_mean_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = example("ag_news.toml", "ag_news", tmp_path, monkeypatch)
    assert result.utility.student.accuracy >= 0.82
    assert result.utility.student.accuracy > result.utility.local_mean.accuracy
