"""A student as a folder that others load, and in which nothing is code.

A Hugging Face model is saved as one (`AutoModelFor….from_pretrained`). Any other becomes `model.safetensors`, its
weights. `securekd.json` says how it was built, by a built-in name, which `load_student` reads. A folder may come from
anybody: it names no module that is imported without its reader's word, and holds no pickle.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter
from torch import nn

from securekd.errors import FolderError, ModelError, SecurekdError
from securekd.files import not_written, write_atomically, writing
from securekd.models.huggingface import Classifier, transformers
from securekd.models.public import give_public, public_names, public_of
from securekd.models.registry import build, probe
from securekd.models.shape import InputShape
from securekd.models.trial import reason
from securekd.plugins import is_plugin
from securekd.settings.models import Model

MOST_INPUTS = 2**26
"""Values of one input at most."""

MOST_PIXELS = 2**22
"""Likewise of an image, which convolutions copy many times over."""

FEW_OPTIONS = 32


class About(BaseModel):
    """`securekd.json`: how a student was built, and what its classes are called."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Model
    shape: dict[str, Any]
    classes: tuple[str, ...]


def save_model(network: nn.Module, model: Model, shape: InputShape, classes: tuple[str, ...], folder: Path) -> None:
    """Write the model to `folder`, which appears whole or not at all and replaces an older one.

    Raises:
        RunError: if it cannot be written.
    """
    from safetensors.torch import save

    with _draft_of(folder) as draft:
        network.eval()
        if isinstance(network, Classifier):
            inner = network.model
            inner.config.id2label = dict(enumerate(classes))  # type: ignore[union-attr]
            inner.config.label2id = {name: i for i, name in enumerate(classes)}  # type: ignore[union-attr]
            inner.save_pretrained(draft)  # type: ignore[operator]
        else:
            weights = {k: v.contiguous() for k, v in (network.state_dict() | public_of(network)).items()}
            write_atomically(draft / "model.safetensors", save(weights))
        plain = replace(shape, public_mean=(), public_deviation=1.0, pieces=())  # all three are among the weights
        about = {"model": model.model_dump(mode="json"), "shape": asdict(plain), "classes": classes}
        write_atomically(draft / "securekd.json", json.dumps(about, indent=1).encode())


@contextmanager
def _draft_of(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` at the end; a failure leaves nothing of it, nor of the disk's."""
    from safetensors import SafetensorError

    draft = folder.with_name(f".{folder.name}.draft")
    try:
        with writing(folder):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            yield draft
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(draft, folder)  # noqa: PTH105 (a folder, over nothing)
    except SafetensorError as error:
        raise not_written(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load_student(folder: Path, plugins: Collection[str] = ()) -> nn.Module:
    """The network that a run saved as its student, in inference mode, from a folder that may be anybody's.

    Args:
        folder: a run's `student/`.
        plugins: models of the user's own (`module:attribute`) that may be imported and called. The folder names one
            where the student is of such a kind, and without the reader's word here it is refused.

    Returns:
        From inputs as `securekd.data.Examples` holds them, (N, ...), to logits (N, classes).

    Raises:
        FolderError: if the folder holds no such model, or weights that are not those of the model that it names.
        ModelError: if the student is of a kind that `plugins` does not name.
    """
    about, shape = _about(folder)
    if is_plugin(about.model.kind) and about.model.kind not in plugins:
        raise ModelError(
            f"the student in {folder} is built by {about.model.kind!r}, code that its folder names: read that code, "
            f"and if you trust it, give plugins=[{about.model.kind!r}]"
        )
    if about.model.kind == "transformers":
        return transformers(shape, path=str(folder)).eval()
    weights = _weights(folder)
    if not is_plugin(about.model.kind):
        _refuse_other_weights(folder, about.model, shape, weights)
    network = build(about.model, shape, seed=0)
    lacking = sorted(public_names(network) - weights.keys())
    if lacking:
        raise _unfit(folder, f"it lacks {', '.join(lacking)}")
    public = {name: weights.pop(name) for name in public_names(network)}
    try:
        network.load_state_dict(weights)
        if public:
            give_public(network, {name: value.numpy() for name, value in public.items()})
            network(probe(shape, 2))
    except Exception as error:  # whatever tensors of other kinds and shapes make torch raise
        raise _unfit(folder, reason(error)) from error
    return network.eval()


load_model = load_student
"""What `load_student` was called first."""


def _about(folder: Path) -> tuple[About, InputShape]:
    try:
        about = About.model_validate_json((folder / "securekd.json").read_bytes())
        shape = TypeAdapter(InputShape).validate_python(
            about.shape | {"public_mean": (), "public_deviation": 1.0, "pieces": ()}
        )
    except (OSError, ValueError) as error:
        raise _unfit(folder, str(error).splitlines()[0]) from error
    inputs = 1
    for size in shape.dimensions:
        inputs *= max(size, 1)
    most = MOST_PIXELS if shape.modality == "image" else MOST_INPUTS
    if min(shape.dimensions, default=0) < 1 or inputs > most or shape.classes != len(about.classes):
        raise _unfit(folder, f"inputs of {shape.dimensions} and {shape.classes} classes")
    return about, shape


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise _unfit(folder, str(error).splitlines()[0]) from error


def _refuse_other_weights(folder: Path, model: Model, shape: InputShape, weights: dict[str, torch.Tensor]) -> None:
    """Build the model without memory for its weights, and see that they are those of the file: no more, no larger."""
    stored = sum(weight.numel() for weight in weights.values())
    sizes = [value for value in model.options.values() if isinstance(value, int)]
    if len(model.options) > FEW_OPTIONS or max([shape.vocabulary, *sizes]) > max(stored, 1):
        raise _unfit(folder, f"options larger than its {stored:,} weights")
    layers = model.options.get("layers", 0)
    if type(layers) is not int or layers > len(weights):
        raise _unfit(folder, f"more layers than its {len(weights)} tensors")
    try:
        with torch.device("meta"):
            expected = build(model, shape, seed=0)
    except SecurekdError as error:
        raise _unfit(folder, str(error)) from error
    public = public_names(expected)
    named = {name: tuple(weight.shape) for name, weight in weights.items() if name not in public}
    sizes_of = {name: tuple(weight.shape) for name, weight in expected.state_dict().items()}
    if named != sizes_of:
        raise _unfit(folder, f"its weights are not those of {model.kind!r} with these options")


def _unfit(folder: Path, why: str) -> FolderError:
    return FolderError(f"{folder} holds no model of securekd: {why[:300]}; give a run's student/ folder")
