"""The agreement: one document, one encoding, one digest; all that can change a result is in it, and nothing else."""

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from torch import nn

from securekd.errors import AgreementError
from securekd.federation.agreement import Agreement, Member, refuse_others
from securekd.federation.party import questions_of
from securekd.laboratory.plan import make_plan
from securekd.models.shape import InputShape
from securekd.settings.config import parse_experiment
from securekd.settings.experiment import Experiment
from securekd.settings.models import ClientModel
from securekd.settings.table import Settings
from tests.securekd.conftest import small

Tree = dict[str, Any]
Where = tuple[str | int, ...]

MLP = {"kind": "mlp", "options": {"hidden": 16}}
OWN_MODEL = {"kind": f"{__name__}:own_model", "options": {"width": 8, "words": ["ä", 'q"'], "deep": {"on": True}}}
FEDAVG = {"strategy": "fedavg", "clients": {"models": [MLP]}, "student": {"model": MLP}}
NAMES = ('Sankt "Élise"', "back\\slash", "zero​width", "🏥 tab\tand, comma", "Ångström & söner")


def own_model(shape: InputShape, width: int, words: list[str], deep: dict[str, bool]) -> nn.Module:
    hidden = nn.Linear(int(shape.dimensions[-1] ** 2), width)
    return nn.Sequential(nn.Flatten(), hidden, nn.Tanh(), nn.Linear(width, shape.classes))


KINDS: dict[str, Tree] = {
    "distil": {},
    "one client after the other": {"clients": [{"model": "logistic", "count": 2}, {"model": MLP}]},
    "distil, weighted, sampled": {
        "student": {"consensus": "weighted"},
        "privacy": {"neighbours": "zero_out"},
        "cohort": {"sampling_rate": 0.5},
        "release": {"rows": 30, "scores": "top_k", "step": 0.001},
    },
    "pate": {"strategy": "pate", "release": {"scores": "votes"}, "pate": {"threshold": 0.3, "answers": 30}},
    "fedavg": FEDAVG,
    "no DP": {"privacy": {"dp_sgd": False}, "release": {"noise": 0}},
    "client_epsilon": {"privacy": {"noise": "os", "client_epsilon": 20.0}},
    "own models": {"clients": {"models": [OWN_MODEL, {**OWN_MODEL, "learning_rate": 0.1}]}},
    "plain": {"aggregation": "plain", "release": {"mechanism": "gaussian"}},
    "bfv": {"aggregation": "bfv"},
}


def quick(**changes: object) -> Experiment:
    """The small federation of the quickest models, but for some changes."""
    chosen: Tree = {"clients": {"models": ["logistic"]}, "student": {"model": "logistic"}}
    for key, value in changes.items():
        chosen[key] = chosen[key] | value if isinstance(value, dict) and key in chosen else value
    return small(**chosen)


def agreement_of(**changes: object) -> Agreement:
    return make_plan(quick(**changes)).agreement


@cache
def default() -> Agreement:
    return agreement_of()


@cache
def usual() -> Agreement:
    return agreement_of(clients={"count": 3, "models": [OWN_MODEL, "logistic"]})


def rebuilt(**changes: object) -> Agreement:
    """The usual agreement with some parts put in the place of its own, and checked."""
    parts = {name: getattr(usual(), name) for name in Agreement.model_fields if name != "schema_"}
    return Agreement(**parts | changes)


def refused(data: bytes, *said: str) -> None:
    """An agreement that is refused in one line, which says where and what to do."""
    with pytest.raises(AgreementError) as caught:
        Agreement.decode(data)
    line = str(caught.value)
    assert caught.value.exit_code == 2
    assert line.isprintable(), line
    assert len(line) < 400
    assert "sent again" in line or "install" in line or "compare" in line or "have the model" in line
    for word in said:
        assert word in line


# ---- there and back ----


