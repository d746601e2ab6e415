"""Twenty of the benchmark's 256 points: noise that is at most 1% (in the corner: 3%) above the smallest."""

import importlib.util
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[3] / "benchmarks" / "accounting.py"
_SPEC = importlib.util.spec_from_file_location("accounting_benchmark", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
accounting = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = accounting
_SPEC.loader.exec_module(accounting)

POINTS = [
    (1e-5, 1, 50.0, 1e-11),
    (1e-5, 1, 0.5, 1e-15),
    (1e-5, 1, 5.0, 1e-7),
    (1e-5, 1, 50.0, 1e-7),
    (1e-5, 200, 50.0, 1e-15),
    (1e-5, 200, 0.05, 1e-3),
    (1e-5, 10_000_000, 5.0, 1e-3),
    (1e-3, 1, 0.05, 1e-7),
    (1e-3, 1, 50.0, 1e-15),
    (1e-3, 200, 5.0, 1e-11),
    (1e-3, 50_000, 0.5, 1e-11),
    (1e-3, 50_000, 5.0, 1e-15),
    (0.1, 1, 0.05, 1e-15),
    (0.1, 200, 0.5, 1e-15),
    (0.1, 200, 50.0, 1e-3),
    (0.1, 50_000, 0.05, 1e-7),
    (1.0, 1, 0.05, 1e-15),
    (1.0, 200, 5.0, 1e-11),
    (1.0, 50_000, 50.0, 1e-3),
    (1.0, 1, 50.0, 1e-7),
]


def test_the_points_are_points_of_the_benchmark() -> None:
    every = [(p.rate, p.steps, p.epsilon, p.delta) for p in accounting.points()]
    assert len(set(every)) == len(every) == 256
    assert len(set(POINTS) & set(every)) == len(POINTS) == 20


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "steps", "epsilon", "delta"), POINTS)
def test_noise_is_within_its_bound(rate: float, steps: int, epsilon: float, delta: float) -> None:
    row = accounting.measure(accounting.Point(rate=rate, steps=steps, epsilon=epsilon, delta=delta))
    if row.noise_ratio is None:
        assert not row.promised
        return
    assert row.noise_ratio <= row.bound
    assert row.epsilon_ratio >= 1 - 1e-4
