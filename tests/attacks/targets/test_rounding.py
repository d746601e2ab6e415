"""Rounded probabilities: what their own digits explain is read, normalised and noted; anything else is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from securekd_attacks.audit import AuditSettings, audit, evaluate
from securekd_attacks.inputs import FloatArray
from securekd_attacks.targets import (
    BadAnswer,
    BadSignalsFile,
    FunctionTarget,
    Inputs,
    Records,
    SignalsFile,
    content_ids,
)
from securekd_attacks.targets.endpoint import answers_in
from securekd_attacks.targets.reading import MOST_NORMALISED, distributions, told_apart

N, C = 400, 10
EXACT = np.random.default_rng(0).dirichlet(np.ones(C), size=N)


def significant(digits: int) -> Callable[[FloatArray], FloatArray]:
    return lambda values: np.vectorize(lambda value: float(f"{value:.{digits}g}"))(values)


def bfloat16(values: FloatArray) -> FloatArray:
    bits = values.astype(np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return nearest.view(np.float32).astype(np.float64)


ROUNDED: dict[str, tuple[Callable[[FloatArray], np.ndarray], float]] = {
    "3 decimals": (lambda p: p.round(3), 1e-3),
    "4 decimals": (lambda p: p.round(4), 1e-4),
    "4 decimals of float32": (lambda p: p.astype(np.float32).round(4), 1e-4),
    "4 decimals of float32, printed in full": (lambda p: p.astype(np.float32).round(4).astype(np.float64), 1e-4),
    "3 significant digits": (significant(3), 1e-3),
    "4 significant digits": (significant(4), 1e-4),
    "float16": (lambda p: p.astype(np.float16), 2.0**-11),
    "float16, printed in full": (lambda p: p.astype(np.float16).astype(np.float64), 2.0**-11),
    "bfloat16": (bfloat16, 2.0**-8),
}


@pytest.mark.parametrize("how", ROUNDED)
@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_rounded_probabilities_are_read_and_normalised(how: str, kind: str) -> None:
    round_off, step = ROUNDED[how]
    given = round_off(EXACT if kind == "probs" else np.log(EXACT))
    found = distributions(kind, given, N)
    np.testing.assert_allclose(np.exp(found.log_probs).sum(axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(np.exp(found.log_probs), EXACT, atol=C * step)
    sums = (given if kind == "probs" else np.exp(given.astype(np.float64))).astype(np.float64).sum(axis=1)
    np.testing.assert_array_equal(found.rounding, np.where(np.abs(sums - 1.0) > 1e-4, step, 0.0))


@pytest.mark.parametrize("how", ROUNDED)
@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_a_row_that_its_digits_do_not_explain_is_named_with_its_sum(how: str, kind: str) -> None:
    round_off, step = ROUNDED[how]
    whole = EXACT.copy()
    whole[7] *= 1.0 + 2.0 * C * step
    with pytest.raises(BadAnswer, match=r"do not sum to one in 1 rows, first in row 7 \(got 1\.") as refused:
        distributions(kind, round_off(whole if kind == "probs" else np.log(whole)), N)
    assert "rounding to" in str(refused.value)
    assert "does not explain" in str(refused.value)


def test_every_way_in_reads_them_alike(tmp_path: Path) -> None:
    given = EXACT.round(4)
    expected = distributions("probs", given, N)
    assert np.count_nonzero(expected.rounding) > 0
    called = told_apart(given, N)
    sent = answers_in(f'{{"probs": {given.tolist()}}}'.encode(), N)
    labels = np.zeros(N, dtype=int)
    np.savez(tmp_path / "s.npz", probs=given, labels=labels, membership=np.arange(N) % 2 == 0)
    filed = SignalsFile.read(tmp_path / "s.npz")
    for log_probs, rounding in (
        (called.log_probs, called.rounding),
        (sent.log_probs, sent.rounding),
        (filed.log_probs[:, 0], filed.rounding),
    ):
        np.testing.assert_array_equal(log_probs, expected.log_probs)
        np.testing.assert_array_equal(rounding, expected.rounding)


# C classes and d decimals explain C · 0.5 · 10^-d, and not a digit more.
@pytest.mark.parametrize(
    ("row", "explained"),
    [
        ([0.1999, 0.1999, 0.1999, 0.1999, 0.2002], True),
        ([0.3333, 0.3333, 0.3332], False),
        ([0.3335, 0.3334, 0.3333], False),
        ([0.2501] * 4, False),
        ([0.25, 0.25, 0.25, 0.2502], True),
        ([0.25, 0.25, 0.25, 0.2503], False),
        ([0.5002, 0.5, 0.0, 0.0], False),  # no probability is below the zero that it was rounded to
        ([0.4998, 0.5, 0.0, 0.0], True),
    ],
)
def test_the_bound_is_half_a_step_for_each_class(row: list[float], explained: bool) -> None:
    other = [0.1234, 0.8766] + [0.0] * (len(row) - 2)  # shows the four decimals
    given = np.array([other, row])
    if explained:
        assert distributions("probs", given, 2).rounding[1] == 1e-4
    else:
        with pytest.raises(BadAnswer, match="first in row 1"):
            distributions("probs", given, 2)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([60.0, 30.0, 10.0], "divide percentages by 100"),
        ([33.3, 33.3, 33.3], "divide percentages by 100"),
        ([200.0, 50.0, 5.0], "divide bytes by 255"),
        ([3.0, 0.0, 0.0], "give every class"),
        ([0.4, 0.3, 0.2], "give every class"),  # one decimal tells too little
        ([0.0, 0.0, 0.0], "give every class"),
        ([0.9312, 0.0123, 0.0101], "give every class"),  # one is missing
    ],
)
def test_what_is_no_rounding_is_refused_with_its_remedy(row: list[float], why: str) -> None:
    for read in (lambda given: distributions("probs", given, 2), lambda given: told_apart(given, 2)):
        with pytest.raises(BadAnswer, match=why):
            read(np.array([row, row]))


@pytest.mark.parametrize(
    ("shown", "classes", "total"),
    [
        ([0.01], 1000, "0.01"),
        ([0.05], 1000, "0.05"),
        ([0.95], 1000, "0.95"),
        ([0.505], 1000, "0.505"),
        ([0.5, 0.45], 100, "0.95"),
        ([0.001] * 500, 5000, "0.5"),
        ([0.02, 0.96], 10, "0.98"),
        ([0.34] * 3, 50, "1.02"),
    ],
)
def test_zeros_that_rounding_might_hide_make_no_row_certain(shown: list[float], classes: int, total: str) -> None:
    row = np.array(shown + [0.0] * (classes - len(shown)))
    sure = np.eye(1, classes)[0]
    far = rf"first in row 1 \(got {total}, which .*\); give every class"
    for read in (lambda given: distributions("probs", given, 2), lambda given: told_apart(given, 2)):
        with pytest.raises(BadAnswer, match=far):
            read(np.array([sure, row]))
    with np.errstate(divide="ignore"), pytest.raises(BadAnswer, match="do not sum to one"):
        distributions("log_probs", np.log(np.array([sure, row])), 2)


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_few_classes_are_read_at_any_digits_and_move_by_one_in_a_hundred_at_most(digits: int) -> None:
    exact = np.random.default_rng(4).dirichlet(np.ones(3), size=2000)
    found = distributions("probs", exact.round(digits), 2000)
    assert found.rounding.any()
    moved = np.abs(np.exp(found.log_probs) - exact.round(digits)).max()
    assert 0.0 < moved <= 1.02 * MOST_NORMALISED


def test_rounding_of_a_thousand_classes_does_not_make_members_of_nonmembers(tmp_path: Path) -> None:
    """Of two decimals, diffuse rows keep their label's alone: divided by their sums, they would be surest of all."""
    rng, classes = np.random.default_rng(0), 1000
    member, labels = np.arange(40) < 20, rng.integers(0, 1000, 40)
    probs = np.zeros((40, classes))
    for row, label in enumerate(labels):
        others = rng.permutation(np.delete(np.arange(classes), label))
        own = rng.uniform(0.015, 0.025) if member[row] else rng.uniform(0.27, 0.33)
        told = others if member[row] else others[:14]
        probs[row, told], probs[row, label] = (1.0 - own) / len(told), own
    given = {"labels": labels, "membership": member}
    np.savez(tmp_path / "exact.npz", probs=probs, **given)
    settings = AuditSettings(attacks=("loss",))
    assert evaluate(SignalsFile.read(tmp_path / "exact.npz").sides(), settings).found[0].auc.value == 0.0
    np.savez(tmp_path / "rounded.npz", probs=probs.round(2), **given)
    with pytest.raises(BadSignalsFile, match=r"first in row 0 \(got 0\.0[12], which .*more digits"):
        SignalsFile.read(tmp_path / "rounded.npz")


