"""A trained model as a folder that others load.

A Hugging Face model is saved as one (`AutoModelFor….from_pretrained`). Any other becomes `model.pt2`, a program that
plain torch loads without this toolkit (`torch.export.load(path).module()`), and `model.safetensors` with its weights.
`securekd.json` says how it was built, which `load_model` reads. A model of the user's that torch cannot export has no
`model.pt2`.
"""

import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from securekd.errors import FolderError
from securekd.experiment import Model
from securekd.files import not_written, write_atomically, writing
from securekd.models.huggingface import Classifier, transformers
from securekd.models.registry import build, probe
from securekd.models.shape import InputShape


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
            weights = {k: v.contiguous() for k, v in network.state_dict().items()}
            write_atomically(draft / "model.safetensors", save(weights))
            _export(network, shape, draft / "model.pt2")
        plain = replace(shape, public_mean=(), public_deviation=1.0)  # these two are among the weights
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


def _export(network: nn.Module, shape: InputShape, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    try:
        program = torch.export.export(network, (probe(shape, 2),), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export raises many kinds
        # A user's own model may hold what cannot be exported; its weights are saved, and a finished run is not lost.
        warnings.warn(f"no model.pt2 for {type(network).__name__}: {str(error).splitlines()[0]}", stacklevel=2)
        return
    whole = io.BytesIO()  # on a full disk torch would end the process
    torch.export.save(program, whole)
    write_atomically(path, whole.getvalue())


def load_model(folder: Path) -> nn.Module:
    """The network that `save_model` wrote, in inference mode.

    Raises:
        FolderError: if the folder holds no such model.
    """
    from safetensors.torch import load_file

    try:
        about = json.loads((folder / "securekd.json").read_bytes())
        model = Model(**about["model"])
        shape = InputShape(**about["shape"] | {"dimensions": tuple(about["shape"]["dimensions"])})
        if model.kind == "transformers":
            return transformers(shape, path=str(folder)).eval()
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{folder} holds no model of securekd: {error}") from error
    network = build(model, shape, seed=0)
    network.load_state_dict(weights)
    return network.eval()
