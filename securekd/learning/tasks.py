"""One piece of training as a value: it can go to another process, and the order in which pieces run changes nothing."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from securekd.checkpoint import Arrays, Saved
from securekd.kept import Kept, digest_of
from securekd.learning.distillation import Divergence, learn_least_squares, learn_soft_labels
from securekd.learning.dp.class_sums import split_white, train_class_sums
from securekd.learning.dp.closed_form import Features
from securekd.learning.dp.dp_sgd import Beside, DpSgdPlan, TrainingOutcome, train_dp
from securekd.learning.plain import train_plain
from securekd.models.frozen import Encode, Split, compute_features, has_encoder
from securekd.models.public import give_public
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.randomness import Label, Randomness
from securekd.settings.models import Model, loss_of
from securekd.settings.training import Training


def outputs(shape: InputShape, model: Model) -> InputShape:
    """The shape of what a model gives: beside the classes, the background of its loss is one more."""
    return replace(shape, classes=shape.classes + (loss_of(model) == "background"))


@dataclass(frozen=True)
class Lesson:
    """Public knowledge to learn before anything private: a consensus' soft labels, or public labels.

    Attributes:
        inputs: transfer-set inputs (m, ...).
        soft_labels: log-probabilities (m, C) of the consensus; None for public labels.
        labels: public labels (m,); None for soft ones.
        epochs: passes over the transfer set.
        batch_size: rows in a step.
        learning_rate: of Adam.
        loss: for soft labels: a divergence, or least squares in closed form, without epochs.
        temperature: of the distillation.
    """

    inputs: np.ndarray
    soft_labels: np.ndarray | None
    labels: np.ndarray | None
    epochs: int
    batch_size: int
    learning_rate: float
    loss: Divergence | Literal["least_squares"] = "forward_kl"
    temperature: float = 1.0


@dataclass(frozen=True)
class Machine:
    """Where models are trained and asked: it changes no result, but for the rounding of sums.

    Attributes:
        micro_batch: examples at a time.
        device: torch device.
        shared: folder in which several runs keep the features of frozen encoders; None: none.
    """

    micro_batch: int = 256
    device: str = "cpu"
    shared: Path | None = None


@dataclass(frozen=True)
class TrainTask:
    """Everything that one model's training in one phase depends on.

    Attributes:
        name: labels of the randomness: what is trained, for whom, in which round.
        model: what to build.
        shape: of inputs and classes.
        init_seed: public seed of the initial weights.
        state: weights to go on from; None for the initial ones.
        lessons: what to learn first.
        inputs: private inputs; None to learn the lessons only.
        labels: private labels.
        dp: the DP-SGD plan; None trains without privacy.
        training: learning rates and epochs.
        learning_rate: of SGD in DP-SGD, for this model.
        randomness: where secret and public draws come from.
        micro_batch: examples at a time.
        device: torch device.
        shared: folder in which several runs keep the features of frozen encoders; None: none.
        absent: private examples that are not trained on and still count in their public number.
        public: what the model takes from the transfer set.
        share: private examples over those of a client on average; counts for class sums alone.
        earlier: trainings on private data that `state` comes from; likewise.
        background: public inputs (m, ...) of the class that is one more, where the loss has one.
    """

    name: tuple[Label, ...]
    model: Model
    shape: InputShape
    init_seed: int
    state: Arrays | None
    lessons: tuple[Lesson, ...]
    inputs: np.ndarray | None
    labels: np.ndarray | None
    dp: DpSgdPlan | None
    training: Training
    learning_rate: float
    randomness: Randomness
    micro_batch: int
    device: str
    shared: Path | None = None
    absent: int = 0
    public: Arrays = field(default_factory=dict)
    share: float = 1.0
    earlier: int = 0
    background: np.ndarray | None = None


Perform = Callable[[Sequence[TrainTask]], Iterator[Saved]]
"""Carries training tasks out, several at a time where there are cores, and gives what they gave in order."""


def perform(task: TrainTask) -> Saved:
    """Train as the task says: weights as arrays, and as info the zeroed gradients and how gradients were computed."""
    start = time.monotonic()
    network = network_of(task.model, outputs(task.shape, task.model), task.init_seed, task.state, task.public)
    public = task.randomness.public("order", *task.name)
    outcome = TrainingOutcome(steps=0, zeroed=0, gradients=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.randomness.public_seed("dropout", *task.name))
        for lesson in task.lessons:
            _learn(network, lesson, public, task)
        if task.inputs is not None and task.labels is not None:
            outcome = _train_private(network, task, task.inputs, task.labels, public)
    info = {"zeroed": outcome.zeroed, "gradients": outcome.gradients}
    return Saved(arrays=state_of(network), info=info, seconds=time.monotonic() - start)


def network_of(
    model: Model, shape: InputShape, init_seed: int, state: Arrays | None, public: Arrays | None = None
) -> nn.Module:
    """The network that `model` names.

    Args:
        model: what to build.
        shape: of inputs and classes.
        init_seed: of the initial weights.
        state: weights and buffers instead of these; None: none.
        public: what it takes from the transfer set; None: only its weights are looked at.
    """
    network = build(model, shape, init_seed)
    if public is not None:
        give_public(network, public)
    if state is not None:
        network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    return network


def state_of(network: nn.Module) -> dict[str, np.ndarray]:
    """The network's weights and buffers as arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}


