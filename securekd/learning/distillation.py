"""Knowledge distillation (Hinton et al. 2015): a student learns a consensus' soft labels on the transfer set.

Everything here is post-processing of what was released: it sees public inputs and released scores, and costs no
privacy.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from securekd.learning.plain import fit
from securekd.learning.smoothing.ridge import ridge
from securekd.models.frozen import Encode, split_linear

Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of each row; both (N, C) log-probabilities; gives (N,)."""
    return (teacher.exp() * (teacher - student)).sum(1)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student ‖ teacher) of each row: seeks the teacher's modes where the forward one covers its mass."""
    return (student.exp() * (student - teacher)).sum(1)


def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    """Jensen–Shannon divergence of each row (Lin 1991), with equal weights, in nats: between 0 and log 2."""
    mixture = torch.logaddexp(student, teacher) - math.log(2.0)
    return 0.5 * (forward_kl(mixture, teacher) + forward_kl(mixture, student))


DIVERGENCES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}


def learn_soft_labels(
    model: nn.Module,
    inputs: np.ndarray,
    teacher: np.ndarray,
    *,
    loss: Divergence,
    temperature: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    randomness: np.random.Generator,
    device: str = "cpu",
    encode: Encode | None = None,
) -> None:
    """Teach `model`, in place, the teacher's soft labels.

    Args:
        model: gives logits (N, C).
        inputs: transfer-set inputs (N, ...).
        teacher: log-probabilities of the consensus (N, C), at temperature 1.
        loss: the divergence; multiplied by temperature², so that its gradients keep their size (Hinton et al., §2).
        temperature: softens both teacher and student.
        epochs: passes over the transfer set.
        batch_size: rows in a step.
        learning_rate: of Adam; decays to zero over the epochs by a half cosine.
        randomness: public generator of the order of rows.
        device: torch device.
        encode: gives the features of a frozen encoder; None: they are computed.
    """
    soft = log_softmax(torch.tensor(teacher, dtype=torch.float32) / temperature, dim=1)
    divergence = DIVERGENCES[loss]

    def objective(logits: Tensor, rows: Tensor) -> Tensor:
        student = log_softmax(logits / temperature, dim=1)
        return divergence(student, soft[rows].to(logits.device)).mean() * temperature**2

    fit(
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


@torch.no_grad()
def learn_least_squares(network: nn.Module, inputs: np.ndarray, teacher: np.ndarray, encode: Encode) -> None:
    """Teach a linear head, in place, the teacher's probabilities by ridge regression in closed form.

    Args:
        network: gives logits (N, C).
        inputs: transfer-set inputs (N, ...).
        teacher: log-probabilities of the consensus (N, C).
        encode: gives the features of the inputs.

    Raises:
        ModelError: It is no linear head on fixed features.
    """
    split, head = split_linear(network.train())
    features = encode(split, torch.tensor(inputs)).double().cpu().numpy()
    found = ridge(np.column_stack([features, np.ones(len(features))]), teacher)
    weights = torch.from_numpy(found.sharpness * found.weights.T)
    head.weight.copy_(weights[:, :-1])
    head.bias.copy_(weights[:, -1])