def round_trip(agreement: Agreement) -> None:
    found = Agreement.decode(agreement.encoded)
    assert found == agreement
    assert (found.encoded, found.digest, hash(found.digest)) == (
        agreement.encoded,
        agreement.digest,
        hash(agreement.digest),
    )
    assert found.context(b"asked") == agreement.context(b"asked")
    assert [m.model.options for m in found.members] == [m.model.options for m in agreement.members]
    assert json.loads(agreement.encoded)["schema"] == "securekd.agreement/1"


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind: str) -> None:
    plan = make_plan(quick(**KINDS[kind]))
    round_trip(plan.agreement)
    again = Agreement.decode(plan.agreement.encoded)
    asked, stated = questions_of(plan.agreement, plan.strategy), questions_of(again, plan.strategy)
    assert asked.keys() == stated.keys()
    for phase, question in asked.items():
        assert stated[phase].release == question.release
        assert stated[phase].knowledge == question.knowledge
        assert stated[phase].release.entries("one", 1) == question.release.entries("one", 1)  # in the same order
    entries = [again.training_entry(again.members[0].name, 1)]
    assert entries == [plan.agreement.training_entry(plan.clients[0].name, 1)]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """A table of institutions with unusual names, in a file with any name."""

    def write(name: str) -> Path:
        quoted = ['"' + institution.replace('"', '""') + '"' for institution in NAMES]
        rows = [
            f"{i % 83},{i % 7}.5,{('red', 'blue')[i % 2]},{quoted[i % 5]},{('ill', 'well')[i // 5 % 2]}"
            for i in range(400)
        ]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("age,dose,colour,where,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
        return path

    return write


def of_table(path: Path) -> Agreement:
    columns = {"age": {"low": 0, "high": 2**53 + 1}, "colour": {"categories": ["red", "blüe", "blue"]}}
    return agreement_of(
        data={
            "source": str(path), "transfer": 60, "test": 60, "private": 250, "columns": columns,
            "partition": {"kind": "column", "column": "where"},
        },
        clients={"models": ["logistic"], "count": None},
    )  # fmt: skip


def test_a_table_with_declared_columns_and_unusual_names(table: Callable[..., Path]) -> None:
    agreement = of_table(table("table.csv"))
    round_trip(agreement)
    assert sorted(m.name for m in agreement.members) == sorted(NAMES)
    assert agreement.shape.modality == "tabular"
    assert Agreement.decode(agreement.encoded).settings.data.columns["age"].high == 2**53 + 1
    assert agreement.member(NAMES[0]).name == NAMES[0]
    with pytest.raises(AgreementError, match="is no member"):
        agreement.member("Sankt Elise")


def test_where_a_client_has_its_data_is_not_told(table: Callable[..., Path], tmp_path: Path) -> None:
    one, other = of_table(table("secret-place/patients.csv")), of_table(table("elsewhere.csv"))
    assert one.digest == other.digest
    for word in ("secret-place", "patients", str(tmp_path), tmp_path.name, "elsewhere", "where"):
        assert word.encode() not in one.encoded


def test_texts(tmp_path: Path) -> None:
    rows = [f"the {i}th match ended in a draw,{('sport', 'money')[i % 2]}" for i in range(300)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    data = {"source": str(tmp_path / "texts.csv"), "tokenizer": "bytes", "transfer": 60, "test": 60, "private": 150}
    agreement = agreement_of(data=data, clients={"models": ["logistic"]}, student={"model": "logistic"})
    round_trip(agreement)
    assert agreement.shape.vocabulary > 0


# ---- canonical ----

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
OPTIONS = st.dictionaries(
    WORDS,
    st.recursive(st.none() | st.booleans() | NUMBERS | WORDS, lambda inner: st.lists(inner, max_size=3), max_leaves=4),
    max_size=3,
)
MODELS = st.builds(ClientModel, kind=WORDS, options=OPTIONS, learning_rate=st.none() | st.floats(1e-300, 1e300))
MEMBERS = st.builds(Member, name=WORDS, model=MODELS, examples=st.integers(1, 2**62))
COLUMNS = st.builds(
    lambda low, width: {"low": low, "high": low + width}, st.integers(-(2**60), 2**60), st.integers(1, 2**60)
)
POSITIVE = st.floats(5e-324, 1e300)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "rounds": st.integers(1, 1000),
        "strategy": WORDS,
        "data": st.fixed_dictionaries({"label": WORDS, "columns": st.dictionaries(WORDS, COLUMNS, max_size=2)}),
        "privacy": st.fixed_dictionaries(
            {"epsilon": POSITIVE, "client_epsilon": st.none() | POSITIVE, "noise": st.sampled_from(["os", "seeded"])}
        ),
        "release": st.fixed_dictionaries({"noise": st.floats(0, 1e300), "step": st.none() | POSITIVE}),
        "student": st.fixed_dictionaries({"model": st.fixed_dictionaries({"kind": WORDS, "options": OPTIONS})}),
    },
)


