"""An audit from questions to figures: asked once, resumed, refused where it must be, and right where all is known."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from securekd_attacks import (
    BadInclusion,
    BadLabels,
    BadSetting,
    DamagedStore,
    DesignChanged,
    OverlappingRecords,
    ShapeMismatch,
    Signals,
    TooFewRecords,
    auc,
    tpr_at_fpr,
)
from securekd_attacks.audit import AuditSettings, audit, evaluate
from securekd_attacks.audit.asking import collect
from securekd_attacks.targets import (
    Answers,
    BadAnswer,
    FunctionTarget,
    Inputs,
    Records,
    References,
    Sides,
    TargetFailed,
    content_ids,
)

N = 60


def texts(side: str, n: int = N) -> Records:
    rng = np.random.default_rng([n, len(side)])
    words = [" ".join(f"w{w}" for w in rng.integers(0, 50, size=8)) for _ in range(n)]
    inputs = [f"{text} {side[0]}{i}" for i, text in enumerate(words)]
    return Records(inputs, content_ids(inputs), rng.integers(0, 3, size=n))


class Memoriser:
    """Knows its members by heart, and counts what it is asked."""

    name = "memoriser"

    def __init__(self, members: Records, fails_after: int = 1 << 30) -> None:
        self.labels = dict(zip(members.inputs, np.asarray(members.labels).tolist(), strict=True))  # type: ignore[arg-type]
        self.asked: list[str] = []
        self.left = fails_after

    def ask(self, inputs: Inputs) -> Answers:
        if self.left == 0:
            raise TargetFailed("down", value="status 503", remedy="wait")
        self.left -= 1
        self.asked += [str(x) for x in inputs]
        probs = np.full((len(inputs), 3), 1 / 3)
        for row, text in enumerate(inputs):
            if text in self.labels:
                probs[row] = np.eye(3)[self.labels[str(text)]]
        with np.errstate(divide="ignore"):
            return Answers(log_probs=np.log(probs))


SETTINGS = AuditSettings(attacks=("loss", "entropy"), batch=16)


def test_the_auditor_loads_nothing_that_a_target_may_be_made_of() -> None:
    code = f"import sys; sys.path[:] = {sys.path!r}; import securekd_attacks.audit; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "pyarrow", "pydantic", "click"} & set(loaded)


def test_a_memoriser_is_found_out(tmp_path: Path) -> None:
    members, nonmembers = texts("members"), texts("non-members")
    result = audit(Memoriser(members), members, nonmembers, SETTINGS, tmp_path / "answers")
    loss = result.found[0]
    assert (loss.attack, loss.auc.value) == ("loss", 1.0)
    assert [rate.value for rate in loss.tprs] == [1.0, 1.0, 1.0]
    assert [rate.resolved for rate in loss.tprs] == [True, False, False]
    assert np.isfinite(loss.scores.members).all()
    assert 1.0 < result.best.epsilon_lower < np.inf
    assert {each.nonmembers_above for each in result.exposed} == {0}
    assert {each.record for each in result.exposed} <= set(members.ids)
    assert result.blind is not None


def test_nothing_is_asked_twice_and_a_failure_is_resumed(tmp_path: Path) -> None:
    members, nonmembers = texts("members"), texts("non-members")
    whole = audit(Memoriser(members), members, nonmembers, SETTINGS, tmp_path / "whole")
    failing = Memoriser(members, fails_after=3)
    with pytest.raises(TargetFailed):
        audit(failing, members, nonmembers, SETTINGS, tmp_path / "parts")
    assert len(failing.asked) == 3 * 16
    rest = Memoriser(members)
    resumed = audit(rest, members, nonmembers, SETTINGS, tmp_path / "parts")
    assert sorted(failing.asked + rest.asked) == sorted([*map(str, members.inputs), *map(str, nonmembers.inputs)])
    for ours, theirs in zip(resumed.found, whole.found, strict=True):
        assert (ours.auc, ours.tprs, ours.epsilon_lower) == (theirs.auc, theirs.tprs, theirs.epsilon_lower)
    again = Memoriser(members, fails_after=0)
    audit(again, members, nonmembers, replace(SETTINGS, attacks=("modified_entropy",)), tmp_path / "parts")
    assert again.asked == []


def test_sides_are_asked_in_random_order(tmp_path: Path) -> None:
    members, nonmembers = texts("members"), texts("non-members")
    target = Memoriser(members)
    collect(target, members, nonmembers, SETTINGS, tmp_path / "answers")
    inside = set(members.inputs)  # type: ignore[arg-type]
    first = sum(text in inside for text in target.asked[:N])
    assert 15 <= first <= 45  # hypergeometric, mean 30, deviation 2.7: beyond five of them


def test_another_question_is_not_answered_from_the_store(tmp_path: Path) -> None:
    members, nonmembers = texts("members"), texts("non-members")
    audit(Memoriser(members), members, nonmembers, SETTINGS, tmp_path / "answers")
    with pytest.raises(DesignChanged, match="another records"):
        audit(Memoriser(members), members, texts("other", 40), SETTINGS, tmp_path / "answers")
    with pytest.raises(DesignChanged, match="another batch"):
        audit(Memoriser(members), members, nonmembers, replace(SETTINGS, batch=8), tmp_path / "answers")


def test_damaged_answers_are_named(tmp_path: Path) -> None:
    members, nonmembers = texts("members"), texts("non-members")
    audit(Memoriser(members), members, nonmembers, SETTINGS, tmp_path / "answers")
    path = tmp_path / "answers" / "target" / "000002.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedStore, match=r"delete .*000002\.npz"):
        audit(Memoriser(members), members, nonmembers, SETTINGS, tmp_path / "answers")


def test_a_target_that_changes_its_mind_is_refused(tmp_path: Path) -> None:
    calls = []

    def fickle(inputs: Inputs) -> np.ndarray:
        calls.append(1)
        return np.full((len(inputs), 2 + len(calls) // 3), 1.0 / (2 + len(calls) // 3))

    with pytest.raises(BadAnswer, match="now this, now that"):
        audit(FunctionTarget("fickle", fickle), texts("a"), texts("no"), SETTINGS, tmp_path / "answers")


def test_a_target_of_labels_alone_gets_the_label_only_attack(tmp_path: Path) -> None:
    members, nonmembers = texts("members"), texts("non-members")
    known = dict(zip(members.inputs, np.asarray(members.labels).tolist(), strict=True))  # type: ignore[arg-type]

    def labels(inputs: Inputs) -> np.ndarray:
        # Right on members, also where a word is missing; wrong elsewhere.
        near = {text.split()[-1]: label for text, label in known.items()}
        return np.array([near.get(str(text).split()[-1], 7) for text in inputs])

    result = audit(
        FunctionTarget("labels", labels),
        members,
        nonmembers,
        replace(SETTINGS, attacks=(), copies=3),
        tmp_path / "answers",
    )
    assert [each.attack for each in result.found] == ["label_only"]
    assert result.found[0].auc.value > 0.95
    asked = audit(
        FunctionTarget("labels", labels),
        members,
        nonmembers,
        replace(SETTINGS, attacks=("loss", "label_only"), copies=3),
        tmp_path / "answers",
    )
    assert [(x.attack, x.needs) for x in asked.not_possible] == [("loss", "log_probs")]
    with pytest.raises(BadSetting, match="loss needs log_probs"):
        audit(FunctionTarget("labels", labels), members, nonmembers, SETTINGS, tmp_path / "answers")


def test_overlap_is_found_by_id_and_by_content(tmp_path: Path) -> None:
    members, nonmembers = texts("members"), texts("non-members")
    target = Memoriser(members)
    same_id = Records(nonmembers.inputs, (members.ids[0], *nonmembers.ids[1:]), nonmembers.labels)
    copied = [*list(nonmembers.inputs)[:-1], str(members.inputs[5])]
    same_text = Records(copied, tuple(f"n{i}" for i in range(N)), nonmembers.labels)  # type: ignore[arg-type]
    for other in (same_id, same_text):
        with pytest.raises(OverlappingRecords):
            audit(target, members, other, SETTINGS, tmp_path / "answers")
    with pytest.raises(OverlappingRecords):
        audit(target, members, nonmembers, SETTINGS, tmp_path / "answers", population=same_text)
    assert target.asked == []
    assert not (tmp_path / "answers").exists()


def test_unlike_sides_are_refused(tmp_path: Path) -> None:
    members, nonmembers = texts("members"), texts("non-members")
    numbers = np.arange(20.0).reshape(5, 4)
    array = Records(numbers, content_ids(numbers))
    with pytest.raises(ShapeMismatch, match="array 4 and text"):
        collect(Memoriser(members), members, array, SETTINGS, tmp_path / "a")
    with pytest.raises(ShapeMismatch, match="only some sides have labels"):
        collect(Memoriser(members), members, replace(nonmembers, labels=None), SETTINGS, tmp_path / "b")
    wrong = replace(members, labels=np.full(N, 9))
    with pytest.raises(BadLabels, match="got 9"):
        audit(Memoriser(members), wrong, nonmembers, SETTINGS, tmp_path / "c")


def sides(members: int = 300, nonmembers: int = 400, leak: float = 1.0, references: int = 16, seed: int = 4) -> Sides:
    """Gaussian scaled logits of two classes, of which members have `leak` more, with references by fair coins."""
    rng = np.random.default_rng(seed)

    def side(n: int, shift: float, name: str) -> Signals:
        hard = rng.normal(0, 3, size=n)
        inclusion = rng.random((references, n)) < 0.5
        logit = hard + shift + rng.normal(0, 1, size=n)
        return Signals(
            log_probs=-np.logaddexp(0, np.stack([-logit, logit], axis=1)),
            labels=np.zeros(n, dtype=np.int64),
            record_ids=[f"{name}{i}" for i in range(n)],
            features=rng.normal(size=(n, 4)),
            references=hard + leak * inclusion + rng.normal(0, 1, size=(references, n)),
            inclusion=inclusion,
        )

    return Sides(side(members, leak, "m"), side(nonmembers, 0.0, "n"), side(200, 0.0, "p"))


def test_figures_are_those_of_the_scores() -> None:
    result = evaluate(sides(), AuditSettings(bounds=("clopper_pearson", "bayesian", "gdp")))
    assert len(result.found) == 10
    for each in result.found:
        assert each.auc == auc(each.scores.members, each.scores.nonmembers)
        pair = each.scores.members, each.scores.nonmembers
        assert each.tprs == tuple(tpr_at_fpr(*pair, fpr) for fpr in (0.1, 0.01, 0.001))
        assert each.bayesian is not None
        assert each.gdp is not None
        for rate in each.tprs:
            assert each.auc.value >= rate.value * (1 - rate.realised_fpr) - 1e-12
    by_name = {each.attack: each.auc.value for each in result.found}
    assert by_name["lira_online_residual"] > by_name["loss"] + 0.08
    assert by_name["rmia_online"] > by_name["loss"] + 0.08


def test_records_that_references_cannot_score_are_left_out_of_every_attack() -> None:
    given = sides(references=4)
    result = evaluate(given, AuditSettings(attacks=("loss", "lira_online_residual")))
    held = np.concatenate([np.asarray(s.inclusion).sum(axis=0) for s in (given.members, given.nonmembers)])
    assert result.left_out == int(((held == 0) | (held == 4)).sum()) > 0
    assert {each.scores.members.size for each in result.found} == {result.members}
    assert evaluate(given, AuditSettings(attacks=("loss",))).left_out == 0


def test_online_attacks_are_not_possible_with_references_that_hold_nobody() -> None:
    given = sides()
    empty = replace(given.members, inclusion=np.zeros_like(np.asarray(given.members.inclusion)))
    others = replace(given.nonmembers, inclusion=np.zeros_like(np.asarray(given.nonmembers.inclusion)))
    result = evaluate(replace(given, members=empty, nonmembers=others), AuditSettings())
    names = {each.attack for each in result.not_possible}
    assert {"lira_online_residual", "rmia_online"} <= names
    assert "lira_offline_per_example" in {each.attack for each in result.found}
    needs = next(each.needs for each in result.not_possible if each.attack == "rmia_online")
    assert needs == "1 references trained with each record, there are 0"


def test_shadow_models_teach_a_classifier_and_families_are_named_apart() -> None:
    given = sides()
    both = (given.members, given.nonmembers)
    logits = np.concatenate([np.asarray(side.references) for side in both], axis=1)
    outputs = -np.logaddexp(0, np.stack([-logits, logits], axis=2))
    inclusion = np.concatenate([np.asarray(side.inclusion) for side in both], axis=1)
    names = tuple(str(name) for side in (*both, given.population) if side for name in side.record_ids or ())
    extra = given.population.records if given.population else 0
    whole = References(
        ids=names,
        signals=np.pad(logits, ((0, 0), (0, extra))),
        inclusion=np.pad(inclusion, ((0, 0), (0, extra))),
        log_probs=np.pad(outputs, ((0, 0), (0, extra), (0, 0))),
    )
    result = evaluate(whole.beside(given), AuditSettings(attacks=("shadow", "lira", "rmia")))
    assert [each.attack for each in result.found] == [
        "shadow",
        "lira_online_residual",
        "lira_offline_per_example",
        "rmia_online",
        "rmia_offline",
    ]
    assert result.found[0].auc.low > 0.5
    lacking = evaluate(given, AuditSettings(attacks=("loss", "shadow"))).not_possible
    assert lacking[0].needs.startswith("shadow models' own outputs")


def test_a_population_too_small_for_an_attack_is_its_trouble_alone() -> None:
    given = sides()
    assert given.population is not None
    small = replace(given, population=given.population.take(np.arange(30)))
    result = evaluate(small, AuditSettings(attacks=("loss", "population", "quantile")))
    assert [each.attack for each in result.found] == ["loss", "population"]
    assert "too few records for this quantile (got 30); give at least 105" in result.not_possible[0].needs
    with pytest.raises(BadSetting, match="quantile needs more to learn from"):
        evaluate(small, AuditSettings(attacks=("quantile",)))


def test_too_few_to_score_is_refused() -> None:
    given = sides()
    one, three = given.members.take(np.arange(1)), given.nonmembers.take(np.arange(3))
    for few in (replace(given, members=one), replace(given, nonmembers=three)):
        with pytest.raises(TooFewRecords):
            evaluate(few, AuditSettings(attacks=("loss",)))


def test_references_must_know_the_records() -> None:
    given = sides()
    with pytest.raises(ShapeMismatch, match="do not know 199 of 200 records"):
        References(ids=("p0",), signals=np.zeros((2, 1)), inclusion=np.zeros((2, 1), dtype=bool)).beside(given)


def test_a_one_run_bound_needs_coins() -> None:
    with pytest.raises(BadInclusion, match="fair coin"):
        AuditSettings(bounds=("one_run",))
    result = evaluate(sides(), AuditSettings(attacks=("loss",), bounds=("one_run",), inclusion="bernoulli"))
    assert result.found[0].one_run is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"fprs": (-0.1,)},
        {"fprs": (1.0,)},
        {"fprs": (0.01, float("nan"))},
        {"delta": 1.0},
        {"confidence": 1.5},
        {"bounds": ("magic",)},
        {"batch": 0},
        {"copies": 0},
        {"strength": 1.0},
        {"attacks": ("magic",)},
        {"attacks": ("loss", "loss")},
    ],
)
def test_settings_out_of_range(settings: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(BadSetting):
        evaluate(sides(), AuditSettings(**settings))  # type: ignore[arg-type]


def test_shifted_nonmembers_are_flagged() -> None:
    given = sides(leak=0.0)
    shifted = replace(given.nonmembers, features=np.asarray(given.nonmembers.features) + 0.5)
    result = evaluate(replace(given, nonmembers=shifted), AuditSettings(attacks=("loss",)))
    assert result.blind is not None
    assert result.blind.distribution_shift
    unflagged = evaluate(given, AuditSettings(attacks=("loss",))).blind
    assert unflagged is not None
    assert not unflagged.distribution_shift


def test_the_order_of_records_changes_no_figure_but_the_halves() -> None:
    given = sides()
    rows = np.random.default_rng(0).permutation(given.members.records)
    one = evaluate(given, AuditSettings())
    other = evaluate(replace(given, members=given.members.take(rows)), AuditSettings())
    for ours, theirs in zip(one.found, other.found, strict=True):
        assert ours.auc.value == pytest.approx(theirs.auc.value, abs=1e-12)
        assert [r.value for r in ours.tprs] == [r.value for r in theirs.tprs]


@pytest.mark.slow
def test_without_a_leak_ten_attacks_together_raise_an_alarm_in_at_most_one_of_twenty_audits() -> None:
    # 100 seeds; of a rate of 5% more than 11 alarms have a probability of 0.4%. The same holds for the blind baseline.
    alarms, flags = 0, 0
    for seed in range(100):
        result = evaluate(sides(200, 300, leak=0.0, seed=seed), AuditSettings(seed=seed, delta=0.0))
        assert len(result.found) == 10
        assert result.blind is not None
        alarms += result.best.epsilon_lower > 0.0
        flags += result.blind.distribution_shift
    assert alarms <= 11
    assert flags <= 11
