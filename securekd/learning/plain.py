"""Training without privacy: on public rows, and as the yardstick for what privacy costs."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from securekd.errors import ModelError
from securekd.learning.dp.dp_sgd import TrainingOutcome
from securekd.models.frozen import Encode, compute_features, split_frozen
from securekd.models.trial import reason, untouched

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
    sizes = batch_sizes(model, x[: batch_size + 1].to(device), len(x), batch_size)
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


def batch_sizes(model: nn.Module, trial: Tensor, rows: int, batch_size: int) -> list[int]:
    """The sizes of a pass' batches: `batch_size` each, and what is left.

    A single row that is left joins the batch before it, if the model cannot be trained on one: batch normalisation has
    no variance then. Any other model gets it as a batch of its own.

    Args:
        model: in training mode.
        trial: inputs (n, ...) to try it on, on the model's device: as many as a batch and one more, and different ones,
            since copies of a row have no variance either.
        rows: in the pass.
        batch_size: rows in a batch.

    Raises:
        ModelError: if the model cannot be trained on one row, and that is all that there is, or that a batch may hold;
            or on several rows either.
    """
    whole, left = divmod(rows, batch_size)
    sizes = [batch_size] * whole + [left] * (left > 0)
    if 1 not in sizes:
        return sizes
    alone = _failure(model, trial[:1])
    if alone is None:
        return sizes
    if rows == 1 or batch_size == 1:
        held = "there is only one row to learn from" if rows == 1 else "the batch size is 1"
        raise ModelError(
            f"{type(model).__name__} cannot be trained on one row alone ({alone}), and {held}; use group or layer "
            f"norm instead of batch norm, or {'more rows' if rows == 1 else 'a batch size of 2 or more'}"
        )
    together = _failure(model, trial) if len(trial) > 1 else None
    if together is not None:
        raise ModelError(
            f"{type(model).__name__} cannot be trained on a batch of {len(trial)} rows: {together}; look for a "
            "division by zero (a deviation without ε), a logarithm, or a layer that fails"
        )
    return [*sizes[:-2], batch_size + 1]


@torch.enable_grad()
def _failure(model: nn.Module, rows: Tensor) -> str | None:
    """Why these rows give no finite logits, statistics and gradients; None if they do."""
    trained = [p for p in model.parameters() if p.requires_grad]
    before = _infinite_buffers(model)  # a mask may be meant so
    try:
        with untouched(model, rows):
            logits = model(rows.clone())
            if not logits.isfinite().all():
                return "its logits are not finite"
            if _infinite_buffers(model) - before:
                return "its statistics are not finite"
            if not logits.requires_grad:
                return None
            loss = cross_entropy(logits, logits.new_zeros(len(rows), dtype=torch.long))
            found = torch.autograd.grad(loss, trained, allow_unused=True)
    except Exception as error:  # torch's ValueError for batch norm, or whatever a user's layer raises
        return reason(error)
    finite = all(gradient.isfinite().all() for gradient in found if gradient is not None)
    return None if finite else "its gradients are not finite"


def _infinite_buffers(model: nn.Module) -> set[str]:
    return {name for name, buffer in model.named_buffers() if not buffer.isfinite().all()}
