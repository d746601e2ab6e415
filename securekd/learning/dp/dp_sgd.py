"""DP-SGD (Abadi et al. 2016) on Opacus' per-example gradients, without its loader and engine.

What stock use leaves open is closed here: an own Poisson sampler at the rate that is accounted for, a step with noise
also when the sample is empty, norms accumulated in float64 and clipped a hair under C, non-finite gradients zeroed
and counted, batch dimensions compared over all parameters, a loss for each example, and noise from a CSPRNG.

Where only a head on fixed features is trained, its clipped gradients have a closed form, which is taken instead: the
same mechanism with the same draws, so that both ways give the same weights up to rounding.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from securekd.errors import ModelError
from securekd.learning.dp.closed_form import Features, clipped_sums, zero_sums
from securekd.learning.dp.hooks import OutputHooks
from securekd.learning.dp.mechanism import Scratch, add_noise, factors_of
from securekd.models.frozen import Encode, compute_features, split_frozen
from securekd.randomness import Csprng

# How a model's clipped gradients are computed.
Gradients = Literal["closed_form", "hooks"]

# Entries whose squares are summed in float64 at a time.
NORM_CHUNK = 1 << 19


@dataclass(frozen=True)
class DpSgdPlan:
    """What the guarantee rests on: the accountant is told exactly this.

    Attributes:
        sampling_rate: probability with which each example enters a step, independently of all others.
        steps: number of noisy steps.
        noise_multiplier: standard deviation of the noise, in units of `clip`.
        clip: L2 norm C to which each example's gradient is clipped.
    """

    sampling_rate: float
    steps: int
    noise_multiplier: float
    clip: float


@dataclass(frozen=True)
class TrainingOutcome:
    """What happened in training, for the record.

    Attributes:
        steps: steps taken.
        zeroed: per-example gradients that were not finite, and counted as zero.
        gradients: how clipped gradients were computed; None without privacy.
    """

    steps: int
    zeroed: int
    gradients: Gradients | None


@dataclass(frozen=True, eq=False)
class Beside:
    """Public rows that join each step: clipped like private ones, and part of what is accounted for as any constant is.

    Attributes:
        inputs: (m, ...).
        label: of all of them.
        count: of rows in a step, drawn with replacement.
        order: public generator that draws them.
    """

    inputs: np.ndarray
    label: int
    count: int
    order: np.random.Generator

    def draw(self) -> Tensor:
        """The rows of a step (count,)."""
        return torch.from_numpy(self.order.integers(len(self.inputs), size=self.count))

    @property
    def labels(self) -> Tensor:
        """Of the rows of a step (count,)."""
        return torch.full((self.count,), self.label)


class StrictDPOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer with the clipping and the noise that the guarantee needs."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, plan: DpSgdPlan, population: int, noise: Csprng) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.clip,
            expected_batch_size=1,  # replaced below: it may be a fraction
        )
        self.expected_batch_size = plan.sampling_rate * population
        self._csprng = noise
        self.zeroed = 0

    def clip_and_accumulate(self) -> None:
        """Add the clipped gradients of one micro-batch to `summed_grad`."""
        grads = self.grad_samples
        factor = clip_factors(grads, self.max_grad_norm)
        self.zeroed += int((factor == 0).sum())
        bad = factor == 0
        for parameter, grad in zip(self.params, grads, strict=True):
            if bad.any():  # 0 times infinity would not be 0
                grad = grad.masked_fill(bad.view(-1, *[1] * (grad.dim() - 1)), 0.0)
            total = torch.einsum("i,i...", factor.to(grad.dtype), grad)
            parameter.summed_grad = total if parameter.summed_grad is None else parameter.summed_grad + total
            parameter.grad_sample = None

    def add_noise(self) -> None:
        """Gaussian noise of standard deviation noise_multiplier·C on the summed gradients."""
        flat = torch.cat([p.summed_grad.flatten() for p in self.params])
        add_noise(flat, self.noise_multiplier * self.max_grad_norm, self._csprng)
        for parameter, noised in zip(self.params, torch.split(flat, [p.numel() for p in self.params]), strict=True):
            parameter.grad = noised.view_as(parameter)

    def scale_grad(self) -> None:
        """Divide by the expected batch size q·N, which (unlike the drawn one) is public."""
        for parameter in self.params:
            parameter.grad /= self.expected_batch_size


def clip_factors(grads: list[Tensor], clip: float) -> Tensor:
    """The factor that brings each example's gradient, over all parameters, to a norm of at most `clip`.

    Args:
        grads: for each parameter the per-example gradients (B, ...).
        clip: C.

    Returns:
        float64 (B,), in [0, 1]; exactly 0 for an example whose gradient is not finite.

    Raises:
        ModelError: if parameters disagree on the batch size, since then some gradients are not per example.
    """
    sizes = sorted({len(g) for g in grads})
    if len(sizes) != 1:
        raise ModelError(
            f"per-example gradients disagree on the batch size: {sizes}; this model cannot be trained with DP-SGD"
        )
    squares = torch.zeros(sizes[0], dtype=torch.float64, device=grads[0].device)
    for grad in grads:
        rows = max(1, NORM_CHUNK // max(1, grad[0].numel())) if len(grad) else 1
        for start in range(0, len(grad), rows):  # a float64 copy of all at once would not stay in the cache
            squares[start : start + rows] += grad[start : start + rows].flatten(1).double().square().sum(1)
    return factors_of(squares.sqrt(), clip)


def train_dp(
    model: nn.Module,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    plan: DpSgdPlan,
    learning_rate: float,
    momentum: float,
    randomness: Csprng,
    micro_batch: int,
    device: str = "cpu",
    encode: Encode | None = None,
    absent: int = 0,
    beside: Beside | None = None,
) -> TrainingOutcome:
    """Train `model` in place with DP-SGD.

    Args:
        model: gives logits (N, classes).
        inputs: private inputs (N, ...).
        labels: private classes (N,).
        plan: sampling rate, steps, noise and clip.
        learning_rate: of SGD.
        momentum: of SGD; it is post-processing.
        randomness: secret stream, for the Poisson samples and the noise.
        micro_batch: examples whose gradients are in memory at once; changes no result but for rounding.
        device: torch device.
        encode: gives the features of a frozen encoder; None: they are computed.
        absent: examples that have no gradient and still count in the public N: canaries whose coins kept them out.
        beside: public rows that join each step.

    Raises:
        ModelError: if per-example gradients disagree on the batch size, or a layer has none (`refuse_unsuited` finds
            these and the rest beforehand).
    """
    model.to(device).train()
    x, y = torch.tensor(inputs), torch.tensor(labels)
    split = split_frozen(model)
    if split is None:
        trainable = [p for p in model.parameters() if p.requires_grad]
        sgd = torch.optim.SGD(trainable, lr=learning_rate, momentum=momentum)
        zeroed = train_with_hooks(
            model, sgd, x, y, plan, randomness, micro_batch=micro_batch, device=device, absent=absent, beside=beside
        )
        return TrainingOutcome(steps=plan.steps, zeroed=zeroed, gradients="hooks")
    encode = encode or partial(compute_features, micro_batch=micro_batch, device=device)
    features = Features.of(encode(split, x), split.head)
    public = (beside, Features.of(encode(split, torch.tensor(beside.inputs)), split.head)) if beside else None
    zeroed = train_head(
        split.head,
        features,
        y.to(device),
        plan,
        randomness,
        learning_rate=learning_rate,
        momentum=momentum,
        absent=absent,
        beside=public,
    )
    return TrainingOutcome(steps=plan.steps, zeroed=zeroed, gradients="closed_form")


@torch.no_grad()
def train_head(
    head: nn.Sequential,
    features: Features,
    labels: Tensor,
    plan: DpSgdPlan,
    randomness: Csprng,
    *,
    learning_rate: float,
    momentum: float,
    absent: int = 0,
    beside: tuple[Beside, Features] | None = None,
) -> int:
    """DP-SGD on a head in closed form; gives the number of zeroed gradients.

    Args:
        head: linear layers and elementwise activations, as `split_frozen` gives it; trained in place.
        features: private (N, D).
        labels: private classes (N,), on the features' device.
        plan: sampling rate, steps, noise and clip.
        randomness: secret stream, for the Poisson samples and the noise.
        learning_rate: of SGD.
        momentum: of SGD (Polyak's, as in torch). The velocity is kept in sums, not means, over the expected batch:
            each clipped sum is added to it in one product, and the noise lands on it directly.
        absent: see `train_dp`.
        beside: see `train_dp`; and the features of all of its rows.
    """
    flat, velocity = zero_sums(head, labels.device)
    rate, scratch = learning_rate / (plan.sampling_rate * (len(labels) + absent)), Scratch.of(len(flat))
    zeroed = 0
    for _ in range(plan.steps):
        rows = torch.from_numpy(randomness.poisson_sample(len(labels), plan.sampling_rate)).to(labels.device)
        sums = clipped_sums(head, features[rows], labels.index_select(0, rows), plan.clip)
        sums.add_to(velocity, decay=momentum)
        if beside is not None:
            public, all_features = beside
            others = all_features[public.draw().to(labels.device)]
            clipped_sums(head, others, public.labels.to(labels.device), plan.clip).add_to(velocity, decay=1.0)
        add_noise(flat, plan.noise_multiplier * plan.clip, randomness, scratch)
        for parameter, moved in velocity.items():
            parameter.sub_(moved, alpha=rate)
        zeroed += sums.zeroed
    return zeroed


def train_with_hooks(
    model: nn.Module,
    sgd: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    plan: DpSgdPlan,
    randomness: Csprng,
    *,
    micro_batch: int,
    device: str,
    absent: int = 0,
    beside: Beside | None = None,
) -> int:
    """DP-SGD on any model, in training mode, by Opacus' hooks; gives the number of zeroed gradients."""
    hooks, public = OutputHooks(model, strict=True), torch.tensor(beside.inputs) if beside else inputs[:0]
    try:
        optimizer = StrictDPOptimizer(sgd, plan=plan, population=len(labels) + absent, noise=randomness)
        for _ in range(plan.steps):
            batches = _poisson_micro_batches(inputs, labels, plan, randomness, micro_batch)
            if beside is not None:
                x, y = public[beside.draw()], beside.labels
                batches += list(zip(torch.split(x, micro_batch), torch.split(y, micro_batch), strict=True))
            _step(model, optimizer, batches, device)
        return optimizer.zeroed
    finally:
        hooks.cleanup()


def _poisson_micro_batches(
    x: Tensor, y: Tensor, plan: DpSgdPlan, randomness: Csprng, micro_batch: int
) -> list[tuple[Tensor, Tensor]]:
    sample = torch.from_numpy(randomness.poisson_sample(len(y), plan.sampling_rate))
    return [(x[part], y[part]) for part in torch.split(sample, micro_batch) if len(part)]


def _step(model: nn.Module, optimizer: StrictDPOptimizer, batches: list[tuple[Tensor, Tensor]], device: str) -> None:
    if not batches:  # still a step: the noise alone goes in, since an empty sample is part of the mechanism
        for parameter in optimizer.params:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        optimizer.step()
    for i, (x, y) in enumerate(batches):
        optimizer.signal_skip_step(i < len(batches) - 1)
        # Opacus' hooks multiply by the batch size, which undoes the mean: what is clipped is each example's own loss.
        loss = cross_entropy(model(x.to(device)), y.to(device), reduction="mean")
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    optimizer.zero_grad(set_to_none=True)


def predict(
    model: nn.Module, inputs: np.ndarray, *, micro_batch: int, device: str = "cpu", encode: Encode | None = None
) -> np.ndarray:
    """Logits (N, classes) in float64, in inference mode.

    Args:
        model: gives logits.
        inputs: (N, ...).
        micro_batch: examples at a time.
        device: torch device.
        encode: gives the features of a frozen encoder; None: they are computed.
    """
    model.to(device).eval()
    split = split_frozen(model) if encode else None
    head: nn.Module = split.head if split else model
    batches: Iterable[Tensor] = (
        torch.split(encode(split, torch.tensor(inputs)), micro_batch)
        if encode and split
        else (torch.tensor(inputs[i : i + micro_batch]) for i in range(0, len(inputs), micro_batch))
    )
    with torch.inference_mode():
        parts: list[Any] = [head(batch.to(device)).double().cpu() for batch in batches]
    return torch.cat(parts).numpy()
