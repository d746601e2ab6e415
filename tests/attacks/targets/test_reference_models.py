"""References of an audit: model folders that say whom they hold, a store of shadows, and what must be refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from securekd_attacks import BadLabels, BadSetting, ShadowDesign, ShapeMismatch, SignalStore, scaled_logit
from securekd_attacks.targets import FolderTarget, Records, TargetUnusable
from securekd_attacks.targets.answers import AnswerStore
from securekd_attacks.targets.reference_models import from_models, from_store
from tests.securekd.audit import leaky

TEXTS = [f"text number {i} of a few" for i in range(6)]
RECORDS = Records(TEXTS, tuple(f"r{i}" for i in range(6)), np.array([0, 1, 2, 3, 0, 1]))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("models")
    for name, rows in (("a", [0, 1, 2]), ("b", [2, 3, 4])):
        leaky.save_classifier([TEXTS[i] for i in rows], np.array([0, 1, 2]), 2, folder / name)
        (folder / name / "members.txt").write_text("".join(f"r{i}\n" for i in rows))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore.open(tmp_path / "answers", {"target": "none"})


def test_model_folders_that_name_their_members(models: Path, store: AnswerStore) -> None:
    calls: list[tuple[str, int, int]] = []
    found = from_models(models, RECORDS, store, batch=4, seed=0, progress=lambda *args: calls.append(args))
    assert found.inclusion is not None
    np.testing.assert_array_equal(found.inclusion, [[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0]])
    for row, name in enumerate("ab"):
        answers = FolderTarget.open(models / name).ask(TEXTS).log_probs
        assert answers is not None
        np.testing.assert_allclose(
            np.asarray(found.signals)[row], scaled_logit(answers, np.asarray(RECORDS.labels)), atol=1e-5
        )
    assert calls == [("reference-a", 1, 2), ("reference-a", 2, 2), ("reference-b", 1, 2), ("reference-b", 2, 2)]
    assert (store.folder / "reference-b" / "000001.npz").exists()


def test_inclusion_is_known_of_all_references_or_of_none(models: Path, store: AnswerStore, tmp_path: Path) -> None:
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    with pytest.raises(ShapeMismatch, match="called disjoint"):
        from_models(copy, RECORDS, store, batch=8, seed=0, disjoint=True)
    (copy / "b" / "members.txt").unlink()
    with pytest.raises(ShapeMismatch, match="only some references"):
        from_models(copy, RECORDS, store, batch=8, seed=0)
    (copy / "a" / "members.txt").unlink()
    assert from_models(copy, RECORDS, store, batch=8, seed=0).inclusion is None
    disjoint = from_models(copy, RECORDS, store, batch=8, seed=0, disjoint=True).inclusion
    assert disjoint is not None
    assert not disjoint.any()


def test_what_cannot_be_a_reference(models: Path, store: AnswerStore, tmp_path: Path) -> None:
    with pytest.raises(TargetUnusable, match="no model folder"):
        from_models(tmp_path, RECORDS, store, batch=8, seed=0)
    with pytest.raises(BadLabels, match="no labels"):
        from_models(models, Records(TEXTS, RECORDS.ids), store, batch=8, seed=0)
    for name in ("x", "y"):
        leaky.save_language_model(" ".join(TEXTS) * 3, [], 0, 1, tmp_path / "lm" / name)
    with pytest.raises(ShapeMismatch, match="several reference language models"):
        from_models(tmp_path / "lm", RECORDS, store, batch=8, seed=0)
    assert from_models(tmp_path / "lm" / "x", RECORDS, store, batch=8, seed=0).token_log_probs is not None


def test_a_store_of_shadows(tmp_path: Path) -> None:
    design = ShadowDesign(records=6, references=3, seed=0)
    store = SignalStore.open(tmp_path / "store", design)
    for row in range(3):
        store.write(row, np.arange(6.0) + row)
    found = from_store(tmp_path / "store", RECORDS)
    np.testing.assert_array_equal(np.asarray(found.signals)[1], np.arange(6.0) + 1)
    np.testing.assert_array_equal(found.inclusion, design.inclusion())
    with pytest.raises(ShapeMismatch, match="6, the audit has 2"):
        from_store(tmp_path / "store", Records(TEXTS[:2], ("r0", "r1")))
    SignalStore.open(tmp_path / "loss", ShadowDesign(records=6, references=1, seed=0, signal="loss"))
    with pytest.raises(BadSetting, match="other signals"):
        from_store(tmp_path / "loss", RECORDS)
