"""Model folders against transformers' own means: classifiers of texts and images, and language models."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from securekd_attacks import ShapeMismatch
from securekd_attacks.audit import AuditSettings, audit
from securekd_attacks.targets import BadAnswer, FolderTarget, Records, TargetFailed, TargetUnusable, content_ids
from securekd_attacks.targets.huggingface import task_of
from tests.securekd.audit import leaky

torch = pytest.importorskip("torch")
TEXTS = ["a short one", "and one that is a good deal longer than the other one", "the third"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    leaky.save_classifier(TEXTS, np.array([0, 1, 2]), 1, folder)
    return folder


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    leaky.save_language_model(" ".join(TEXTS) * 3, [], 0, 3, folder)
    return folder


def test_a_text_classifier(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKY_FOLDER", str(classifier))
    target = FolderTarget.open(classifier)
    assert (target.task, target.longest) == ("text", 48)
    found = target.ask(TEXTS)
    np.testing.assert_allclose(found.log_probs, leaky.classifier_target(TEXTS), atol=1e-12)
    assert found.cut == 0
    assert target.ask(["word " * 100]).cut == 1


def test_long_texts_are_cut_as_their_tokenizer_cuts(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    shutil.copytree(classifier, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    ends = TemplateProcessing(single="[UNK] $A [UNK]", special_tokens=[("[UNK]", 1)])
    tokenizer.backend_tokenizer.post_processor = ends
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("LEAKY_FOLDER", str(tmp_path / "model"))
    texts = ["a short one", "word " * 60 + "and an end that is never read"]
    found = FolderTarget.open(tmp_path / "model").ask(texts)
    assert found.cut == 1
    np.testing.assert_allclose(found.log_probs, leaky.classifier_target(texts), atol=1e-12)


def test_a_model_that_does_not_run_is_a_failed_target(classifier: Path) -> None:
    target = FolderTarget.open(classifier)
    broken = replace(target, longest=None)  # positions beyond those that it has
    with pytest.raises(TargetFailed, match="the model in .* failed"):
        broken.ask(["word " * 100])


def test_a_language_model_token_by_token(language: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = FolderTarget.open(language)
    answers = target.ask(TEXTS)
    tokenizer, model = AutoTokenizer.from_pretrained(language), AutoModelForCausalLM.from_pretrained(language).eval()
    for i, text in enumerate(TEXTS):
        ids = tokenizer(text, return_tensors="pt", truncation=True)["input_ids"]
        with torch.inference_mode():
            out = model(input_ids=ids, labels=ids)
        p = torch.softmax(out.logits[0, :-1].double(), dim=1)
        mean = (p * p.log()).sum(dim=1)
        deviation = ((p * p.log() ** 2).sum(dim=1) - mean**2).sqrt()
        assert answers.token_log_probs is not None
        assert answers.token_means is not None
        assert answers.token_deviations is not None
        assert -answers.token_log_probs[i].mean() == pytest.approx(float(out.loss), abs=1e-5)
        np.testing.assert_allclose(answers.token_means[i], mean.numpy(), atol=1e-5)
        np.testing.assert_allclose(answers.token_deviations[i], deviation.numpy(), atol=1e-5)
    assert answers.cut == 1  # byte by byte, the second text has more than 48
    with pytest.raises(BadAnswer, match="too short"):
        target.ask(["fine enough", ""])


def test_a_whole_audit_with_neighbours(language: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sides = []
    for name in ("in", "out"):
        texts = [" ".join(f"{name}{w}" for w in rng.integers(0, 99, size=5)) for _ in range(12)]
        sides.append(Records(texts, content_ids(texts)))
    settings = AuditSettings(attacks=("neighbourhood", "min_k_plus_plus", "reference_text"), copies=2, canaries=True)
    result = audit(FolderTarget.open(language), *sides, settings, tmp_path / "answers")
    assert [each.attack for each in result.found] == list(settings.attacks[:2])
    assert [(x.attack, x.needs) for x in result.not_possible] == [("reference_text", "reference_token_log_probs")]
    assert result.exposure is not None
    assert result.exposure.candidates == 13


def test_an_image_classifier(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config.num_labels = 3
    ViTForImageClassification(config).eval().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    target = FolderTarget.open(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, size=(4, 8, 8, 3), dtype=np.uint8)
    found = target.ask(images).log_probs
    pixels = torch.from_numpy((images / 255.0 - 0.5) / 0.5).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = torch.log_softmax(target.model(pixel_values=pixels).logits.double(), dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert target.ask(images[..., 0]).log_probs is not None
    for other in (images.astype(float), images[0, 0], ["text"]):
        with pytest.raises(ShapeMismatch, match="a model of images"):
            target.ask(other)


def test_texts_are_not_asked_of_numbers(classifier: Path) -> None:
    with pytest.raises(ShapeMismatch, match="a model of texts"):
        FolderTarget.open(classifier).ask(np.zeros((2, 3)))


def test_pickled_weights_and_foreign_folders_are_refused(classifier: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((classifier / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(TargetUnusable, match="no weights"):
        FolderTarget.open(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(TargetUnusable, match="cannot load the text model"):
        FolderTarget.open(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    with pytest.raises(TargetUnusable, match="unknown kind of model"):
        task_of(tmp_path)
    with pytest.raises(TargetUnusable, match="no Hugging Face model folder"):
        FolderTarget.open(tmp_path / "none")