@settings(max_examples=60)
@given(TREES, st.lists(MEMBERS, min_size=1, max_size=3, unique_by=lambda m: m.name), st.lists(WORDS, max_size=3))
def test_whatever_is_agreed_on_is_written_in_one_way(tree: Tree, members: list[Member], classes: list[str]) -> None:
    made = rebuilt(settings=parse_experiment(tree), members=tuple(members), classes=tuple(classes))
    round_trip(made)
    again = rebuilt(settings=parse_experiment(copy.deepcopy(tree)), members=tuple(members), classes=tuple(classes))
    assert again.digest == made.digest
    if made.encoded != usual().encoded:
        assert made.digest != usual().digest


@settings(max_examples=300)
@given(st.integers(0, 10**6), st.binary(max_size=2), st.integers(0, 3))
@example(0, b"\xef\xbb\xbf", 0)
@example(0, b"", 1)
def test_a_changed_byte_is_refused_or_is_another_agreement(place: int, put: bytes, over: int) -> None:
    data = usual().encoded
    place %= len(data)
    changed = data[:place] + put + data[place + over :]
    found = decoded(changed)
    assert found is None or found.encoded == changed
    assert (found is not None and found.digest == usual().digest) == (changed == data)


def test_an_agreement_that_is_cut_off_is_refused() -> None:
    data = usual().encoded
    for end in [*range(20), *range(20, len(data), 97), len(data) - 1]:
        refused(data[:end])


def decoded(data: bytes) -> Agreement | None:
    """The agreement, or None where it is refused."""
    try:
        return Agreement.decode(data)
    except AgreementError:
        refused(data)
        return None


def spelt(document: Any, **how: Any) -> bytes:
    return json.dumps(document, **{"separators": (",", ":"), "sort_keys": True, "ensure_ascii": False} | how).encode()


def backwards(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: backwards(tree[key]) for key in sorted(tree, reverse=True)}
    return [backwards(one) for one in tree] if isinstance(tree, list) else tree


@pytest.mark.parametrize(
    "spell",
    [
        lambda data: spelt(backwards(json.loads(data)), sort_keys=False),
        lambda data: spelt(json.loads(data), separators=(", ", ": ")),
        lambda data: spelt(json.loads(data), indent=1),
        lambda data: spelt(json.loads(data), ensure_ascii=True),
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: data.replace(b'"transfer_rows":80', b'"transfer_rows":80,"transfer_rows":80'),
        lambda data: data.replace(b'"transfer_rows":80', b'"transfer_rows":79,"transfer_rows":80'),
        lambda data: data.replace(b'"transfer_rows":80', b'"transfer_rows":80.0'),
        lambda data: data.replace(b'"transfer_rows":80', b'"transfer_rows":8e1'),
        lambda data: data.replace(b'"transfer_rows":80', b'"transfer_rows":"80"'),
        lambda data: data.replace(b'"epsilon":8.0', b'"epsilon":8'),
        lambda data: data.replace(b'"epsilon":8.0', b'"epsilon":8.00'),
        lambda data: data.replace(b'"epsilon":8.0', b'"epsilon":0.8e1'),
        lambda data: data.replace(b'"delta":1e-05', b'"delta":0.00001'),
        lambda data: data.replace(b'"dp_sgd":true', b'"dp_sgd":1'),
        lambda data: data.replace(b'"client-01"', b'"\\u0063lient-01"'),
        lambda data: data.replace(b'"cohort":', b'"audit":{},"cohort":'),
        lambda data: data.replace(b'"cohort":', b'"clients":{"count":3},"cohort":'),
        lambda data: data.replace(b'"columns":{}', b'"columns":{},"source":"digits"'),
        lambda data: data.replace(b'"width":8', b'"width":1e400'),
    ],
)
def test_another_spelling_is_refused(spell: Callable[[bytes], bytes]) -> None:
    data = usual().encoded
    assert spell(data) != data
    refused(spell(data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "document"),
        (b"{}", "securekd.agreement/1"),
        (b"null", "document"),
        (b"[]", "document"),
        (b"[" * 10_000, "document"),
        (b"9" * 10_000, "document"),
        (b"\0", "document"),
        ('{"schema": "ä"}'.encode("latin-1"), "document"),
        ('{"schema": "ä"}'.encode("utf-16"), "document"),
        (b'{"a\\nb\\u001b[31m": 1}', "securekd.agreement/1"),
        (b'{"' + b"long" * 1000 + b'": 1}', "securekd.agreement/1"),
    ],
    ids=str,
)
def test_what_is_no_agreement_is_refused(data: bytes, said: str) -> None:
    refused(data, said)


