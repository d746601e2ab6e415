"""The simplest model that could do: a linear head on public features, with which a run has to stand comparison."""

import math

from securekd.errors import ModelError
from securekd.learning.fits import Fits
from securekd.models.shape import InputShape
from securekd.settings.models import ClientModel

# Of SGD without momentum, on rows of the length that principal components have; flat between half and twice of it.
LEARNING_RATE = 8.0
COMPONENTS = (100, 50, 20, 10, 5, 2)


def simple_model(fits: Fits, shape: InputShape, momentum: float) -> ClientModel:
    """A head on as many principal components of a modality's public features as the transfer set has, up to 100.

    Args:
        fits: on the transfer set.
        shape: of inputs and classes.
        momentum: of the SGD that will train it.
    """
    kind = "tfidf" if shape.modality == "text" else "hog" if shape.oriented else "logistic"
    for components in COMPONENTS:
        if shape.modality != "text" and components > math.prod(shape.dimensions):
            continue
        options = {"components": components, "whitening": 0.5}
        model = ClientModel(kind=kind, options=options, learning_rate=LEARNING_RATE * (1.0 - momentum))
        try:
            fits.of(model)
        except ModelError:  # there are not as many, or no features of this kind
            continue
        return model
    return ClientModel(kind="logistic")
