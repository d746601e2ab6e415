"""The simplest yardstick: it exists for every modality, and a run that it beats says so."""

from pathlib import Path

import numpy as np
import pytest

from securekd.cli.console import summary
from securekd.laboratory.runner import run
from securekd.laboratory.simple import simple_model
from securekd.learning.fits import Fits
from securekd.models.shape import InputShape
from securekd.records.record import read_result
from securekd.report.facts import shortfall
from tests.securekd.conftest import small


@pytest.mark.parametrize(
    ("shape", "transfer", "kind", "components"),
    [
        (InputShape("tabular", (7,), 2), np.random.default_rng(0).random((40, 7)), "logistic", 5),
        (InputShape("tabular", (1,), 2), np.random.default_rng(0).random((40, 1)), "logistic", None),
        (InputShape("tabular", (7,), 2), np.zeros((40, 7)), "logistic", None),
        (InputShape("image", (1, 8, 8), 2), np.random.default_rng(0).random((40, 1, 8, 8)), "logistic", 20),
        (InputShape("image", (1, 16, 16), 2), np.random.default_rng(0).random((130, 1, 16, 16)), "hog", 100),
        (InputShape("text", (5,), 2, 9), np.ones((40, 5), np.int64), "logistic", None),
    ],
)
def test_it_has_as_many_components_as_there_are(
    shape: InputShape, transfer: np.ndarray, kind: str, components: int | None
) -> None:
    inputs = transfer if transfer.dtype == np.int64 else transfer.astype(np.float32)
    found = simple_model(Fits(inputs, shape), shape, momentum=0.9)
    assert (found.kind, found.options.get("components")) == (kind, components)


def test_a_run_that_it_beats_says_so_and_what_to_try(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = small(student={"epochs": 1, "learning_rate": 1e-6}, training={"epochs": 30})
    result = run(bad, out)
    simple, student = result.utility.simple, result.utility.student
    assert simple is not None
    assert simple.accuracy > max(0.7, student.accuracy + 0.02)
    summary(result, out)
    said = " ".join(capsys.readouterr().out.split())
    assert "linear head on all data, same DP" in said
    assert f"has {simple.accuracy:.1%}, and the student {student.accuracy:.1%}: try such heads" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "It could be better:" in page
    assert read_result(out).utility.simple == simple


def test_a_run_that_is_good_says_nothing_and_old_records_have_none(out: Path) -> None:
    sums = {"kind": "logistic", "loss": "class_sums", "options": {"components": 20}}
    good = small(
        clients={"models": [sums]},
        data={"transfer": 400, "private": None, "test": 300},
        training={"epochs": 1, "sampling_rate": 1.0},
        rounds=1,
        release={"noise": 0.0, "clip": 100.0},
        student={"model": "kernel", "loss": "least_squares", "settle": True, "consensus": "mean"},
    )
    result = run(good, out)
    assert shortfall(result) is None
    assert "It could be better" not in (out / "report.html").read_text(encoding="utf-8")
    before = result.model_copy(update={"utility": result.utility.model_copy(update={"simple": None})})
    assert shortfall(before) is None
