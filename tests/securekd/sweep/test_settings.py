"""What a sweep file may say, and how its mistakes are told."""

import sys
from pathlib import Path

import pytest
import tomli_w

from securekd.cli.command import main
from securekd.errors import FolderError, SettingError
from securekd.sweep.folder import SweepFolder
from securekd.sweep.plan import plan_sweep
from securekd.sweep.settings import SweepSettings, differences, load_sweep, merged, parse_sweep
from tests.securekd.sweep.conftest import SWEEP, begun

BAD = [
    ({"axes": {"privacy.epsilom": [1]}}, "'privacy.epsilom' names no setting; did you mean privacy.epsilon?"),
    ({"axes": {"seed": [1, 2]}}, "given by seeds"),
    ({"axes": {"rounds": []}}, "the axis 'rounds' is empty"),
    ({"axes": {"rounds": {"low": 3, "high": 1, "count": 2}}}, "low = 3 is not below high = 1"),
    ({"axes": {"rounds": {"low": 0, "high": 1, "count": 2, "scale": "log"}}}, "a log scale needs low > 0"),
    ({"axes": {"training.clip": {"low": 1, "high": 2}}}, "needs a count"),
    ({"axes": {"rounds": [-1]}}, "rounds = -1"),
    ({"axes": {"privacy.epsilon": ["low"]}}, "privacy.epsilon"),
    ({"seeds": []}, "seeds"),
    ({"seeds": [1, 1]}, "repeats one"),
    ({"sedes": [1]}, "did you mean seeds?"),
    ({"rounds": 2}, "stand in [experiment]"),
    ({"baselines": ["gossip"]}, "baselines"),
    ({"combine": "random"}, "goes with combine = 'random'"),
    ({"draws": 3}, "goes with combine = 'random'"),
    ({"combine": "list", "axes": {"rounds": [1, 2], "training.clip": [1.0]}}, "rounds has 2, training.clip has 1"),
    ({"selection": {"mean": 5}, "combine": "random"}, "give one seed, and no baselines"),
    (
        {"selection": {"mean": 5}, "combine": "random", "seeds": [0], "baselines": [], "axes": {"rounds": [1, 2]}},
        "needs every run to cost the same: 'rounds'",
    ),
    ({"experiment": {"rouns": 3}}, "did you mean rounds?"),
]


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_sweeps_are_refused_in_one_line(changes: dict[str, object], said: str) -> None:
    def plan() -> None:
        settings = parse_sweep(SWEEP | changes)
        plan_sweep(settings, dict(settings.experiment))

    with pytest.raises(SettingError) as refused:
        plan()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_base_file_lies_beside_the_sweep_and_is_overridden_table_by_table(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('rounds = 3\n[privacy]\nnoise = "seeded"\nepsilon = 5.0\n')
    (tmp_path / "sweep.toml").write_text('base = "base.toml"\n[experiment.privacy]\nepsilon = 2.0\n')
    settings, tree = load_sweep(tmp_path / "sweep.toml")
    assert tree == {"rounds": 3, "privacy": {"noise": "seeded", "epsilon": 2.0}}
    assert settings.seeds == (0, 1, 2)
    with pytest.raises(SettingError, match="cannot read"):
        load_sweep(tmp_path / "nowhere.toml")


def test_trees_merge_by_table_and_neither_is_changed() -> None:
    below, above = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 3}, "e": {"f": 4}}
    assert merged(below, above) == {"a": {"b": 3, "c": [1]}, "d": 2, "e": {"f": 4}}
    assert below == {"a": {"b": 1, "c": [1]}, "d": 2}
    cnn, mlp = {"kind": "cnn", "options": {"layers": 2}}, {"kind": "mlp", "options": {"hidden": 8}}
    assert merged({"model": cnn, "epochs": 3}, {"model": mlp}) == {"model": mlp, "epochs": 3}


def test_differences_say_what_was_and_what_is() -> None:
    before, now = {"a": {"b": 1}, "c": 2}, {"a": {"b": 5}, "d": [3]}
    assert differences(before, now) == ["a.b was 1, now 5", "c was 2, now unset", "d was unset, now [3]"]


def test_two_sweeps_in_one_folder_and_a_changed_file_are_refused(tmp_path: Path) -> None:
    folder, _ = begun(tmp_path / "s")
    with pytest.raises(FolderError, match="--resume"):
        begun(tmp_path / "s")
    path = tmp_path / "sweep.toml"
    path.write_text(tomli_w.dumps(SWEEP))
    folder.refuse_other(*load_sweep(path))
    path.write_text(tomli_w.dumps(SWEEP | {"seeds": [0, 1, 2], "experiment": SWEEP["experiment"] | {"rounds": 2}}))  # type: ignore[operator]
    with pytest.raises(FolderError, match=r"experiment\.rounds was 1, now 2; seeds was \[0, 1\], now \[0, 1, 2\]"):
        folder.refuse_other(*load_sweep(path))
    with pytest.raises(FolderError, match="holds no sweep"):
        SweepFolder(tmp_path / "nowhere").plan()


def test_nothing_is_written_for_a_sweep_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError):
        begun(tmp_path / "s", axes={"rounds": [0]})
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "nowhere.toml"], "cannot read nowhere.toml"),
        (["sweep", "bad.toml", "--out", "s"], "'privacy.epsilom' names no setting; did you mean privacy.epsilon?"),
        (["sweep"], "give a sweep file"),
        (["sweep", "good.toml", "--out", "taken"], "taken exists"),
        (["sweep", "good.toml", "--resume", "taken"], "taken holds no sweep"),
        (["sweep", "--resume", "taken", "--out", "s"], "drop --out"),
        (["frontier", "taken", "--max-epsilon", "3"], "taken holds no sweep"),
    ],
)
def test_the_command_refuses_in_one_line_with_exit_two_and_leaves_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "good.toml").write_text(tomli_w.dumps(SWEEP))
    (tmp_path / "bad.toml").write_text(tomli_w.dumps(SWEEP | {"axes": {"privacy.epsilom": [1]}}))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["securekd", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert caught.value.code == 2
    assert lines[-1].startswith("error: ")
    assert said in lines[-1]
    assert sorted(tmp_path.rglob("*")) == before


def test_help_has_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for command, example in (("sweep", "securekd sweep --resume"), ("frontier", "--min-accuracy 0.9")):
        monkeypatch.setattr(sys, "argv", ["securekd", command, "--help"])
        main()
        assert example in capsys.readouterr().out


def test_the_command_lists_all_that_a_sweep_file_may_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["securekd", "config", "--sweep"])
    main()
    shown = capsys.readouterr().out.splitlines()
    for name in SweepSettings.model_fields:
        assert any(line == name or line.startswith(f"{name}.") for line in shown)