def _half(other: FloatArray) -> FloatArray:
    return np.where((np.arange(N) % 2 == 0)[:, None], other, EXACT)


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        (_half(EXACT.round(4)), {0.0, 1e-4}),
        (_half(EXACT.round(3)), {0.0, 1e-3}),
        (_half(EXACT.astype(np.float16)), {0.0, 2.0**-11}),
        (np.where((np.arange(N) % 3 == 0)[:, None], EXACT.round(3), _half(EXACT.round(4))), {0.0, 1e-3, 1e-4}),
    ],
)
def test_sides_that_were_rounded_unlike_are_each_judged_by_their_own_digits(
    given: FloatArray, steps: set[float]
) -> None:
    found = distributions("probs", given, N)
    assert steps <= set(found.rounding.tolist()) <= steps | {1e-2}  # a row may happen to have two digits everywhere
    assert not found.rounding[np.abs(given.sum(axis=1) - 1.0) <= 1e-4].any()
    np.testing.assert_allclose(np.exp(found.log_probs), EXACT, atol=C * max(steps))
    logs = np.log(EXACT)
    logs[::2] = logs[::2].round(2)
    assert set(distributions("log_probs", logs, N).rounding.tolist()) == {0.0, 1e-2}


@pytest.mark.parametrize(("parts", "name"), [(255, "multiples of 1/255"), (256, "multiples of 1/256")])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_bytes_of_quantised_models_are_read_or_named(parts: int, name: str, kind: type) -> None:
    few = np.random.default_rng(5).dirichlet(np.ones(3), size=500)
    found = distributions("probs", ((few * parts).round() / parts).astype(kind), 500)
    assert set(found.rounding.tolist()) == {0.0, 1.0 / parts}
    many = ((EXACT * parts).round() / parts).astype(kind)
    with pytest.raises(BadAnswer, match=f"1% that is put down to rounding to {name}.*more digits"):
        distributions("probs", many, N)


