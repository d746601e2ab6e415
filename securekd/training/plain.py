"""Training without privacy: on public rows, and as the yardstick for what privacy costs."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from securekd.errors import ModelError
from securekd.models.trial import try_out
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

    Raises:
        ModelError: if the model needs several rows in a batch, and there are not as many.
    """
    model.to(device).train()
    x = torch.tensor(inputs)
    split = split_frozen(model)
    if split is not None:
        x = encode(split, x) if encode else compute_features(split, x, micro_batch=batch_size, device=device)
        model = split.head
    sizes = batch_sizes(model, x[:1].to(device), len(x), batch_size)
    steps = epochs * len(sizes)
    adam = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(steps, 1))
    for _ in range(epochs):
        for rows in torch.split(torch.from_numpy(randomness.permutation(len(x))), sizes):
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


def batch_sizes(model: nn.Module, row: Tensor, rows: int, batch_size: int) -> list[int]:
    """The sizes of a pass' batches: `batch_size` each, and what is left.

    A single row that is left joins the batch before it, if the model cannot be trained on one: batch normalisation has
    no variance then. Any other model gets it as a batch of its own.

    Args:
        model: in training mode.
        row: an input (1, ...), on the model's device.
        rows: in the pass.
        batch_size: rows in a batch.

    Raises:
        ModelError: if the model cannot be trained on one row, and that is all that there is, or that a batch may hold.
    """
    whole, left = divmod(rows, batch_size)
    sizes = [batch_size] * whole + [left] * (left > 0)
    if 1 not in sizes:
        return sizes
    reason = _failure(model, row)
    if reason is None or _failure(model, torch.cat([row, row])) is not None:
        return sizes
    if rows == 1 or batch_size == 1:
        held = "there is only one row to learn from" if rows == 1 else "the batch size is 1"
        raise ModelError(
            f"{type(model).__name__} cannot be trained on one row alone ({reason}), and {held}; use group or layer "
            f"norm instead of batch norm, or {'more rows' if rows == 1 else 'a batch size of 2 or more'}"
        )
    return [*sizes[:-2], batch_size + 1]


def _failure(model: nn.Module, rows: Tensor) -> str | None:
    """Why the model gives no finite logits for these rows; None if it does."""
    try:
        finite = bool(try_out(model, rows).output.isfinite().all())
    except Exception as error:  # torch's ValueError for batch norm, or whatever a user's layer raises
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None if finite else "its logits are not finite"
