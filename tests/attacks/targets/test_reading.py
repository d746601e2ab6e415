"""What a callable may return is told apart by its content, and nothing is taken for what it is not."""

from collections import OrderedDict
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


P2 = np.array([[0.7, 0.3], [0.2, 0.8]])


class Output:
    """As libraries of models return it."""

    logits = np.log(P2)


@pytest.mark.parametrize(
    ("output", "said", "remedy"),
    [
        ({"probs": P2}, "a dict with probs", "return one numpy array alone"),
        ({"logits": P2, "loss": 0.1}, "a dict with logits, loss", "log_softmax of its logits alone"),
        (Output(), "a Output with logits", "log_softmax of its logits alone"),
        (OrderedDict(logits=P2), "a OrderedDict with logits", "log_softmax of its logits alone"),
        ((P2, P2.argmax(axis=1)), "a tuple of ndarray, ndarray", "return one numpy array alone"),
        ((P2, P2), "a tuple of ndarray, ndarray: float64, shape", "return one numpy array alone"),
        ((P2,), "a tuple of ndarray", "return one numpy array alone"),
        ((row for row in P2), "a generator", "return one numpy array alone"),
        (None, "a NoneType", "return one numpy array alone"),
        ([[0.5, 0.5], [1.0]], "a list", "return one numpy array alone"),
        ("cat", "a str", "return one numpy array alone"),
    ],
)
def test_what_a_callable_returned_is_said_and_what_it_should_return(output: object, said: str, remedy: str) -> None:
    with pytest.raises(BadAnswer, match=rf"\(got {said}.*{remedy}") as refused:
        told_apart(output, 2)  # type: ignore[arg-type]
    assert "shape ()" not in str(refused.value)


def test_a_tensor_that_numpy_cannot_take_is_told_how_it_can() -> None:
    torch = pytest.importorskip("torch")
    for output in (torch.tensor(P2, requires_grad=True), torch.tensor(P2).bfloat16()):
        with pytest.raises(BadAnswer, match=r"\(got a Tensor\); return it as .*detach\(\).float\(\).cpu\(\).numpy\(\)"):
            told_apart(output, 2)
        told_apart(output.detach().float().cpu().numpy(), 2)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([np.nan, np.nan], r"NaN or \+inf in 1 rows, first in row 1 \(got nan\)"),
        ([0.5, np.nan], r"NaN or \+inf in 1 rows, first in row 1 \(got nan\)"),
        ([np.inf, 0.0], r"NaN or \+inf in 1 rows, first in row 1 \(got inf\)"),
        ([1.01, -0.01], r"neither probabilities nor their logarithms in row 1 \(got -0.01\).*log_softmax"),
        ([3.0, -2.5], r"neither probabilities nor their logarithms in row 1 \(got -2.5\).*log_softmax"),
        ([0.5, 0.3], r"do not sum to one in 1 rows, first in row 1 \(got 0.8"),
    ],
)
def test_one_bad_row_is_named_with_its_value_and_the_true_cause(bad: list[float], why: str) -> None:
    with pytest.raises(BadAnswer, match=why) as refused:
        told_apart(np.array([[0.123456789, 0.876543211], bad]), 2)
    assert refused.value.row == 1
    assert "in record r7" in str(refused.value.about("r7"))


@pytest.mark.parametrize("labels", [np.array(["a", "b"]), np.array(["a", "b"], dtype="T"), np.array([b"a", b"b"])])
def test_labels_of_texts_are_refused_and_no_message_fails(labels: np.ndarray) -> None:
    from securekd_attacks import BadLabels

    with pytest.raises(BadLabels, match="integers from 0"):
        Records(["a", "b"], ("1", "2"), labels)  # type: ignore[arg-type]