def _learn(network: nn.Module, lesson: Lesson, public: np.random.Generator, task: TrainTask) -> None:
    if lesson.soft_labels is None:
        _learn_labels(network, lesson, public, task)
    elif lesson.loss == "least_squares":
        learn_least_squares(network, lesson.inputs, lesson.soft_labels, _encode(task, network))
    else:
        learn_soft_labels(
            network,
            lesson.inputs,
            lesson.soft_labels,
            loss=lesson.loss,
            temperature=lesson.temperature,
            epochs=lesson.epochs,
            batch_size=lesson.batch_size,
            learning_rate=lesson.learning_rate,
            randomness=public,
            device=task.device,
            encode=_encoder(task, network),
        )


def _learn_labels(network: nn.Module, lesson: Lesson, public: np.random.Generator, task: TrainTask) -> None:
    if lesson.labels is not None:
        train_plain(
            network,
            lesson.inputs,
            lesson.labels,
            epochs=lesson.epochs,
            batch_size=lesson.batch_size,
            learning_rate=lesson.learning_rate,
            randomness=public,
            device=task.device,
            encode=_encoder(task, network),
        )


def _train_private(
    network: nn.Module, task: TrainTask, inputs: np.ndarray, labels: np.ndarray, public: np.random.Generator
) -> TrainingOutcome:
    if loss_of(task.model) == "class_sums":
        return _sum_classes(network, task, inputs, labels)
    beside = _beside(task, len(labels) + task.absent, public)
    if task.dp is None:
        if beside is not None:
            inputs = np.concatenate([inputs, beside.inputs[beside.draw().numpy()]])
            labels = np.concatenate([labels, beside.labels.numpy()])
        batch = min(task.training.plain_batch_size, len(labels))
        return train_plain(
            network,
            inputs,
            labels,
            epochs=task.training.plain_epochs,
            batch_size=batch,
            learning_rate=task.training.plain_learning_rate,
            randomness=public,
            device=task.device,
            encode=_encoder(task, network),
        )
    return train_dp(
        network,
        inputs,
        labels,
        plan=task.dp,
        learning_rate=task.learning_rate,
        momentum=task.training.momentum,
        randomness=task.randomness.secret("dp-sgd", *task.name),
        micro_batch=task.micro_batch,
        device=task.device,
        encode=_encoder(task, network),
        absent=task.absent,
        beside=beside,
    )


def _beside(task: TrainTask, examples: int, order: np.random.Generator) -> Beside | None:
    """As many public rows as private ones: in a step of DP-SGD on average, and without it altogether."""
    if task.background is None:
        return None
    count = examples if task.dp is None else max(1, round(task.dp.sampling_rate * examples))
    return Beside(task.background, task.shape.classes, count, order)


def _sum_classes(network: nn.Module, task: TrainTask, inputs: np.ndarray, labels: np.ndarray) -> TrainingOutcome:
    split = split_white(network.to(task.device).train())
    encoded = _encode(task, network)(split, torch.tensor(inputs))
    zeroed = train_class_sums(
        split.head,
        Features.of(encoded, split.head),
        torch.tensor(labels).to(task.device),
        task.dp,
        task.randomness.secret("dp-sgd", *task.name),
        share=task.share,
        earlier=task.earlier,
        absent=task.absent,
    )
    return TrainingOutcome(task.dp.steps if task.dp else 0, zeroed, "closed_form" if task.dp else None)


def _encode(task: TrainTask, network: nn.Module) -> Encode:
    """How a network's features are had, found or computed."""
    computed = partial(compute_features, micro_batch=task.micro_batch, device=task.device)
    return _encoder(task, network) or computed


def _encoder(task: TrainTask, network: nn.Module) -> Encode | None:
    return shared_features(
        task.shared, task.model, task.shape, network, task.public, micro_batch=task.micro_batch, device=task.device
    )


def shared_features(
    shared: Path | None,
    model: Model,
    shape: InputShape,
    network: nn.Module,
    public: Arrays,
    *,
    micro_batch: int,
    device: str,
) -> Encode | None:
    """How the features of a frozen encoder are had, where another run may have computed them.

    Args:
        shared: folder in which runs keep them; None: they are not kept, and None is given.
        model: what `network` was built from.
        shape: of inputs and classes.
        network: whose encoder it is; None is given where it has none.
        public: what it takes from the transfer set.
        micro_batch: examples at a time.
        device: torch device.
    """
    if shared is None or not has_encoder(network):
        return None
    kept = Kept(shared / "features")
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    encoder = {name: value for name, value in state_of(network).items() if name not in trained}

    def encode(split: Split, inputs: Tensor) -> Tensor:
        def compute() -> Saved:
            found = compute_features(split, inputs, micro_batch=micro_batch, device=device)
            return Saved({"features": found.cpu().numpy()})

        key = digest_of("features", model.kind, model.options, shape, encoder, public, inputs.numpy())
        return torch.from_numpy(kept.get(key, compute).arrays["features"]).to(device)

    return encode
