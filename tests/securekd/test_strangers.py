"""What comes in a folder is data: a stranger's folder runs nothing, whichever public function reads it."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import securekd
from securekd import load_student, resume, run
from securekd.audit.auditing import AuditRequest, audit_deployment
from securekd.cli.command import cli
from securekd.data import load_federated
from securekd.errors import FolderError, ModelError, SecurekdError
from securekd.files import write_atomically
from securekd.models.folder import save_model
from securekd.models.registry import build
from securekd.models.shape import InputShape
from securekd.records.account import account
from securekd.records.audit_record import read_audit
from securekd.records.record import read_result
from securekd.report import write_audit_report, write_report
from securekd.settings.config import load_experiment, to_toml
from securekd.settings.data import Data
from securekd.settings.models import Model
from tests.securekd.conftest import small

SHAPE = InputShape("tabular", (6,), 3)
CLASSES = ("a", "b", "c")
TRAP = "tests.securekd.test_strangers:trap"
"""Code of a stranger's, importable as everything is that lies on the path; it leaves a file behind."""

MARK = Path(os.environ.get("TMPDIR", "/tmp")) / f"securekd-trap-{os.getpid()}"


def trap(*_: Any, **__: Any) -> Any:
    MARK.write_text("ran")
    raise RuntimeError("the trap ran")


@pytest.fixture(autouse=True)
def _nothing_ran() -> Any:
    MARK.unlink(missing_ok=True)
    yield
    ran = MARK.exists()
    MARK.unlink(missing_ok=True)
    assert not ran


def student(folder: Path, kind: str = "mlp", **options: Any) -> Path:
    """A folder as a run writes it."""
    model = Model(kind=kind, options=options)
    save_model(build(model, SHAPE, 0), model, SHAPE, CLASSES, folder)
    return folder


def rewritten(folder: Path, **changes: Any) -> Path:
    about = json.loads((folder / "securekd.json").read_text())
    for path, value in changes.items():
        table, key = path.split("__")
        about[table][key] = value
    (folder / "securekd.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("kind", [TRAP, "pydoc:pipepager", "os:system", "builtins:exec"])
def test_a_student_of_a_kind_that_its_folder_names_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    folder = rewritten(student(tmp_path / "student"), model__kind=kind, model__options={"cmd": f"touch {MARK}"})
    for trusted in ((), ("tests.securekd.models.test_logits:giver",)):
        with pytest.raises(ModelError, match=f"built by '{kind}', code that its folder names"):
            load_student(folder, trusted)


def test_a_student_of_ones_own_kind_is_loaded_with_ones_own_word(tmp_path: Path) -> None:
    kind = "tests.securekd.test_strangers:own"
    folder, x = student(tmp_path / "student", kind, width=5), torch.rand(4, 6)
    expected = build(Model(kind=kind, options={"width": 5}), SHAPE, 0).eval()
    with torch.no_grad():
        assert torch.equal(load_student(folder, [kind])(x), expected(x))


def own(shape: InputShape, *, width: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(*shape.dimensions, width), torch.nn.Linear(width, shape.classes))


@pytest.mark.parametrize(
    "changes",
    [
        {"model__options": {"hidden": 10**12}},
        {"model__options": {"hidden": 400, "layers": 10**9}},
        {"model__options": {"layers": 3}},
        {"model__options": {"hidden": "64"}},
        {"model__options": {"path": "/"}},
        {"model__kind": "cnn"},
        {"model__kind": "hog"},
        {"model__kind": "nothing"},
        {"shape__dimensions": [10**9]},
        {"shape__dimensions": [-6]},
        {"shape__dimensions": []},
        {"shape__dimensions": [7]},
        {"shape__classes": 4},
        {"shape__modality": "text"},
        {"shape__vocabulary": 10**12, "shape__modality": "text"},
        {"shape__public_mean": [0.0] * 6, "shape__classes": -3},
    ],
)
def test_a_student_that_is_not_what_its_folder_says_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = rewritten(student(tmp_path / "student"), **changes)
    with pytest.raises(SecurekdError) as caught:
        load_student(folder)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"model": 1}', b"\x80\x04N."])
@pytest.mark.parametrize("name", ["securekd.json", "model.safetensors"])
def test_damaged_students_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = student(tmp_path / "student")
    (folder / name).write_bytes(content)
    with pytest.raises(FolderError, match="holds no model of securekd"):
        load_student(folder)


