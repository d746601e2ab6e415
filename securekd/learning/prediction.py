"""What models say about inputs, on a machine and in its micro-batches.

Features of a frozen encoder come from where several runs keep them, if there is such a place.
"""

import numpy as np

from securekd.checkpoint import Arrays
from securekd.learning.dp.dp_sgd import predict
from securekd.learning.tasks import Machine, network_of, outputs, shared_features
from securekd.models.shape import InputShape
from securekd.settings.models import Model


def logits(
    machine: Machine, shape: InputShape, model: Model, state: Arrays, public: Arrays, inputs: np.ndarray
) -> np.ndarray:
    """Logits in float64: (N, C), or (N, C + 1) of a model that was trained beside a background.

    Args:
        machine: where the model is asked.
        shape: of inputs and classes.
        model: what to build.
        state: its weights and buffers.
        public: what it takes from the transfer set.
        inputs: (N, ...).
    """
    network = network_of(model, outputs(shape, model), 0, state, public)
    micro_batch, device = machine.micro_batch, machine.device
    encode = shared_features(machine.shared, model, shape, network, public, micro_batch=micro_batch, device=device)
    return predict(network, inputs, micro_batch=micro_batch, device=device, encode=encode)