def tables(tree: Any, where: Where = ()) -> Iterator[Where]:
    """Where in a document each table stands, that of a model's options aside, whose keys are the model's."""
    if isinstance(tree, dict):
        yield where
        for key in tree.keys() - {"options"}:
            yield from tables(tree[key], (*where, key))
    if isinstance(tree, list):
        for number, one in enumerate(tree[:1]):
            yield from tables(one, (*where, number))


def at(tree: Any, where: Where) -> Any:
    for key in where:
        tree = tree[key]
    return tree


def test_an_unknown_key_is_refused_by_name_wherever_it_stands() -> None:
    document = json.loads(usual().encoded)
    places = list(tables(document))
    assert len(places) > 15
    for where in places:
        changed = copy.deepcopy(document)
        at(changed, where)["strange\n"] = 1
        refused(spelt(changed), "strange", *map(str, where))


def test_a_missing_key_is_refused_wherever_it_is_missing() -> None:
    document = json.loads(usual().encoded)
    for where in tables(document):
        for key in at(document, where):
            changed = copy.deepcopy(document)
            del at(changed, where)[key]
            refused(spelt(changed))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(number: float) -> None:
    document = json.loads(usual().encoded)
    for where, value in leaves(document):
        if isinstance(value, float) or "options" in where[:-1]:
            changed = copy.deepcopy(document)
            at(changed, where[:-1])[where[-1]] = number
            refused(spelt(changed), "finite number")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("whose", ["clients", "student"])
def test_an_option_that_json_cannot_say_is_refused_before_anybody_agrees(number: float, whose: str) -> None:
    model = {"kind": OWN_MODEL["kind"], "options": {"width": 8, "words": [], "deep": {"most": [number]}}}
    own = {"members": lambda: (Member(name="one", model=ClientModel(**model), examples=3),)}
    students = {"settings": lambda: small(student={"model": model})}
    with pytest.raises(AgreementError, match=r"own_model.*not a finite number"):
        rebuilt(**{name: make() for name, make in (own if whose == "clients" else students).items()})


def test_another_schema_or_release_is_refused_by_name() -> None:
    refused(usual().encoded.replace(b"agreement/1", b"agreement/2"), "schema", "securekd.agreement/1")
    refused(rebuilt(securekd="9.9.9").encoded, "9.9.9", "install")


# ---- what is in it, and what is not ----