def hugging_face(folder: Path, pickled: bool = False, **config: Any) -> Path:
    """A tiny BERT classifier; `config` is put into its config.json."""
    from transformers import BertConfig, BertForSequenceClassification

    small_bert = BertConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    network = BertForSequenceClassification(small_bert)
    network.save_pretrained(folder)
    if pickled:
        torch.save(network.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    about = {
        "model": {"kind": "transformers", "options": {"path": str(folder)}},
        "shape": {"modality": "text", "dimensions": [12], "classes": 3, "vocabulary": 300},
        "classes": CLASSES,
    }
    (folder / "securekd.json").write_text(json.dumps(about))
    (folder / "modeling_trap.py").write_text(f"import pathlib\npathlib.Path({str(MARK)!r}).write_text('ran')\n")
    return folder


FOREIGN: list[dict[str, Any]] = [
    {"pickled": True},
    {"model_type": "trap", "auto_map": {"AutoConfig": "modeling_trap.Trap", "AutoModel": "modeling_trap.Trap"}},
    {"auto_map": {"AutoModelForSequenceClassification": "modeling_trap.Trap"}},
    {"attn_implementation": "stranger/kernel"},
    {"text_config": {"attn_implementation": "stranger/kernel"}},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda f: next(iter(f)))
def test_hugging_face_folders_run_nothing(
    tmp_path: Path, foreign: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a student, as a model of a run, as an audit's target, and as its reference."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # nobody is asked, and nobody says yes
    folder = hugging_face(tmp_path / "bert", **foreign)
    with pytest.raises(SecurekdError):
        load_student(folder)
    with pytest.raises(SecurekdError):
        build(Model(kind="transformers", options={"path": str(folder)}), InputShape("text", (12,), 3, 300), 0)
    for name in ("in", "out"):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{name} {i}", "label": 0}}\n' for i in range(4)))
    asked = AuditRequest(str(folder), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(SecurekdError):
        audit_deployment(asked, tmp_path / "audit")


def test_a_hugging_face_student_without_code_is_loaded(tmp_path: Path) -> None:
    assert load_student(hugging_face(tmp_path / "bert"))(torch.ones(2, 12, dtype=torch.int64)).shape == (2, 3)


def test_adapters_beside_a_model_are_refused(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "bert")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "stranger/model"}')
    with pytest.raises(ModelError, match="adapters in a model folder"):
        load_student(folder)


def test_a_tokenizer_folder_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "modeling_trap.py").write_text(f"import pathlib\npathlib.Path({str(MARK)!r}).write_text('ran')\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["modeling_trap.T", None]}})
    )
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"sentence {i},{'ab'[i % 2]}\n" for i in range(60)))
    with pytest.raises(SecurekdError):
        load_federated(Data(source=str(tmp_path / "t.csv"), transfer=20, test=10, tokenizer=str(folder)), 2, 0)


NAMED: list[dict[str, Any]] = [
    {"data": {"source": TRAP}},
    {"data": {"test_source": TRAP}},
    {"clients": {"models": [TRAP]}},
    {"student": {"model": TRAP}},
    {"centralized": {"model": TRAP}},
    {"strategy": TRAP},
    {"aggregation": TRAP},
    {"release": {"mechanism": TRAP}},
    {"audit": {"attacks": [TRAP]}},
]


@pytest.mark.parametrize("named", NAMED, ids=lambda n: str(next(iter(n.items()))))
def test_a_run_in_a_folder_that_names_code_is_not_resumed_without_a_word(tmp_path: Path, named: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    experiment = small(**named)
    assert experiment.plugins() == {TRAP}
    (folder / "config.toml").write_text(to_toml(experiment))
    with pytest.raises(FolderError, match="names code"):
        resume(folder)
    refused = CliRunner().invoke(cli, ["run", "--resume", str(folder), "--plugin", "another:part"])
    assert isinstance(refused.exception, FolderError)
    assert f"--plugin {TRAP}" in str(refused.exception)


def test_a_sweep_in_a_folder_that_names_code_is_not_resumed_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(f'[axes]\n"release.mechanism" = ["{TRAP}"]\n')
    from securekd.sweep.folder import SweepFolder
    from securekd.sweep.settings import load_sweep

    SweepFolder(tmp_path / "sweep").create(*load_sweep(tmp_path / "sweep.toml"))
    refused = CliRunner().invoke(cli, ["sweep", "--resume", str(tmp_path / "sweep")])
    assert isinstance(refused.exception, FolderError)
    assert f"--plugin {TRAP}" in str(refused.exception)


def test_ones_own_code_goes_on_with_ones_own_word(tmp_path: Path) -> None:
    kind = "tests.securekd.test_strangers:flat"
    folder = tmp_path / "run"
    folder.mkdir()
    write_atomically(folder / "config.toml", to_toml(small(rounds=1, student={"model": kind, "epochs": 1})).encode())
    done = CliRunner().invoke(cli, ["run", "--resume", str(folder), "--plugin", kind])
    assert done.exit_code == 0, done.output
    assert load_student(folder / "student", [kind])(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    unused = CliRunner().invoke(cli, ["run", "--dry-run", "--plugin", kind])
    assert "--plugin goes with --resume" in str(unused.exception)


def flat(shape: InputShape) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, shape.classes))


