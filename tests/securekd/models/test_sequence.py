"""A head is told by what enters and leaves its layers, also where an activation overwrites it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu

from securekd.models.sequence import as_sequence


class Headed(nn.Module):
    """A frozen encoder, and a head whose activation stands in `forward` alone."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.encoder = nn.Linear(6, 5).requires_grad_(False)
        self.dense, self.out = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.activation(self.dense(self.encoder(x).relu_())))


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        (Tensor.relu, nn.ReLU),
        (Tensor.relu_, nn.ReLU),
        (lambda h: relu(h, inplace=True), nn.ReLU),
        (lambda h: silu(h, inplace=True), nn.SiLU),
        (Tensor.tanh_, nn.Tanh),
        (Tensor.sigmoid_, nn.Sigmoid),
        (lambda h: h, nn.Identity),
    ],
)
def test_an_activation_in_place_is_recognised_like_any_other(
    activation: Callable[[Tensor], Tensor], kind: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    model, x = Headed(activation), torch.randn(8, 6)
    found = as_sequence(model, x)
    assert found is not None
    assert isinstance(found[2], kind)
    torch.testing.assert_close(found(x), model(x))
