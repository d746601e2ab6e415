"""Divergences against their definitions, and a student that really learns its teacher."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn.functional import log_softmax

from securekd.learning.distillation import DIVERGENCES, forward_kl, jensen_shannon, learn_soft_labels, reverse_kl
from securekd.learning.dp.dp_sgd import predict
from securekd.learning.plain import train_plain
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.numerics import log_softmax as numpy_log_softmax
from securekd.settings.models import Model

LOGITS = arrays(np.float64, (3, 5), elements=st.floats(-20, 20))
SHAPE = InputShape("tabular", (4,), 3)


def naive_kl(p: np.ndarray, q: np.ndarray) -> list[float]:
    return [sum(a * math.log(a / b) for a, b in zip(x, y, strict=True) if a > 0) for x, y in zip(p, q, strict=True)]


@given(LOGITS, LOGITS)
def test_divergences_follow_their_definitions(student: np.ndarray, teacher: np.ndarray) -> None:
    s, t = (log_softmax(torch.tensor(z), 1) for z in (student, teacher))
    q, p = np.exp(s.numpy()), np.exp(t.numpy())
    mixture = (p + q) / 2
    tolerance = {"rel": 1e-6, "abs": 1e-9}
    assert forward_kl(s, t).tolist() == pytest.approx(naive_kl(p, q), **tolerance)
    assert reverse_kl(s, t).tolist() == pytest.approx(naive_kl(q, p), **tolerance)
    expected = [(a + b) / 2 for a, b in zip(naive_kl(p, mixture), naive_kl(q, mixture), strict=True)]
    assert jensen_shannon(s, t).tolist() == pytest.approx(expected, **tolerance)


@given(LOGITS, LOGITS)
def test_jensen_shannon_is_symmetric_and_at_most_log_two(student: np.ndarray, teacher: np.ndarray) -> None:
    s, t = (log_softmax(torch.tensor(z), 1) for z in (student, teacher))
    torch.testing.assert_close(jensen_shannon(s, t), jensen_shannon(t, s))
    assert float(jensen_shannon(s, t).max()) <= math.log(2) + 1e-9


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_a_divergence_is_zero_only_at_the_teacher(loss: str) -> None:
    t = log_softmax(torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64), 1)
    other = log_softmax(torch.tensor([[1.0, 1.9, -1.0]], dtype=torch.float64), 1)
    assert float(DIVERGENCES[loss](t, t)) == pytest.approx(0.0, abs=1e-12)
    assert float(DIVERGENCES[loss](other, t)) > 1e-5


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_student_learns_its_teachers_distribution(loss: str, temperature: float) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((200, 4), dtype=np.float32)
    teacher = numpy_log_softmax((inputs - 0.5) @ rng.normal(size=(4, 3)) * 4)
    student = build(Model(kind="logistic"), SHAPE, seed=0)

    def distance() -> float:
        q = numpy_log_softmax(predict(student, inputs, micro_batch=64))
        return float(np.abs(np.exp(q) - np.exp(teacher)).mean())

    before = distance()
    learn_soft_labels(
        student, inputs, teacher, loss=loss, temperature=temperature, epochs=60, batch_size=20,  # type: ignore[arg-type]
        learning_rate=0.05, randomness=np.random.default_rng(1),
    )  # fmt: skip
    assert distance() < 0.2 * before


def test_no_epochs_change_nothing() -> None:
    student = build(Model(kind="logistic"), SHAPE, seed=0)
    before = [p.clone() for p in student.parameters()]
    inputs = np.zeros((5, 4), np.float32)
    learn_soft_labels(
        student, inputs, np.full((5, 3), -math.log(3)), loss="forward_kl", temperature=1.0, epochs=0, batch_size=2,
        learning_rate=0.1, randomness=np.random.default_rng(1),
    )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))


def test_plain_training_fits_separable_data_and_repeats() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((120, 4), dtype=np.float32)
    labels = inputs[:, :3].argmax(1)
    ends = []
    for _ in range(2):
        model = build(Model(kind="logistic"), SHAPE, seed=0)
        outcome = train_plain(
            model, inputs, labels, epochs=60, batch_size=16, learning_rate=0.1, randomness=np.random.default_rng(2)
        )
        ends.append(predict(model, inputs, micro_batch=50))
    assert outcome.steps == 60 * 8
    assert (ends[0].argmax(1) == labels).mean() > 0.95
    np.testing.assert_array_equal(ends[0], ends[1])
