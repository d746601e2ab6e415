"""What a callable may return is told apart by its content, and nothing is taken for what it is not."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from securekd_attacks.targets import BadAnswer, FunctionTarget, Records, TargetFailed, TargetUnusable, content_ids
from securekd_attacks.targets.reading import told_apart

P = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(1e-3, 1.0)).map(
    lambda a: a / a.sum(axis=1, keepdims=True)
)


@given(P)
def test_probabilities_and_their_logarithms_mean_the_same(p: np.ndarray) -> None:
    of_probs, of_logs = told_apart(p, len(p)).log_probs, told_apart(np.log(p), len(p)).log_probs
    np.testing.assert_allclose(of_probs, of_logs, atol=1e-12)


def test_certainty_is_told_apart_too() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(told_apart(sure, 2).log_probs, np.log(sure))
        np.testing.assert_array_equal(told_apart(np.log(sure), 2).log_probs, np.log(sure))


@pytest.mark.parametrize(
    "output",
    [
        np.array([[2.0, 1.0], [0.1, 0.2]]),  # logits
        np.array([[0.5, np.nan], [0.5, 0.5]]),
        np.array([[np.inf, 0.0], [0.5, 0.5]]),
        np.array([0.5, 0.5]),
        np.array([[0.5, 0.5]]),
        np.array(["a", "b"]),
        np.array([[1, 0], [0, 1]]),
        np.array([-1, 0]),
        None,
        [[0.5, 0.5], [1.0]],
    ],
)
def test_anything_else_is_refused(output: object) -> None:
    with pytest.raises(BadAnswer):
        told_apart(output, 2)  # type: ignore[arg-type]


def test_a_callable_is_named_and_its_failure_is_its_own() -> None:
    def broken(inputs: object) -> np.ndarray:
        raise KeyError("weights")

    with pytest.raises(TargetFailed, match="KeyError: 'weights'"):
        FunctionTarget("mine:broken", broken).ask(["x"])
    for name in ("no.such.module:f", "math:no_such", "math:pi"):
        with pytest.raises(TargetUnusable):
            FunctionTarget.named(name)
    assert FunctionTarget.named("numpy:zeros").name == "numpy:zeros"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ["some text", "another"],
        lambda: [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}],
        lambda: np.arange(8.0).reshape(2, 4),
    ],
)
def test_content_names_copies_alike(make: Callable[[], list[str]]) -> None:
    one, other = content_ids(make()), content_ids(make())
    assert one == other
    assert len(set(one)) == 2


def test_records_refuse_what_does_not_belong_together() -> None:
    from securekd_attacks import BadLabels, OverlappingRecords, ShapeMismatch, TooFewRecords

    with pytest.raises(TooFewRecords):
        Records([], ())
    with pytest.raises(ShapeMismatch):
        Records(["a", "b"], ("1",))
    with pytest.raises(OverlappingRecords, match="1"):
        Records(["a", "b"], ("1", "1"))
    with pytest.raises(BadLabels):
        Records(["a", "b"], ("1", "2"), np.array([0, -1]))
