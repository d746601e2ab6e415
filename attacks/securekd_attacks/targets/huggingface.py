"""A target on disk: a Hugging Face model folder with an image classifier, a text classifier or a causal language model.

Nothing is fetched, no code of the folder is run, and weights are read from safetensors alone, since a pickle may run
anything. torch and transformers are imported when a folder is opened.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.errors import AttackInputError, ShapeMismatch
from securekd_attacks.targets import reading
from securekd_attacks.targets.errors import BadAnswer, TargetFailed, TargetUnusable
from securekd_attacks.targets.records import Answers, Inputs

Task = Literal["text", "image", "language"]

_TASKS: dict[str, Task] = {
    "ForSequenceClassification": "text",
    "ForImageClassification": "image",
    "ForCausalLM": "language",
    "LMHeadModel": "language",
}


@dataclass(frozen=True, eq=False)
class FolderTarget:
    """A model folder as a target; `open` makes it.

    Attributes:
        name: the folder's name.
        task: what the model does.
        model: in inference mode, on the CPU.
        prepare: its tokenizer, or its image processor.
        longest: tokens that it reads at most; None where it has no limit.
    """

    name: str
    task: Task
    model: Any
    prepare: Any
    longest: int | None

    @classmethod
    def open(cls, folder: Path) -> "FolderTarget":
        """Load a folder.

        Raises:
            TargetUnusable: no such folder, one without weights in safetensors, tokenizer or image processor, one whose
                model does something else, or torch and transformers are not installed.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            import transformers
        except ImportError as error:
            raise TargetUnusable(
                "a model folder needs transformers", value=error, remedy="pip install 'securekd[train]'"
            ) from error
        task = task_of(folder)
        refuse_code(folder)
        if not any(folder.glob("*.safetensors")):
            raise TargetUnusable("no weights", value=str(folder), remedy="save them as safetensors")
        auto = {
            "text": transformers.AutoModelForSequenceClassification,
            "image": transformers.AutoModelForImageClassification,
            "language": transformers.AutoModelForCausalLM,
        }[task]
        reader = transformers.AutoImageProcessor if task == "image" else transformers.AutoTokenizer
        try:
            with _without_progress_bars():
                model = auto.from_pretrained(
                    str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
                ).eval()
                prepare = reader.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever a broken or foreign folder makes transformers raise
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise TargetUnusable(
                f"cannot load the {task} model in {folder}",
                value=said,
                remedy="save its tokenizer or processor too",
            ) from error
        return cls(folder.name, task, model, prepare, None if task == "image" else _longest(model, prepare))

    def ask(self, inputs: Inputs) -> Answers:
        """Run the model on a batch.

        Raises:
            ShapeMismatch: inputs of another kind than the model's.
            BadAnswer: NaN or +∞ among its logits, or a text without two tokens for a language model.
            TargetFailed: the model does not run on them.
        """
        try:
            return self._run(inputs)
        except (AttackInputError, TargetFailed):
            raise
        except Exception as error:  # whatever a model that does not fit its tokenizer raises
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise TargetFailed(f"the model in {self.name} failed", value=said, remedy="mend it, resume") from error

    def _run(self, inputs: Inputs) -> Answers:
        import torch

        with torch.inference_mode():
            if self.task == "image":
                pixels = self.prepare(images=list(_images(inputs)), return_tensors="pt")["pixel_values"]
                return Answers(log_probs=reading.of_logits(self.model(pixel_values=pixels).logits, len(inputs)))
            rows, cut = self._token_ids(inputs)
            if self.task == "text":
                return Answers(log_probs=reading.of_logits(self._logits(rows).double(), len(rows)), cut=cut)
            return _token_answers(self._logits(rows), rows, cut)

    def _token_ids(self, inputs: Inputs) -> tuple[list[list[int]], int]:
        """Ids of each text, cut as the tokenizer cuts (what it puts at the end stays), and how many were cut."""
        if isinstance(inputs, np.ndarray) or not isinstance(inputs[0], str):
            raise ShapeMismatch("a model of texts", value="other records", remedy="give records with a text")
        texts = [str(text) for text in inputs]
        rows: list[list[int]] = self.prepare(texts, truncation=False, verbose=False)["input_ids"]
        cut = sum(1 for row in rows if self.longest is not None and len(row) > self.longest)
        if cut:
            rows = self.prepare(texts, truncation=True, max_length=self.longest)["input_ids"]
        fewest = 2 if self.task == "language" else 1
        short = [i for i, row in enumerate(rows) if len(row) < fewest]
        if short:
            raise BadAnswer(
                "a text is too short for the model",
                value=repr(texts[short[0]])[:40],
                remedy="leave it out",
                row=short[0],
            )
        return rows, cut

    def _logits(self, rows: list[list[int]]) -> Any:
        import torch

        width, padding = max(map(len, rows)), self.prepare.pad_token_id or 0
        ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return self.model(input_ids=ids, attention_mask=mask).logits


