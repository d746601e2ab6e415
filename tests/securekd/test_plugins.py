"""One part of every kind, from a module of the user's, in one run."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from securekd.errors import ModelError, SettingError
from securekd.laboratory.runner import run
from securekd.plugins import load_plugin
from tests.securekd.conftest import small

MODULE = textwrap.dedent(
    """
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Value
    from torch import nn

    from securekd.federation.aggregation.plain import PlainAggregator
    from securekd.federation.strategies.distil import Distil, DistilServer
    from securekd_attacks import Access

    USED = []

    def points():
        rng = np.random.default_rng(0)
        label = rng.integers(0, 2, 600)
        table = {"x": rng.normal(label, 1.0), "y": rng.normal(-label, 1.0), "label": label}
        features = Features({"x": Value("float64"), "y": Value("float64"), "label": ClassLabel(names=["a", "b"])})
        return Dataset.from_dict(table, features=features)

    def narrow(shape, *, width=3):
        USED.append("model")
        return nn.Sequential(nn.Linear(shape.dimensions[0], width), nn.Tanh(), nn.Linear(width, shape.classes))

    def broken(shape):
        return nn.Linear(shape.dimensions[0], shape.classes + 1)

    class Summing(PlainAggregator):
        def server(self, terms, who, identity):
            USED.append("aggregator")
            return super().server(terms, who, identity)

    class LoudServer(DistilServer):
        def play(self, server, number, before):
            USED.append("strategy")
            return (yield from super().play(server, number, before))

    class Loud(Distil):
        server = LoudServer()

    class OldStrategy:
        def play(self, workshop, number, previous):
            return previous

    class OldAggregator:
        sums_only = True

        def aggregate(self, releases, terms):
            return sum(releases.values())

    class Confidence:
        name = "confidence"
        needs = frozenset({Access.LOG_PROBS})

        def score(self, signals):
            USED.append("attack")
            return signals.require_log_probs(self.name).max(axis=1)
    """
)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine_of_a_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "mine_of_a_user"


def test_a_part_of_each_kind_is_plugged_in(mine: str, out: Path) -> None:
    experiment = small(
        strategy=f"{mine}:Loud",
        aggregation=f"{mine}:Summing",
        data={"source": f"{mine}:points", "transfer": 100, "test": 100},
        clients={"count": 4, "models": [{"kind": f"{mine}:narrow", "options": {"width": 4}}]},
        audit={"attacks": ["loss", f"{mine}:Confidence"]},
    )
    result = run(experiment, out)
    assert {leak.attack for leak in result.leakage} == {"loss", "confidence"}
    assert set(load_plugin(f"{mine}:USED")) == {"model", "aggregator", "strategy", "attack"}
    assert result.utility.locals[0].model == f"{mine}:narrow"
    assert result.utility.student.examples == 100


def test_a_model_of_the_wrong_shape_is_refused_before_anything_is_trained(mine: str, out: Path) -> None:
    changed = {"source": f"{mine}:points", "transfer": 100, "test": 100}
    with pytest.raises(ModelError, match="not \\(2, 2\\)"):
        run(small(data=changed, clients={"models": [f"{mine}:broken"]}), out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"strategy": "{mine}:OldStrategy"},
            r"strategy = '\S+:OldStrategy' has no two halves .* `play` as in",
        ),
        (
            {"aggregation": "{mine}:OldAggregator"},
            r"has no `server`, .* no `decryptor`, but `aggregate` as in",
        ),
    ],
)
def test_a_part_as_release_0_1_had_it_is_refused_in_one_line(
    changed: dict[str, str], said: str, mine: str, out: Path
) -> None:
    with pytest.raises(SettingError, match=rf"{said} securekd 0\.1; CHANGELOG says how") as refused:
        run(small(**{key: value.format(mine=mine) for key, value in changed.items()}), out)
    assert "\n" not in str(refused.value)
    assert not out.exists()


@pytest.mark.parametrize("name", ["nowhere:x", "math:nothing", ":x", "math:"])
def test_what_cannot_be_loaded_is_named(name: str) -> None:
    with pytest.raises(SettingError, match="write it as module:attribute"):
        load_plugin(name)


SELF = """
from pathlib import Path
from securekd.plugins import load_plugin

with open("begun", "a") as file:
    print(__name__, file=file)

class Net:
    pass

LOAD
"""


@pytest.mark.parametrize(
    ("load", "begun", "said"),
    [
        ('load_plugin("own:Net")', ["__main__", "own"], "own is a script that begins anew when it is imported"),
        (
            '(lambda: load_plugin("own:Net"))()',
            ["__main__", "own"],
            "call it __main__:Net, or put Net into a module of its own",
        ),
        ('__name__ == "__main__" and print(load_plugin("own:Net"))', ["__main__", "own"], None),
        ('print(load_plugin("__main__:Net"))', ["__main__"], None),
    ],
)
def test_a_script_that_names_itself_is_loaded_or_told_what_it_does(
    load: str, begun: list[str], said: str | None, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(SELF.replace("LOAD", load))
    done = subprocess.run([sys.executable, "own.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (tmp_path / "begun").read_text().split() == begun
    assert (done.returncode == 0) == (said is None), done.stderr
    assert said is None or said in done.stderr.splitlines()[-1]
