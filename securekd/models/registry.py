"""From a model's name and options to a network with repeatable initial weights."""

import inspect
from collections.abc import Callable

import torch
from torch import nn

from securekd.errors import ModelError
from securekd.models import builtin, hog, huggingface, kernel, tfidf
from securekd.models.logits import give_logits
from securekd.models.shape import InputShape
from securekd.models.trial import cut, reason
from securekd.plugins import is_plugin, load_plugin
from securekd.settings.models import Model

Constructor = Callable[..., nn.Module]

CONSTRUCTORS: dict[str, Constructor] = {
    "logistic": builtin.logistic,
    "mlp": builtin.mlp,
    "cnn": builtin.cnn,
    "hog": hog.hog,
    "tfidf": tfidf.tfidf,
    "kernel": kernel.kernel,
    "transformers": huggingface.transformers,
}


def build(model: Model, shape: InputShape, seed: int) -> nn.Module:
    """The network that `model` names, for inputs and classes of `shape`.

    A constructor of the user's (`module:attribute`) is called like ours: the `InputShape` first, then the options as
    keywords, and its model may give its logits as `give_logits` takes them. Initial weights are a function of `seed`.

    Raises:
        ModelError: if the name is unknown, an option does not exist, or the model does not fit the data.
    """
    constructor = _constructor(model.kind)
    try:
        inspect.signature(constructor).bind(shape, **model.options)
    except TypeError as error:
        raise ModelError(f"model {model.kind!r} with options {model.options}: {error}") from error
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            network = constructor(shape, **model.options)
            if not isinstance(network, nn.Module):
                raise ModelError(f"model {model.kind!r} gives a {type(network).__name__}, not a torch.nn.Module")
            logits = network.eval()(probe(shape, 2))
            if is_plugin(model.kind):
                give_logits(network, shape, f"model {model.kind!r} ({type(network).__name__})")
                logits = network(probe(shape, 2))
    except ModelError:
        raise
    except Exception as error:  # a constructor may raise anything; whatever it is, these options do not fit
        raise ModelError(
            f"model {model.kind!r} with options {cut(str(model.options))} cannot be built: {reason(error)}"
        ) from error
    if tuple(logits.shape) != (2, shape.classes):
        raise ModelError(f"model {model.kind!r} gives {tuple(logits.shape)} for 2 inputs, not (2, {shape.classes})")
    return network


def probe(shape: InputShape, count: int) -> torch.Tensor:
    """`count` all-one inputs of the right shape and type."""
    kind = torch.long if shape.modality == "text" else torch.float32
    return torch.ones((count, *shape.dimensions), dtype=kind)


def _constructor(kind: str) -> Constructor:
    if is_plugin(kind):
        return load_plugin(kind)  # type: ignore[no-any-return]
    if kind not in CONSTRUCTORS:
        raise ModelError(f"no model is called {kind!r}; take one of {', '.join(CONSTRUCTORS)}, or module:attribute")
    return CONSTRUCTORS[kind]