def leaves(tree: Any, where: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Every value of a document that holds no others, and where it stands."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield from leaves(value, (*where, key))
    if not inside:
        yield where, tree


def test_every_value_of_the_document_counts() -> None:
    document = json.loads(usual().encoded)
    others: dict[type, Callable[[Any], Any]] = {
        bool: lambda value: not value,
        int: lambda value: value + 1,
        float: lambda value: value * 0.75 + 0.0625,
        str: lambda value: value + "x",
        type(None): lambda value: 1,
        dict: lambda value: {"x": {"low": 0.0, "high": 1.0}},
        list: lambda value: ["x"],
    }
    taken = 0
    for where, value in leaves(document):
        changed = copy.deepcopy(document)
        at(changed, where[:-1])[where[-1]] = others[type(value)](value)
        found = decoded(spelt(changed))
        if found is None:
            continue
        taken += 1
        assert found.digest != usual().digest, where
        assert found.context(b"") != usual().context(b"")
        with pytest.raises(AgreementError, match=r"compare the two documents"):
            refuse_others(usual(), found.digest, "the server")
    assert taken > 100


OWN = {
    "data.source", "data.transfer_source", "data.test_source",  # where everybody has the data
    "data.transfer", "data.test", "data.private",  # how a laboratory splits it; the transfer set's size is agreed on
    "data.partition.kind", "data.partition.alpha", "data.partition.column", "data.partition.minimum",  # and deals it
    "clients",  # the members, with their models, are agreed on
    "cohort.dropouts",  # whom the laboratory has fall silent
    "centralized.model", "centralized.learning_rate",  # a yardstick of the laboratory's
    "audit.attacks", "audit.confidence", "audit.points", "audit.canaries", "audit.canary_kinds", "audit.replays",
    "runtime.device", "runtime.workers", "runtime.micro_batch",
}  # fmt: skip
"""The settings that are no part of an agreement: with these aside, every one has to be."""

CHANGED: Tree = {
    "clients": [{"model": "cnn"}],
    "data.partition.kind": "quantity",
    "data.partition.column": "where",
    "data.columns": {"age": {"low": 0, "high": 1}},
    "student.model": {"kind": "mlp", "options": {"hidden": 8}},
    "centralized.model": "cnn",
    "audit.attacks": ["loss"],
    "audit.canaries": 32,
    "audit.canary_kinds": ["natural"],
    "audit.replays": 100,
}
"""Other values than the default, where none follows from the type."""


def settings_of(table: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting, with another value than its default."""
    for name, field in table.model_fields.items():
        key, kind = prefix + name, field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings) and not name.endswith("model"):
            yield from settings_of(kind, f"{key}.")
        else:
            yield key, CHANGED[key] if key in CHANGED else another(field.get_default(call_default_factory=True), kind)


def another(value: Any, kind: Any) -> Any:
    choices = [one for one in get_args(kind) if isinstance(one, str)]
    match value:
        case None:
            return "x" if str in get_args(kind) else 0.5 if float in get_args(kind) else 5
        case bool():
            return not value
        case str():
            return next(one for one in choices if one != value) if choices else "own:part"
        case tuple():
            return ["x"]
        case int():
            return value + 1
        case _:
            return value * 0.75 or 0.5


def tree_of(key: str, value: Any) -> Tree:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def test_every_setting_counts_but_those_that_are_everybodys_own() -> None:
    before = rebuilt(settings=Experiment())
    seen = set()
    for key, value in settings_of(Experiment):
        tree = tree_of(key, value)
        if key == "data.partition.column":
            tree["data"]["partition"]["kind"] = "column"
        changed = parse_experiment(tree)
        assert changed != Experiment(), key
        made = rebuilt(settings=changed)
        assert (made.digest == before.digest) == (key in OWN), key
        assert (made == before) == (key in OWN), key
        round_trip(made)
        seen.add(key)
    assert seen >= OWN
    assert len(seen - OWN) > 50


def test_a_plan_agrees_on_the_same_whatever_is_its_own() -> None:
    usual_plan = agreement_of(clients={"count": 4, "models": ["logistic"]})
    own = agreement_of(
        clients=[{"model": "logistic", "count": 3}, {"model": {"kind": "logistic"}}],
        audit={"points": "all", "canaries": 32, "replays": 100, "attacks": ["entropy"]},
        runtime={"workers": 2, "micro_batch": 16},
        cohort={"dropouts": 1},
        centralized={"model": "cnn", "learning_rate": 0.25},
    )
    assert own.encoded == usual_plan.encoded


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},  # another split: other rows in the transfer set
        {"data": {"transfer": 79}},
        {"data": {"private": 239}},
        {"clients": {"models": ["logistic", MLP]}},
        {"clients": {"count": 5}},
        {"aggregation": "plain"},
        {"cohort": {"colluders": 0}},
        {"privacy": {"epsilon": 7.5}},
        {"release": {"noise": 0.11}},
    ],
    ids=str,
)
def test_a_plan_of_something_else_agrees_on_something_else(changes: Tree) -> None:
    assert agreement_of(**changes).digest != default().digest


def test_it_is_as_short_as_json_can_be() -> None:
    data = usual().encoded
    assert len(data) < 4096
    assert data == spelt(json.loads(data))
    assert b"\n" not in data
