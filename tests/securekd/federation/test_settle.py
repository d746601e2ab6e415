"""An agreement of somebody else's making is settled anew, and believed only where it comes out the same."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from securekd.errors import AgreementError, FolderError
from securekd.federation.agreement import Agreement
from securekd.federation.settle import read_agreement
from securekd.laboratory.plan import make_plan
from tests.securekd.conftest import small

MODEL = {"kind": "mlp", "options": {"hidden": 16}}
KINDS: dict[str, dict[str, Any]] = {
    "distil": {"privacy": {"client_epsilon": 40.0}},
    "pate": {"strategy": "pate", "release": {"scores": "votes"}, "pate": {"threshold": 0.3}},
    "fedavg": {"strategy": "fedavg", "clients": {"models": [MODEL]}, "student": {"model": MODEL}},
    "without ε": {"privacy": {"dp_sgd": False}, "aggregation": "plain"},
}


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    """What a small federation with a target for whole clients agrees on."""
    return make_plan(small(privacy={"client_epsilon": 40.0})).agreement


def changed(agreement: Agreement, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The document with something changed in it, in the one encoding."""
    tree = json.loads(agreement.encoded)
    change(tree)
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_settings_ask_for_is_believed(kind: str) -> None:
    agreement = make_plan(small(**KINDS[kind])).agreement
    assert read_agreement(agreement.encoded) == agreement


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["asked"][0].update(sigma=t["asked"][0]["sigma"] / 2), "states asked"),
        (lambda t: t["asked"][0]["exposure"]["unknown_shares"].update(server=50), "states asked"),
        (lambda t: t["asked"][0]["bounds"].update(l2=1e-3), "states asked"),
        (lambda t: t["asked"][0].update(exchanges=100), "states asked"),
        (lambda t: t["dp"].update(noise_multiplier=0.05), "states dp"),
        (lambda t: t["dp"].update(steps=t["dp"]["steps"] + 1), "states dp"),
        (lambda t: t.update(dp=None), "states dp"),
        (lambda t: t.update(threshold=2), "states threshold = 2"),
        (lambda t: t.update(threshold=100), "states threshold = 100"),
        (lambda t: t.update(trainings=5), "states trainings = 5"),
        (lambda t: t.update(members=[]), "members"),
        (lambda t: t["members"].append(t["members"][0]), "two members have one name"),
        (lambda t: t.update(members=t["members"][:2]), "nobody could keep this agreement"),
        (lambda t: t["settings"]["privacy"].update(epsilon=1e-9), "nobody could keep this agreement"),
        (lambda t: t["settings"]["privacy"].update(delta=0.9), "nobody could keep this agreement: privacy.delta"),
        (lambda t: t["members"][0].update(examples=10**7), "nobody could keep this agreement: privacy.delta"),
        (lambda t: t["members"][0]["model"].update(kind="cnn", options={"width": "x"}), "nobody could keep this"),
        (lambda t: t["settings"]["training"].update(clip=1e-44), "training.clip"),
        (lambda t: t["settings"]["release"].update(temperature=1e163), "release.temperature"),
        (lambda t: t["settings"]["release"].update(rows=1000), "nobody could keep this agreement: release.rows"),
        (lambda t: t["settings"].update(strategy="gossip"), "nobody could keep this agreement: no strategy is called"),
    ],
)
def test_what_they_do_not_ask_for_is_refused(
    change: Callable[[dict[str, Any]], object], said: str, agreement: Agreement
) -> None:
    with pytest.raises(AgreementError, match=said) as refused:
        read_agreement(changed(agreement, change))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["settings"].update(strategy="trap:run"),
        lambda t: t["settings"].update(aggregation="trap:run"),
        lambda t: t["settings"]["release"].update(mechanism="trap:run"),
        lambda t: t["settings"]["student"]["model"].update(kind="trap:run"),
        lambda t: t["members"][1]["model"].update(kind="trap:run"),
    ],
)
def test_code_that_it_names_is_not_imported_unless_it_is_named(
    change: Callable[[dict[str, Any]], object], agreement: Agreement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FolderError, match=r"this agreement names code, 'trap:run'.*plugins="):
        read_agreement(changed(agreement, change))
    assert "trap" not in sys.modules


def test_public_labels_are_agreed_on() -> None:
    with_labels, without = (
        make_plan(small(data={"transfer_labels": labels})).agreement.labels_sha256 for labels in (True, False)
    )
    assert without is None
    assert with_labels is not None


@pytest.mark.parametrize(
    "options",
    [
        {"auto_map": {"AutoModelForImageClassification": "code.Model"}, "name_or_path": "/nowhere"},
        {"attn_implementation": "owner/kernel"},
        {"quantization_config": {"quant_method": "own"}},
    ],
)
def test_options_of_a_model_name_no_code_either(options: dict[str, Any], agreement: Agreement) -> None:
    vit = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = {"kind": "transformers", "options": vit | options, "learning_rate": None, "loss": "cross_entropy"}
    with pytest.raises(AgreementError, match="options of a transformers model name code"):
        read_agreement(changed(agreement, lambda t: t["members"][0].update(model=model)))
