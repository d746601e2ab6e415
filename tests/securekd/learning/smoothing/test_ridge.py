"""Ridge regression: leave-one-out by brute force, either side, and the student that is taught by it."""

import numpy as np
import pytest

from securekd.errors import ModelError, SettingError
from securekd.laboratory.plan import make_plan
from securekd.learning.smoothing.ridge import ridge
from securekd.numerics import log_softmax
from tests.securekd.conftest import small


def drawn(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, width))
    return x, log_softmax(2.0 * x[:, :3] + rng.standard_normal((rows, 3)))


@pytest.mark.parametrize(("rows", "width"), [(40, 5), (20, 20), (12, 50)])
def test_the_penalty_is_that_with_which_rows_are_best_foretold_by_the_others(rows: int, width: int) -> None:
    x, taught = drawn(rows, width)
    targets = np.exp(taught) - 1 / 3

    def solved(design: np.ndarray, offset: np.ndarray, penalty: float) -> np.ndarray:
        return np.linalg.solve(design.T @ design + penalty * np.eye(width), design.T @ offset)

    errors = {}
    for penalty in np.geomspace(1e-3, 1e2, 11):
        others = [np.delete(np.arange(rows), i) for i in range(rows)]
        left_out = [targets[i] - x[i] @ solved(x[o], targets[o], penalty) for i, o in enumerate(others)]
        errors[penalty] = np.square(left_out).mean()
    best = min(errors, key=lambda penalty: errors[penalty])
    found = ridge(x, taught)
    assert found.penalty == pytest.approx(best)
    np.testing.assert_allclose(found.weights, solved(x, targets, best), atol=1e-8)


def test_least_squares_are_for_linear_heads_and_scores() -> None:
    with pytest.raises(ModelError, match="is no linear head on fixed features"):
        make_plan(small(student={"model": "mlp", "loss": "least_squares"}))
    alike = {"clients": {"models": ["logistic"]}, "strategy": "fedavg"}
    for changes in ({"loss": "least_squares"}, {"settle": True}):
        with pytest.raises(SettingError, match="strategy = 'distil'"):
            make_plan(small(student={"model": "logistic", "consensus": "mean", **changes}, **alike))
    with pytest.raises(SettingError, match="strategy = 'distil'"):
        make_plan(small(student={"settle": True}, strategy="pate", release={"scores": "votes"}))


def test_rows_too_few_to_have_neighbours_are_not_settled() -> None:
    with pytest.raises(SettingError, match=r"40 are answered; have 50 or more \(data.transfer, release.rows\)"):
        make_plan(small(student={"settle": True}, release={"rows": 40}))
