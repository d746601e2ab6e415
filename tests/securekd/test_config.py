"""Configuration: round trips, overrides, and one-line refusals that name the value and the remedy."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd.config import all_settings, load_experiment, parse_experiment, to_toml
from securekd.errors import SettingError
from securekd.experiment import Experiment

BAD = [
    ("rouns=3", "unknown setting 'rouns'; did you mean rounds?"),
    ("privacy.epslon=3", "did you mean privacy.epsilon?"),
    ("privacy.epsilon=0", "privacy.epsilon = 0: should be greater than 0"),
    ("privacy.epsilon=-1", "privacy.epsilon = -1: should be greater than 0"),
    ("privacy.epsilon=nan", "privacy.epsilon = nan"),
    ("privacy.delta=1.0", "privacy.delta = 1.0: should be less than 1"),
    ("training.sampling_rate=1.5", "training.sampling_rate = 1.5"),
    ("student.loss=kl", "student.loss = 'kl': should be 'forward_kl'"),
    ("rounds=many", "rounds = 'many'"),
    ("clients=[{mdel=1}]", "clients.0.model: Field required"),
    ("clients.count=0", "clients.count = 0"),
    ("data.partition.kind=column", "column goes with kind"),
    ("data.columns.age={low=3, high=1}", "declare either low < high"),
    ("rounds", "is not key=value"),
    ("=3", "is not key=value"),
    ("rounds.x.y=3", "should be a valid integer"),
    ("clients.models.0=3", "should be a valid tuple"),
    ("seed=a b", "neither a TOML value nor a bare word"),
]


@pytest.mark.parametrize(("override", "message"), BAD)
def test_bad_settings_are_refused_in_one_line(override: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_experiment(None, [override])
    text = str(caught.value)
    assert message in text
    assert "\n" not in text


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.toml"
    path.write_text("rounds = 2\nrounds = 3\n")
    with pytest.raises(SettingError, match="a key may stand only once"):
        load_experiment(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"nowhere.toml: No such file"):
        load_experiment(tmp_path / "nowhere.toml")


def test_overrides_take_toml_and_bare_words(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("rounds = 3\n[privacy]\nepsilon = 2\n")
    found = load_experiment(
        path, ["aggregation=plain", "privacy.epsilon=4.5", 'clients.models=["cnn", {kind="mlp", options={hidden=8}}]']
    )
    assert (found.rounds, found.aggregation, found.privacy.epsilon) == (3, "plain", 4.5)
    assert [m.kind for m in found.clients.models] == ["cnn", "mlp"]
    assert found.client_models(3)[2] == found.clients.models[0]


def test_clients_may_be_listed_one_by_one() -> None:
    found = parse_experiment(
        {"clients": [{"model": "cnn", "count": 2}, {"model": {"kind": "mlp", "learning_rate": 0.1}}]}
    )
    assert found.client_count() == 3
    assert [m.kind for m in found.client_models(3)] == ["cnn", "cnn", "mlp"]
    assert parse_experiment(tomllib.loads(to_toml(found))) == found


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rounds": st.integers(1, 50),
            "seed": st.integers(0, 2**62),
            "aggregation": st.sampled_from(["masking", "plain"]),
            "privacy": st.fixed_dictionaries(
                {"epsilon": st.floats(1e-3, 1e3), "dp_sgd": st.booleans(), "delta": st.floats(1e-12, 0.5)}
            ),
            "release": st.fixed_dictionaries({"clip": st.floats(1e-3, 1e3), "noise": st.floats(0, 10)}),
        },
    )
)
def test_resolved_toml_reads_back_as_itself(tree: dict[str, object]) -> None:
    experiment = parse_experiment(tree)
    assert parse_experiment(tomllib.loads(to_toml(experiment))) == experiment


def test_the_default_is_the_embedded_experiment() -> None:
    assert load_experiment() == Experiment()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Experiment().privacy.epsilon = 3  # type: ignore[misc]


def test_every_setting_says_what_it_means() -> None:
    settings = all_settings()
    assert len({s.key for s in settings}) == len(settings) > 50
    assert not [s.key for s in settings if not s.meaning]
    by_key = {s.key: s for s in settings}
    assert by_key["privacy.epsilon"].default == "8.0"
    assert by_key["privacy.epsilon"].range == "> 0"
    assert by_key["data.partition.alpha"].meaning
    assert by_key["[[clients]].model"].default == "(required)"