@pytest.mark.parametrize("digits", [3, 4])
def test_numbers_that_were_cut_off_are_not_called_incomplete(digits: int) -> None:
    cut = np.floor(EXACT * 10**digits) / 10**digits
    with pytest.raises(BadAnswer, match=f"cut off and not rounded to {digits} decimals.*round to the nearest"):
        distributions("probs", cut, N)


@pytest.mark.parametrize("below", [-1e-9, -1e-7, -1e-6, -0.0])
def test_what_float_error_puts_below_zero_is_zero(below: float) -> None:
    given = np.array([[0.5, 0.5, 0.0], [1.0 - below, below, 0.0]])
    for found in (distributions("probs", given, 2).log_probs, told_apart(given, 2).log_probs):
        assert found is not None
        np.testing.assert_array_equal(found[1], [0.0, -np.inf, -np.inf])


def test_exact_probabilities_are_not_called_rounded() -> None:
    assert not distributions("probs", EXACT, N).rounding.any()
    assert not distributions("probs", EXACT.astype(np.float32), N).rounding.any()
    sure = np.eye(C)[np.arange(N) % C]
    assert not distributions("probs", sure, N).rounding.any()
    with np.errstate(divide="ignore"):
        assert not distributions("log_probs", np.log(sure), N).rounding.any()


def test_log_probabilities_of_the_wire_keep_every_bit() -> None:
    logs = np.log(EXACT)
    np.testing.assert_array_equal(distributions("log_probs", logs, N).log_probs, logs)


