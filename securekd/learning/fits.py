"""What models take from the public transfer set: fitted once, for everybody who builds the same model."""

import numpy as np

from securekd.checkpoint import Arrays
from securekd.models.public import fit_public
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.settings.models import Model


class Fits:
    """Fits of models on one transfer set; each is made when it is first asked for.

    Args:
        transfer: inputs of the transfer set (m, ...).
        shape: of inputs and classes.
    """

    def __init__(self, transfer: np.ndarray, shape: InputShape) -> None:
        self._transfer = transfer
        self._shape = shape
        self._made: dict[str, Arrays] = {}

    def of(self, model: Model) -> Arrays:
        """What a model takes, by name; empty where it takes nothing.

        Raises:
            ModelError: The transfer set does not have what the model asks of it.
        """
        key = repr((model.kind, model.options))
        if key not in self._made:
            self._made[key] = fit_public(build(model, self._shape, seed=0), self._transfer)
        return self._made[key]
