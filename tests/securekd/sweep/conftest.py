"""A sweep small enough to run in seconds, and real in every part."""

from pathlib import Path

import pytest
import tomli_w

from securekd.sweep.execution import carry_out_sweep
from securekd.sweep.folder import SweepFolder
from securekd.sweep.page import write_outputs
from securekd.sweep.plan import SweepPlan
from securekd.sweep.settings import parse_sweep
from tests.securekd.conftest import SMALL

MODEL = {"kind": "mlp", "options": {"hidden": 8}}

BASE = SMALL | {
    "rounds": 1,
    "clients": {"count": 4, "models": [MODEL]},
    "student": {"epochs": 3, "model": MODEL},
    "training": {"epochs": 4, "sampling_rate": 0.5, "plain_epochs": 2},
    "data": {"transfer": 60, "test": 60, "private": 160},
}

SWEEP: dict[str, object] = {
    "seeds": [0, 1],
    "baselines": ["nonprivate"],
    "experiment": BASE,
    "axes": {"privacy.epsilon": [2.0, 8.0], "strategy": ["distil", "fedavg"]},
}


def begun(out: Path, **changes: object) -> tuple[SweepFolder, SweepPlan]:
    """A sweep's folder and plan; nothing is carried out."""
    settings = parse_sweep(SWEEP | changes)
    folder = SweepFolder(out)
    return folder, folder.create(settings, dict(settings.experiment))


def finished(out: Path, **changes: object) -> tuple[SweepFolder, SweepPlan]:
    """A sweep that was carried out, one run after the other in this process."""
    folder, plan = begun(out, **changes)
    carry_out_sweep(plan, folder, workers=1)
    write_outputs(plan, folder)
    return folder, plan


def proving(**changes: object) -> dict[str, object]:
    """The base with real noise, so that something is proven."""
    return BASE | {"privacy": {"noise": "os"}} | changes


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepFolder, SweepPlan]:
    """One finished sweep with proven ε and one point that cannot meet its own, which tests only read."""
    axes = {"privacy.epsilon": [1e-6, 8.0], "strategy": ["distil", "fedavg"]}
    return finished(tmp_path_factory.mktemp("sweeps") / "sweep", experiment=proving(), axes=axes)


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(tomli_w.dumps(SWEEP))
    return path