READERS = {
    "load_experiment": lambda folder: load_experiment(folder / "config.toml"),
    "resume": resume,
    "load_student": load_student,
    "read_result": read_result,
    "read_audit": read_audit,
    "audit_deployment": lambda folder: audit_deployment(AuditRequest(str(folder)), folder.parent / "audit"),
    "account": account,
    "report": write_report,
    "audit report": write_audit_report,
    "frontier": lambda folder: CliRunner().invoke(cli, ["frontier", str(folder)], catch_exceptions=False),
    "as a source": lambda folder: load_federated(Data(source=str(folder)), 2, 0),
}
"""Every public function that reads a folder, or a file of one."""


def test_no_public_function_that_reads_a_folder_is_left_out() -> None:
    others = {"AuditRecord", "AuditRequest", "Experiment", "Result", "make_plan", "run"}
    assert {name for name in securekd.__all__ if name not in others} <= set(READERS)


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_full_of_traps_springs_none(tmp_path: Path, reader: str) -> None:
    """Every file that any of them reads is a pickle, or names code."""
    folder = hugging_face(tmp_path / "folder", model_type="trap", auto_map={"AutoConfig": "modeling_trap.Trap"})
    pickled = f"cos\nsystem\n(S'touch {MARK}'\ntR.".encode()
    for name in ("model.pt2", "pytorch_model.bin", "sweep.parquet", "answers.npz", "inclusion.npy", "signals.npz"):
        (folder / name).write_bytes(pickled)
    for name in ("result.json", "ledger.json", "audit.json", "sweep.json"):
        (folder / name).write_text(json.dumps({"schema": TRAP, "model": {"kind": TRAP}}))
    (folder / "config.toml").write_text(to_toml(small(student={"model": TRAP})))
    rewritten(folder, model__kind=TRAP)
    try:
        READERS[reader](folder)
    except SecurekdError:
        assert reader != "load_experiment", "reading settings runs nothing, and is no error"
    else:
        assert reader == "load_experiment"


def test_working_state_is_the_owners_alone(tmp_path: Path) -> None:
    """Clients' models and single releases, whatever the umask."""
    out, before = tmp_path / "run", os.umask(0)
    seen: dict[str, int] = {}

    def look(_: object) -> None:
        for path in (out / "state", *(out / "state").rglob("*")):
            seen[path.name] = stat.S_IMODE(path.stat().st_mode)

    try:
        run(small(rounds=1), out, look)
    finally:
        os.umask(before)
    assert seen.pop("state") == 0o700
    assert len(seen) > 5
    assert set(seen.values()) == {0o600}
    assert stat.S_IMODE((out / "result.json").stat().st_mode) == 0o644


def test_a_targets_answers_are_the_owners_alone(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{name} {i}", "label": 0}}\n' for i in range(40)))
    target = "tests.securekd.audit.test_auditing:uniform"
    asked = AuditRequest(target, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    before = os.umask(0)
    try:
        audit_deployment(asked, tmp_path / "audit")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "audit" / "answers").stat().st_mode) == 0o700


def test_an_older_state_is_closed_when_a_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "state").mkdir(parents=True, mode=0o755)
    (out / "config.toml").write_text(to_toml(small(rounds=1)))
    modes: set[int] = set()
    resume(out, lambda _: modes.add(stat.S_IMODE((out / "state").stat().st_mode)))
    assert modes == {0o700}
    shutil.rmtree(out)


def test_loading_a_student_imports_nothing_that_its_folder_names(tmp_path: Path) -> None:
    folder = rewritten(student(tmp_path / "student"), model__kind="antigravity:fly")
    code = f"""if True:
        import pathlib, sys, securekd
        try:
            securekd.load_student(pathlib.Path({str(folder)!r}))
        except Exception as error:
            print(type(error).__name__)
        """
    done = subprocess.run(
        [sys.executable, "-c", code + "print('antigravity' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["ModelError", "False"]
