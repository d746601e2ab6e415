"""Hugging Face classifiers, built from a configuration (random weights) or from a local folder.

What Opacus needs of them is arranged here: position ids spelt out for each example, and a plain `inputs -> logits`
signature. Architectures whose per-example gradients are known to be wrong are refused by name.
"""

import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from securekd.errors import ModelError
from securekd.models.sequence import as_sequence
from securekd.models.shape import InputShape
from securekd_attacks import AttackInputError
from securekd_attacks.targets.huggingface import keys_of, refuse_code, refuse_keys

REFUSED = {
    "bart": "its position embeddings have no per-example gradients",
    "t5": "its relative position bias gives wrong per-example gradients without an error",
    "mt5": "its relative position bias gives wrong per-example gradients without an error",
}


class Classifier(nn.Module):
    """A Hugging Face model behind `inputs -> logits`; with `frozen`, only what comes after its encoder is trained."""

    def __init__(self, model: nn.Module, shape: InputShape, *, frozen: bool = False) -> None:
        super().__init__()
        self.model = model
        self.modality = shape.modality
        self._shape = shape
        self._frozen = frozen
        if frozen:
            _encoder(model).requires_grad_(False)
        self._spell_positions = "position_ids" in inspect.signature(model.forward).parameters and not any(
            # RoBERTa and its kin number positions themselves, for each example, from their padding index on.
            name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
            for name, module in model.named_modules()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] or token ids (N, L) to logits (N, classes)."""
        if self.modality == "image":
            return self.model(pixel_values=2.0 * inputs - 1.0).logits  # type: ignore[no-any-return]
        extra = {}
        if self._spell_positions:
            positions = torch.arange(inputs.shape[1], device=inputs.device)
            extra["position_ids"] = positions.expand(inputs.shape).contiguous()
        return self.model(input_ids=inputs, attention_mask=(inputs != 0).long(), **extra).logits  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> "Classifier":
        """Set the mode; a frozen encoder, and all else without a trainable parameter, stays in inference mode."""
        super().train(mode)
        if self._frozen:
            for part in self.modules():
                if not any(p.requires_grad for p in part.parameters()):
                    part.training = False
        return self

    def as_sequence(self) -> nn.Sequential | None:
        """The frozen encoder with its pooling, and the head's layers; None unless it is frozen, and just that."""
        device = next(self.parameters()).device
        return as_sequence(self, self._trial_inputs().to(device)) if self._frozen else None

    def _trial_inputs(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        size = (8, *self._shape.dimensions)
        if self.modality == "image":
            return torch.rand(size, generator=generator)
        return torch.randint(1, self._shape.vocabulary, size, generator=generator)


def transformers(
    shape: InputShape,
    *,
    path: str | None = None,
    model_type: str | None = None,
    frozen: bool = False,
    **options: Any,
) -> nn.Module:
    """A classifier from a local folder (`path`) or from a configuration (`model_type` and its arguments).

    With `frozen`, only the classification head is trained, in inference mode's features of the encoder: without its
    dropout, or any other.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

    if (path is None) == (model_type is None):
        raise ModelError("a transformers model takes either path (a local folder) or model_type; give one of them")
    if shape.modality == "tabular":
        raise ModelError(
            "a transformers classifier sees images or texts, and the data is tabular; take logistic or mlp"
        )
    auto = AutoModelForImageClassification if shape.modality == "image" else AutoModelForSequenceClassification
    if path is not None:
        if not Path(path).is_dir():
            raise ModelError(f"no model folder at {path}; give a folder that save_pretrained wrote")
        try:
            refuse_code(Path(path))
            config = AutoConfig.from_pretrained(
                path, num_labels=shape.classes, local_files_only=True, trust_remote_code=False, **options
            )
        except (ValueError, OSError, AttackInputError) as error:
            raise ModelError(f"no model in the folder {path}: {str(error).splitlines()[0]}") from error
    else:
        _refuse_options(options)
        try:
            config = AutoConfig.for_model(str(model_type), **_fitting(shape), num_labels=shape.classes, **options)
        except ValueError as error:
            raise ModelError(
                f"transformers knows no model_type {model_type!r}; see its list of configurations"
            ) from error
    _refuse(config)
    try:
        model = (
            auto.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
            if path is None
            else auto.from_pretrained(
                path,
                config=config,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        )
    except (ValueError, OSError) as error:
        raise ModelError(
            f"cannot build {config.model_type!r} for {shape.modality} data: {str(error).splitlines()[0]}"
        ) from error
    return Classifier(model, shape, frozen=frozen)


def _encoder(model: nn.Module) -> nn.Module:
    encoder = getattr(model, "base_model", model)
    if encoder is model or not any(p.requires_grad for p in _outside(model, encoder)):
        raise ModelError(f"{type(model).__name__} has no head apart from its encoder, so it cannot be frozen")
    return encoder


def _outside(model: nn.Module, encoder: nn.Module) -> list[nn.Parameter]:
    inside = set(encoder.parameters())
    return [p for p in model.parameters() if p not in inside]


def _fitting(shape: InputShape) -> dict[str, Any]:
    if shape.modality == "image":
        channels, height, width = shape.image()
        return {"image_size": height if height == width else (height, width), "num_channels": channels}
    return {"vocab_size": shape.vocabulary, "max_position_embeddings": shape.dimensions[0] + 2, "pad_token_id": 0}


def _refuse_options(options: dict[str, Any]) -> None:
    """Refuse options by which a configuration would name code, like a folder's (they may come from anybody)."""
    try:
        refuse_keys(keys_of(options), "options of a transformers model name code")
    except AttackInputError as error:
        raise ModelError(str(error)) from error


def _refuse(config: Any) -> None:
    if config.model_type in REFUSED:
        raise ModelError(
            f"model_type {config.model_type!r} is refused: {REFUSED[config.model_type]}; take vit, bert or roberta"
        )
