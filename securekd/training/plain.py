"""Training without privacy: on public rows, and as the yardstick for what privacy costs."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from securekd.training.dp_sgd import TrainingOutcome
from securekd.training.frozen import Encode, compute_features, split_frozen

Objective = Callable[[Tensor, Tensor], Tensor]


def fit(
    model: nn.Module,
    inputs: np.ndarray,
    objective: Objective,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    randomness: np.random.Generator,
    device: str = "cpu",
    encode: Encode | None = None,
) -> int:
    """Minimise `objective(logits, rows)` with Adam, whose rate decays to zero by a half cosine.

    Args:
        model: trained in place; where only a head on fixed features is trained, these are computed once.
        inputs: (N, ...).
        objective: mean loss of a batch, from its logits and the rows' numbers.
        epochs: passes over the inputs.
        batch_size: rows in a step.
        learning_rate: at the start.
        randomness: public generator of the order of rows.
        device: torch device.
        encode: gives the features of a frozen encoder; None: they are computed.

    Returns:
        The number of steps.
    """
    model.to(device).train()
    x = torch.tensor(inputs)
    split = split_frozen(model)
    if split is not None:
        x = encode(split, x) if encode else compute_features(split, x, micro_batch=batch_size, device=device)
        model = split.head
    steps = epochs * math.ceil(len(x) / batch_size)
    adam = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(steps, 1))
    for _ in range(epochs):
        for rows in _shuffled(len(x), batch_size, randomness):
            adam.zero_grad(set_to_none=True)
            objective(model(x[rows].to(device)), rows).backward()  # type: ignore[no-untyped-call]
            adam.step()
            schedule.step()
    return steps


def train_plain(
    model: nn.Module,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    randomness: np.random.Generator,
    device: str = "cpu",
    encode: Encode | None = None,
) -> TrainingOutcome:
    """Train `model` in place on labels by cross-entropy, with no privacy."""
    y = torch.tensor(labels)

    def objective(logits: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(logits, y[rows].to(logits.device))

    steps = fit(
        model,
        inputs,
        objective,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        randomness=randomness,
        device=device,
        encode=encode,
    )
    return TrainingOutcome(steps=steps, zeroed=0, gradients=None)


def _shuffled(rows: int, batch_size: int, randomness: np.random.Generator) -> Iterator[Tensor]:
    yield from torch.split(torch.from_numpy(randomness.permutation(rows)), batch_size)
