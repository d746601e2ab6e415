"""Training without privacy: passes over the rows, and a last row that is left alone."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, cross_entropy

from securekd.errors import ModelError
from securekd.learning.distillation import learn_soft_labels
from securekd.learning.plain import batch_sizes, train_plain


class Functional(nn.Module):
    """Batch norm that no layer's type tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(batch_norm(x, None, None, training=True))


class Standardised(nn.Module):
    """Divides by the batch's deviation, which is NaN for a row alone, without an error."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x / (x.std(0) + 1.0))


class Scaled(nn.Module):
    """A standardisation written by hand after a layer, as `scale` has it."""

    def __init__(self, scale: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.body(x)
        return self.head((z - z.mean(0)) / self.scale(z))


NORMED: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)),
    "batch norm on pixels": lambda: nn.Sequential(
        nn.Unflatten(1, (6, 1, 1)), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 3)
    ),
    "frozen batch norm": lambda: nn.Sequential(nn.BatchNorm1d(6).requires_grad_(False), nn.Linear(6, 3)),
    "functional": Functional,
    "by hand": Standardised,
    "by hand, without ε": lambda: Scaled(lambda z: z.std(0)),
    "by hand, of all units": lambda: Scaled(lambda z: z.std(0, correction=0).mean()),
    "by hand, by the range": lambda: Scaled(lambda z: z.amax(0) - z.amin(0)),
    "by hand, finite but for the gradient": lambda: Scaled(lambda z: z.var(0, correction=0).sqrt() + 1.0),
}
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 3),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 3)),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
    "batch norm on larger pictures": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(6, 3)
    ),
}


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return make()


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((count, 6), dtype=np.float32), rng.integers(0, 3, count)


def by_hand(model: nn.Module, x: np.ndarray, y: np.ndarray, batches: list[int], epochs: int) -> None:
    """Adam on batches of these sizes, in as few lines as it takes."""
    rng = np.random.default_rng(2)
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * len(batches))
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for rows in np.split(order, np.cumsum(batches)[:-1]):
            adam.zero_grad()
            cross_entropy(model.train()(torch.tensor(x[rows])), torch.tensor(y[rows])).backward()
            adam.step()
            schedule.step()


def trained(model: nn.Module, x: np.ndarray, y: np.ndarray, batch_size: int, epochs: int = 2) -> int:
    torch.manual_seed(5)
    rng = np.random.default_rng(2)
    return train_plain(model, x, y, epochs=epochs, batch_size=batch_size, learning_rate=0.1, randomness=rng).steps


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        assert value.isfinite().all()


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize(("rows", "batches"), [(9, [4, 5]), (13, [4, 4, 5]), (5, [5])])
def test_a_last_row_alone_joins_the_batch_before_it_where_a_model_needs_company(
    name: str, rows: int, batches: list[int]
) -> None:
    (x, y), model = draw(rows), made(NORMED[name])
    twin = copy.deepcopy(model)
    assert trained(model, x, y, batch_size=4) == 2 * len(batches)
    by_hand(twin, x, y, batches, epochs=2)
    assert_same(model, twin)


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_model_gets_it_as_a_batch_of_its_own_as_ever(name: str) -> None:
    (x, y), model = draw(9), made(OTHERS[name])
    twin = copy.deepcopy(model)
    assert trained(model, x, y, batch_size=4) == 6
    torch.manual_seed(5)
    by_hand(twin, x, y, [4, 4, 1], epochs=2)
    assert_same(model, twin)


@pytest.mark.parametrize("name", [*NORMED, *OTHERS])
@pytest.mark.parametrize(("rows", "batches"), [(8, [4, 4]), (10, [4, 4, 2]), (3, [3])])
def test_no_other_number_of_rows_changes_a_batch(name: str, rows: int, batches: list[int]) -> None:
    model = made((NORMED | OTHERS)[name]).train()
    assert batch_sizes(model, torch.rand(min(rows, 5), 6), rows, 4) == batches


BROKEN: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "a division by zero": (lambda z: z - z, "its logits are not finite"),
    "a logarithm": (lambda z: (-z.square()).log(), "its logits are not finite"),
    "a root of zero": (lambda z: (z - z).sqrt() + 1.0, "its gradients are not finite"),
    "an error": (lambda z: z @ z, "mat1 and mat2"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_company_does_not_help_is_refused_by_name(name: str) -> None:
    (x, y), (scale, why) = draw(9), BROKEN[name]
    model = made(lambda: Scaled(scale))
    before = copy.deepcopy(model)
    with pytest.raises(ModelError, match=f"Scaled cannot be trained on a batch of 5 rows: {why}.*; look for"):
        trained(model, x, y, batch_size=4)
    assert_same(model, before)


@pytest.mark.parametrize("name", NORMED)
def test_looking_leaves_no_trace_in_the_statistics(name: str) -> None:
    model = made(NORMED[name]).train()
    twin = copy.deepcopy(model)
    batch_sizes(model, torch.rand(5, 6), 9, 4)
    assert_same(model, twin)


def test_a_student_with_batch_norm_learns_soft_labels_of_any_number_of_rows() -> None:
    x, _ = draw(9)
    teacher = np.log(np.random.default_rng(3).dirichlet(np.ones(3), 9))
    student = made(NORMED["batch norm"])
    learn_soft_labels(
        student, x, teacher, loss="forward_kl", temperature=1.0, epochs=2, batch_size=4, learning_rate=0.1,
        randomness=np.random.default_rng(0),
    )  # fmt: skip
    assert int(student[1].num_batches_tracked) == 4


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize(
    ("rows", "batch_size", "why"), [(1, 4, "only one row"), (1, 1, "only one row"), (5, 1, "the batch size is 1")]
)
def test_a_row_alone_that_has_no_batch_to_join_is_refused_with_the_remedy(
    name: str, rows: int, batch_size: int, why: str
) -> None:
    x, y = draw(rows)
    with pytest.raises(ModelError, match=f"cannot be trained on one row alone.*{why}.*group or layer norm"):
        trained(made(NORMED[name]), x, y, batch_size)


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 4), (5, 1)])
def test_other_models_learn_from_single_rows(rows: int, batch_size: int) -> None:
    x, y = draw(rows)
    assert trained(made(OTHERS["linear"]), x, y, batch_size) == 2 * rows
