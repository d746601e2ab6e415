"""What a run's models say about inputs, on the run's device and in its micro-batches.

Features of a frozen encoder come from where several runs keep them, if there is such a place.
"""

from typing import TYPE_CHECKING

import numpy as np

from securekd.checkpoint import Arrays
from securekd.learning.dp.dp_sgd import predict
from securekd.learning.tasks import network_of, shared_features
from securekd.numerics import log_softmax
from securekd.settings.models import Model

if TYPE_CHECKING:  # a strategy makes plans, and asks models
    from securekd.laboratory.plan import Plan


def logits(plan: "Plan", model: Model, state: Arrays, inputs: np.ndarray) -> np.ndarray:
    """Logits (N, C) in float64.

    Args:
        plan: of the run.
        model: what to build.
        state: its weights and buffers.
        inputs: (N, ...).
    """
    runtime, network = plan.experiment.runtime, network_of(model, plan.shape, 0, state)
    micro_batch, device = runtime.micro_batch, runtime.device
    encode = shared_features(plan.shared, model, plan.shape, network, micro_batch=micro_batch, device=device)
    return predict(network, inputs, micro_batch=micro_batch, device=device, encode=encode)


def log_probabilities(plan: "Plan", model: Model, state: Arrays, inputs: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, C); arguments are those of `logits`."""
    return log_softmax(logits(plan, model, state, inputs))