@example(3, 2, 0.125, 0, 64)  # two decimals, and by chance two significant digits, of which 1.0 has steps of a tenth
@given(
    st.integers(2, 30), st.integers(2, 7), st.floats(0.05, 20.0), st.integers(0, 2**32 - 1), st.sampled_from([1, 8, 64])
)
def test_any_distribution_may_be_rounded(classes: int, digits: int, spread: float, seed: int, rows: int) -> None:
    exact = np.random.default_rng(seed).dirichlet(np.full(classes, spread), size=rows)
    for rounded in (exact.round(digits), significant(digits)(exact), exact.astype(np.float16)):
        sums = rounded.astype(np.float64).sum(axis=1)
        if (np.abs(sums - 1.0) <= MOST_NORMALISED + 1e-10).all():
            found = np.exp(distributions("probs", rounded, rows).log_probs)
            assert np.abs(found - rounded).max() <= 1.1 * MOST_NORMALISED
        else:
            with pytest.raises(BadAnswer, match="further from one than the 1%.*more digits"):
                distributions("probs", rounded, rows)


def test_rounded_references_are_noted_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    models = np.stack([EXACT, EXACT.round(3)], axis=1)
    member = rng.random((N, 2)) < 0.5
    np.savez(tmp_path / "s.npz", probs=models, labels=np.zeros(N, dtype=int), membership=member)
    file = SignalsFile.read(tmp_path / "s.npz")
    assert np.asarray(file.rounding).max() == 1e-3
    exact = SignalsFile.read(_without_references(tmp_path, member))
    sides = file.references().beside(exact.sides())
    assert not np.asarray(exact.rounding).any()
    assert np.asarray(sides.members.rounding).max() == 1e-3


def _without_references(folder: Path, member: np.ndarray) -> Path:
    labels = np.zeros(N, dtype=int)
    np.savez(folder / "one.npz", probs=EXACT, labels=labels, membership=member[:, 0])
    return folder / "one.npz"


def test_an_audit_counts_them_and_survives_zeros(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(2 * N, 4))
    sides = [Records(part, content_ids(part), np.zeros(N, dtype=int)) for part in (inputs[:N], inputs[N:])]
    inside = set(sides[0].ids)

    def predict(given: Inputs) -> np.ndarray:
        sure = np.array([[50.0 if name in inside else 0.0] + [1.0] * (C - 1) for name in content_ids(given)])
        return np.stack([np.random.default_rng(row).dirichlet(a) for row, a in enumerate(sure)]).round(3)

    settings = AuditSettings(attacks=("loss", "entropy", "modified_entropy"), batch=50)
    result = audit(FunctionTarget("rounded", predict), *sides, settings, tmp_path / "answers")
    again = audit(FunctionTarget("rounded", predict), *sides, settings, tmp_path / "answers")
    assert 0 < result.rounded < 2 * N
    assert (result.rounded, result.rounding) == (again.rounded, again.rounding) == (result.rounded, 1e-3)
    for each in result.found:
        assert np.isfinite(each.scores.members).all()
        assert np.isfinite(each.scores.nonmembers).all()
    assert result.found[0].auc.value > 0.95


@pytest.mark.filterwarnings("error")
def test_every_attack_copes_with_probabilities_of_exactly_zero_and_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    member = rng.random((N, 9)) < 0.5
    logit = rng.normal(0, 3, size=(N, 1)) + 6.0 * member + rng.normal(size=(N, 9))
    chance = (1.0 / (1.0 + np.exp(-logit))).round(2)
    probs = np.stack([chance, 1.0 - chance], axis=2).round(2)
    assert (probs == 0.0).any(axis=(0, 2)).all()
    population = ~member[:, 0] & (rng.random(N) < 0.5)
    given = {"probs": probs, "membership": member, "labels": np.zeros(N, dtype=int), "population": population}
    np.savez(tmp_path / "s.npz", **given)
    result = evaluate(SignalsFile.read(tmp_path / "s.npz").sides(), AuditSettings(attacks=()))
    assert {"loss", "lira_online_residual", "rmia_online", "population"} <= {each.attack for each in result.found}
    for each in result.found:
        assert np.isfinite(each.scores.members).all()
        assert np.isfinite(each.scores.nonmembers).all()
        assert np.isfinite([each.auc.value, each.epsilon_lower]).all()


def test_a_signals_file_names_the_row(tmp_path: Path) -> None:
    given = EXACT.round(4)
    given[5, 0] += 0.1
    np.savez(tmp_path / "s.npz", probs=given, labels=np.zeros(N, dtype=int), membership=np.arange(N) % 2 == 0)
    with pytest.raises(BadSignalsFile, match=r"first in row 5 \(got 1\.1"):
        SignalsFile.read(tmp_path / "s.npz")
