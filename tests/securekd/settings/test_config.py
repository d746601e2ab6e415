"""Configuration: round trips, overrides, and one-line refusals that name the value and the remedy."""

import codecs
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd.errors import SettingError
from securekd.settings.config import all_settings, load_experiment, parse_experiment, to_toml
from securekd.settings.experiment import Experiment
from securekd.sweep.plan import plan_sweep
from securekd.sweep.settings import load_sweep

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


TEXT = '# ε for one client\nrounds = 3\n[data]\nlabel = "größe"\n'


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_with_a_byte_order_mark_or_other_line_ends_is_read(
    mark: bytes, encoding: str, end: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(mark + TEXT.replace("\n", end).encode(encoding))
    found = load_experiment(path)
    assert (found.rounds, found.data.label) == (3, "größe")
    path.write_bytes(mark + f"seeds = [7]{end}[axes]{end}rounds = [1, 2]{end}".encode(encoding))
    assert load_sweep(path)[0].seeds == (7,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("latin-1", "replace"), "is not UTF-8 text: .*; save it as UTF-8"),
        (codecs.BOM_UTF8 + b"label = '\xff'", "is not UTF-8-SIG text: .*; save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"odd", "is not UTF-16 text: .*; save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "save it as UTF-8|not valid TOML"),
        (b"\x00" * 100, "not valid TOML"),
        (b"rounds = " + b"[" * 100_000, "holds what TOML cannot"),
        (b"rounds = 1" + b"0" * 5000, "holds what TOML cannot"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    for load in (load_experiment, load_sweep):
        with pytest.raises(SettingError, match=message) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300 + len(str(path))


NUMBERS = [s.key for s in all_settings() if s.type in ("integer", "number") and "[[" not in s.key]


@pytest.mark.parametrize("key", [*NUMBERS, "data.columns.a.low", "clients.models"])
@pytest.mark.parametrize("value", [10**400, -(10**400), 2**64, 2**63, -(2**63) - 1])
def test_an_integer_of_more_than_64_bits_is_refused_in_one_line(key: str, value: int) -> None:
    with pytest.raises(SettingError) as caught:
        load_experiment(None, [f"{key}={value}"])
    text = str(caught.value)
    assert key.partition(".")[0] in text
    assert str(value)[:20] in text
    assert "\n" not in text
    assert len(text) < 250


@pytest.mark.parametrize("digits", [5000, 20_000])
@pytest.mark.parametrize("base", ["", "0x"])
def test_thousands_of_digits_are_refused_in_one_line(base: str, digits: int) -> None:
    with pytest.raises(SettingError) as caught:
        load_experiment(None, [f"rounds={base}1{'0' * digits}"])
    assert len(str(caught.value)) < 250


def test_an_integer_is_what_was_written_or_refused() -> None:
    column = "data.columns.a={low=0, high=HIGH}"
    for exact in (2**53, 2**53 + 1, 2**53 + 2, 2**54 + 2, 2**62, 2**62 + 1):
        found = load_experiment(None, [column.replace("HIGH", str(exact)), f"seed={exact + 1}"])
        assert (found.data.columns["a"].high, found.seed) == (exact, exact + 1)
        assert parse_experiment(tomllib.loads(to_toml(found))) == found
    for rounded in (2**53 + 1, 2**54 + 2, 2**62 + 1):
        with pytest.raises(SettingError, match=f"{rounded}: no floating-point number is this integer"):
            load_experiment(None, [f"privacy.client_epsilon={rounded}"])


def test_an_axis_of_great_numbers_is_refused_in_one_line_or_right(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    for axes, message in (
        (f'"privacy.epsilon" = [{10**400}]', "more than 64 bits"),
        (f'"rounds" = [{2**64}]', "more than 64 bits"),
        (f'"release.clip" = {{low = 1, high = {2**53 + 1}, count = 2}}', "no floating-point number"),
        (f'"release.clip" = {{low = 1, high = 2, count = {2**62}}}', "less than or equal to 100000"),
    ):
        path.write_text(f"[axes]\n{axes}\n")
        with pytest.raises(SettingError, match=message) as caught:
            plan_sweep(*load_sweep(path))
        assert len(str(caught.value)) < 400
    path.write_text('seeds = [0]\n[axes]\n"release.clip" = {low = 1e18, high = 1e20, count = 2}\n')
    runs = plan_sweep(*load_sweep(path)).runs
    assert [run.experiment.release.clip for run in runs] == [1e18, 1e20]


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
