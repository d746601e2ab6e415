"""A federation small enough to run in seconds, and real in every part."""

from pathlib import Path

import pytest

from securekd.settings.config import parse_experiment
from securekd.settings.experiment import Experiment

SMALL = {
    "rounds": 2,
    "data": {"transfer": 80, "test": 120, "private": 240},
    "clients": {"count": 4, "models": ["logistic", {"kind": "mlp", "options": {"hidden": 16}}, "cnn"]},
    "training": {"epochs": 4, "sampling_rate": 0.5, "digest_epochs": 2, "plain_epochs": 3},
    "privacy": {"noise": "seeded"},
    "student": {"epochs": 5},
    "runtime": {"workers": 1},
}


def small(**changes: object) -> Experiment:
    """The small federation with some tables or values changed."""
    tree: dict[str, object] = {key: dict(value) if isinstance(value, dict) else value for key, value in SMALL.items()}
    for key, value in changes.items():
        tree[key] = tree[key] | value if isinstance(value, dict) and isinstance(tree.get(key), dict) else value
    return parse_experiment(tree)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run folder that does not exist yet."""
    return tmp_path / "run"
