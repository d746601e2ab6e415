"""The contract of `result.json`: its published schema, and files that are refused."""

import json
from pathlib import Path

import pytest

from securekd.errors import FolderError
from securekd.records.record import Result, read_result

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "result.schema.json"

CONTRACT = {
    "experiment": {},
    "environment": {"versions", "platform", "seed"},
    "rounds": {},
    "utility": {"student", "local_mean", "local_best", "centralized", "centralized_nonprivate"},
    "privacy": {"guarantees"},
    "leakage": {},
    "communication": {
        "upload_bytes_per_client", "download_bytes_per_client", "by_phase", "rounds", "fedavg_bytes_per_client",
    },
    "compute": {"wall_s", "by_phase", "peak_rss_bytes"},
}  # fmt: skip
ITEMS = {
    "GuaranteeRecord": {"view", "unit", "neighbours", "epsilon", "delta", "events", "why"},
    "Leakage": {
        "point", "attack", "auc", "auc_ci", "tpr_at_fpr", "epsilon_lower", "confidence", "members", "nonmembers",
    },
    "Rate": {"value", "low", "high", "resolved"},
    "Utility": {"accuracy", "precision", "recall", "f1", "examples"},
}  # fmt: skip


def test_the_published_schema_is_the_models_own() -> None:
    # To renew it, write what schema_text() gives to the file.
    from securekd.records.record import schema_text

    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()


def test_every_key_of_the_contract_is_there() -> None:
    schema = Result.model_json_schema(by_alias=True)
    for key, inner in CONTRACT.items():
        assert key in schema["required"]
        if inner:
            name = schema["properties"][key]["$ref"].rsplit("/", 1)[1]
            assert inner <= set(schema["$defs"][name]["properties"])
    for name, keys in ITEMS.items():
        assert keys <= set(schema["$defs"][name]["properties"])


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", json.dumps({"schema": "securekd.result/2"}).encode()])
def test_a_file_that_is_no_record_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"is not a securekd\.result/1 record"):
        read_result(tmp_path)


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no finished run"):
        read_result(tmp_path)