def task_of(folder: Path) -> Task:
    """What the model in a folder does, from its `config.json`.

    Raises:
        TargetUnusable: there is none, or it does something else.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = [str(name) for name in config["architectures"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TargetUnusable("no Hugging Face model folder", value=str(folder), remedy="save_pretrained it") from error
    found = {task for name in names for ending, task in _TASKS.items() if name.endswith(ending)}
    if len(found) != 1:
        raise TargetUnusable("unknown kind of model", value=names, remedy="give a classifier or a causal one")
    return found.pop()


def refuse_code(folder: Path) -> None:
    """Refuse what would have a loader run code that is not transformers' own: the folder's, the Hub's, or a pickle's.

    `trust_remote_code=False` and `use_safetensors=True` go with it, wherever a folder is loaded.

    Raises:
        TargetUnusable: `config.json` names code, kernels from the Hub or a quantizer, or adapters lie beside it.
    """
    if (folder / "adapter_config.json").exists():
        raise TargetUnusable("adapters in a model folder", value=str(folder), remedy="merge them into its weights")
    try:
        named = keys_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise TargetUnusable("no Hugging Face model folder", value=str(folder), remedy="save_pretrained it") from error
    refuse_keys(named, f"{folder / 'config.json'} names code")


def refuse_keys(named: Iterable[tuple[str, Any]], what: str) -> None:
    """Refuse the keys of a configuration, with their values, that would have a loader run other code.

    Raises:
        TargetUnusable: `what`, with the first of them.
    """
    for key, value in named:
        kernel = key in ("attn_implementation", "_attn_implementation") and "/" in json.dumps(value)
        if kernel or key in ("auto_map", "quantization_config", "custom_pipelines"):
            raise TargetUnusable(what, value=f"{key}: {json.dumps(value)[:60]}", remedy="take that out")


def keys_of(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys of nested JSON, with their values."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_of(inner)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """An audit has a bar of its own."""
    from transformers import utils

    logging: Any = utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _longest(model: Any, tokenizer: Any) -> int | None:
    limits = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    # A tokenizer without a limit says 1e30.
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 1e9]
    if getattr(model.config, "model_type", "") in ("roberta", "xlm-roberta", "camembert") and known:
        known.append(int(model.config.max_position_embeddings) - 2)  # positions begin after the padding index
    return min(known, default=None)


def _images(inputs: Inputs) -> NDArray[np.generic]:
    if not isinstance(inputs, np.ndarray) or inputs.ndim not in (3, 4) or inputs.dtype != np.uint8:
        found = f"{inputs.dtype}, shape {inputs.shape}" if isinstance(inputs, np.ndarray) else "other records"
        raise ShapeMismatch("a model of images", value=found, remedy="give uint8 (n, height, width, channels)")
    return inputs if inputs.ndim == 4 else np.repeat(inputs[..., None], 3, axis=3)


def _token_answers(logits: Any, rows: list[list[int]], cut: int) -> Answers:
    """Each token's log-probability given those before it, and the moments of the log-probability at its place."""
    from scipy import special

    own, means, deviations = [], [], []
    for scores, row in zip(logits.double().numpy(), rows, strict=True):
        log_probs = special.log_softmax(scores[: len(row) - 1], axis=1)
        chance = np.exp(log_probs)
        finite = np.maximum(log_probs, -1e4)  # 0 · log 0 is 0
        mean = (chance * finite).sum(axis=1)
        own.append(reading.of_tokens(log_probs[np.arange(len(row) - 1), row[1:]]))
        means.append(mean)
        deviations.append(np.sqrt(np.maximum(0.0, (chance * finite**2).sum(axis=1) - mean**2)))
    return Answers(token_log_probs=tuple(own), token_means=tuple(means), token_deviations=tuple(deviations), cut=cut)
