"""`securekd audit`: files in, a folder with record and report out, and an exit code that a pipeline can act on."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from securekd.audit.auditing import AuditRequest, Limit, audit_deployment
from securekd.audit.files import Columns, read_records
from securekd.cli.command import cli
from securekd.errors import DataError, FolderError, PromiseError, RunError, SecurekdError, SettingError
from securekd.records.audit_record import AuditRecord, read_audit, schema_text
from securekd_attacks.audit import AuditSettings
from securekd_attacks.targets import Manners
from tests.attacks.targets.server import Reply, ok, serving

N = 300
SECUREKD = [sys.executable, "-P", "-m", "securekd"]
"""As the installed command: the current folder is not put first where modules are looked for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sides of texts, and signals of a target that is surer of its members."""
    folder = tmp_path_factory.mktemp("audit")
    rng = np.random.default_rng(0)
    for side in ("in", "out"):
        rows = [
            {"text": " ".join(f"w{w}" for w in rng.integers(0, 40, size=6)), "label": int(rng.integers(2)), "id": i}
            for i in (f"{side}-{n}" for n in range(N))
        ]
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    logit = rng.normal(0, 1, size=2 * N) + 1.5 * (np.arange(2 * N) < N)
    np.savez(
        folder / "signals.npz",
        logits=np.stack([logit, np.zeros(2 * N)], axis=1),
        labels=np.zeros(2 * N, dtype=int),
        membership=np.arange(2 * N) < N,
        features=rng.normal(size=(2 * N, 3)),
    )
    return folder


def request(folder: Path, target: str, **changed: Any) -> AuditRequest:
    return AuditRequest(target, folder / "in.jsonl", folder / "out.jsonl", **changed)


def probs(inputs: list[Any], _: dict[str, str]) -> Reply:
    return ok({"probs": [[0.6, 0.4]] * len(inputs)})


def test_a_signals_file_is_audited(folder: Path, tmp_path: Path) -> None:
    record = audit_deployment(AuditRequest(str(folder / "signals.npz")), tmp_path / "out")
    assert (record.kind, record.members, record.nonmembers) == ("signals", N, N)
    assert {each.attack for each in record.attacks} == {"loss", "entropy", "modified_entropy"}
    assert record.attacks[0].auc.value > 0.8
    assert record.blind is not None
    assert not record.blind.distribution_shift
    assert read_audit(tmp_path / "out") == record
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "What this model gives away" in page
    for missing in record.not_possible:
        assert missing.needs in page


def test_the_record_is_json_without_surprises(folder: Path, tmp_path: Path) -> None:
    record = audit_deployment(AuditRequest(str(folder / "signals.npz")), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "audit.json").read_bytes(), parse_constant=pytest.fail)
    assert found["schema"] == "securekd.audit/1"
    rate = found["attacks"][0]["tpr_at_fpr"][0]
    assert rate["value"] == rate["true_positives"] / rate["members"]
    assert rate["realised_fpr"] == rate["false_positives"] / rate["nonmembers"] <= rate["fpr"]
    assert AuditRecord.model_validate(found) == record
    (tmp_path / "out" / "audit.json").write_text(json.dumps(found | {"extra": 1}))
    with pytest.raises(FolderError, match="extra"):
        read_audit(tmp_path / "out")


def test_the_published_schema_is_the_models_own() -> None:
    # To renew it, write what schema_text() gives to the file.
    published = Path(__file__).parents[3] / "docs" / "audit.schema.json"
    assert published.read_text(encoding="utf-8") == schema_text()


def test_an_endpoint_that_fails_half_way_is_resumed(folder: Path, tmp_path: Path) -> None:
    asked: list[Any] = []

    def failing(inputs: list[Any], headers: dict[str, str]) -> Reply:
        asked.extend(inputs)
        return (503, b"", {}) if len(asked) > N else probs(inputs, headers)

    out = tmp_path / "out"
    patient = Manners(retries=1, backoff=0.0)
    with serving(failing) as url:
        port = url
        with pytest.raises(RunError, match="--resume"):
            audit_deployment(request(folder, url, manners=patient), out)
    kept = len(list((out / "answers" / "target").glob("*.npz"))) * 64
    assert kept == 256
    manifest = json.loads((out / "answers" / "manifest.json").read_text())
    with serving(lambda inputs, headers: asked.extend(inputs) or probs(inputs, headers)) as url:
        # The same endpoint, well again: a test cannot have the same port for sure.
        (out / "answers" / "manifest.json").write_text(json.dumps(manifest).replace(port, url))
        asked.clear()
        record = audit_deployment(request(folder, url, manners=patient), out, resume=True)
    assert len(asked) == 2 * N - kept
    assert record.attacks[0].auc.value == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize("bad", [[0.6, 0.3], [float("nan"), 0.5], [1.1, -0.1], [None, 1.0]])
def test_a_bad_answer_names_the_record_and_not_its_place_in_a_batch(
    folder: Path, tmp_path: Path, side: str, bad: list[float | None]
) -> None:
    wrong = json.loads((folder / f"{side}.jsonl").read_text().splitlines()[6])

    def answer(inputs: list[Any], _: dict[str, str]) -> Reply:
        return ok({"probs": [bad if text == wrong["text"] else [0.6, 0.4] for text in inputs]})

    name = {"in": "members", "out": "non-members"}[side]
    with serving(answer) as url, pytest.raises(RunError, match=rf"first in record {side}-6 \(number 7 of the {name}\)"):
        audit_deployment(request(folder, url), tmp_path / "out")


def test_a_bad_answer_of_unnamed_records_names_the_place_in_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2 * N, 3))
    np.savez(tmp_path / "in.npz", inputs=inputs[:N], labels=np.zeros(N, dtype=int))
    np.savez(tmp_path / "out.npz", inputs=inputs[N:], labels=np.zeros(N, dtype=int))

    def answer(given: list[Any], _: dict[str, str]) -> Reply:
        return ok({"probs": [[0.5, 0.4] if row == inputs[N + 41].tolist() else [0.6, 0.4] for row in given]})

    asked = AuditRequest("", tmp_path / "in.npz", tmp_path / "out.npz")
    with (
        serving(answer) as url,
        pytest.raises(RunError, match=r"\(number 42 of the non-members\) \(got 0.9") as refused,
    ):
        audit_deployment(replace(asked, target=url), tmp_path / "out")
    assert len(str(refused.value)) <= 300


def test_what_was_kept_of_a_bad_answer_and_how_to_go_on_is_true(folder: Path, tmp_path: Path) -> None:
    """A batch too large is refused again by --resume, and a folder keeps its batch: begin anew, which works."""
    out, calls = tmp_path / "out", [0]

    def large(inputs: list[Any], headers: dict[str, str]) -> Reply:
        calls[0] += 1
        return probs(inputs, headers) if calls[0] <= 2 or len(inputs) < 20 else (200, b"[" * 5_000, {})

    with serving(large) as url:
        with pytest.raises(RunError, match="mend the target before --resume, or begin anew in another --out"):
            audit_deployment(request(folder, url), out)
        with pytest.raises(RunError, match="mend the target before --resume"):
            audit_deployment(request(folder, url), out, resume=True)
        smaller = request(folder, url, settings=AuditSettings(batch=16, attacks=("loss",)))
        with pytest.raises(DataError, match="another batch"):
            audit_deployment(smaller, out, resume=True)
        assert audit_deployment(smaller, tmp_path / "anew").members == N


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ((200, b"[" * 5_000, {}), "too much beside"),
        ((307, b"", {"Location": "/elsewhere"}), "give the address"),
        ((401, b"", {}), "bearer token"),
        ((200, b"{}", {"Content-Encoding": "gzip"}), "compresses"),
    ],
)
def test_a_target_that_never_answered_leaves_no_folder_in_the_way(
    folder: Path, tmp_path: Path, reply: Reply, why: str
) -> None:
    out = tmp_path / "out"
    with (
        serving(lambda *_: reply) as url,
        pytest.raises(RunError, match=f"{why}.*nothing was answered yet.*begin again"),
    ):
        audit_deployment(request(folder, url), out)
    assert not out.exists()
    with serving(probs) as url:  # another address, and the same folder
        assert audit_deployment(request(folder, url, settings=AuditSettings(attacks=("loss",))), out).members == N


def test_no_false_positive_rate_is_shown_below_zero(folder: Path, tmp_path: Path) -> None:
    words = ["audit", str(folder / "signals.npz"), "--out", str(tmp_path / "out"), "--fpr", "-0.0"]
    done = CliRunner().invoke(cli, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "TPR at 0% FPR" in done.stdout
    assert "-0" not in json.dumps([x.tpr_at_fpr[0].fpr for x in read_audit(tmp_path / "out").attacks])
    assert "-0%" not in (tmp_path / "out" / "audit.html").read_text()


def test_an_endpoint_of_labels_alone_gets_the_label_only_attack(folder: Path, tmp_path: Path) -> None:
    known = read_records(folder / "in.jsonl", Columns())
    assert known.labels is not None
    starts = (" ".join(str(text).split()[:2]) for text in known.inputs)
    answers = dict(zip(starts, known.labels.tolist(), strict=True))

    def labels(inputs: list[Any], _: dict[str, str]) -> Reply:
        return ok({"labels": [answers.get(" ".join(text.split()[:2]), 0) for text in inputs]})

    settings = AuditSettings(copies=4, strength=0.2, attacks=("loss", "label_only"))
    with serving(labels) as url:
        record = audit_deployment(request(folder, url, settings=settings), tmp_path / "out")
    assert [each.attack for each in record.attacks] == ["label_only"]
    assert [(x.attack, x.needs) for x in record.not_possible] == [("loss", "log_probs")]
    assert record.attacks[0].auc.low > 0.5
    assert len(list((tmp_path / "out" / "answers").iterdir())) == 1 + 1 + 4  # the manifest, the records, four copies


def test_fail_above(folder: Path, tmp_path: Path) -> None:
    signals = str(folder / "signals.npz")
    limits = tuple(map(Limit.parse, ("tpr@0.05=0.9", "auc=0.5", "epsilon_lower=0.1")))
    with pytest.raises(PromiseError, match=r"auc = .* is above 0.5; epsilon_lower = .* is above 0.1"):
        audit_deployment(AuditRequest(signals, limits=limits), tmp_path / "above")
    checks = read_audit(tmp_path / "above").checks
    assert [x.exceeded for x in checks] == [False, True, True]
    assert "Above its limit." in (tmp_path / "above" / "audit.html").read_text()
    audit_deployment(AuditRequest(signals, limits=limits[:1]), tmp_path / "below")


def test_fail_above_cannot_be_judged_where_the_sides_differ(folder: Path, tmp_path: Path) -> None:
    with np.load(folder / "signals.npz") as archive:
        given = {name: archive[name] for name in archive.files}
    given["features"][:N] += 1.0
    np.savez(tmp_path / "shifted.npz", **given)
    with pytest.raises(DataError, match="cannot be judged"):
        audit_deployment(AuditRequest(str(tmp_path / "shifted.npz"), limits=(Limit.parse("auc=1"),)), tmp_path / "out")
    assert "No leakage is claimed." in (tmp_path / "out" / "audit.html").read_text()


BAD: list[tuple[dict[str, Any], str, type[SecurekdError]]] = [
    ({"target": "nowhere"}, "cannot tell what 'nowhere' is", DataError),
    ({"target": "no_such_module:f"}, "cannot load the callable", DataError),
    ({"target": "http://user:word@host/"}, "password", DataError),
    ({"target": "."}, "no Hugging Face model folder", DataError),
    ({"nonmembers": None}, "give both --members and --nonmembers", SettingError),
    ({"members": None, "nonmembers": None}, "give --members and --nonmembers", DataError),
    ({"nonmembers": "in.jsonl"}, "two sides", DataError),
    ({"nonmembers": "nowhere.csv"}, "no file of records", DataError),
    ({"target": "{folder}/signals.npz"}, "300 unknown ids", DataError),
    ({"target": "{folder}/signals.npz", "population": Path("x")}, "drop --population", SettingError),
    ({"disjoint": True}, "without --references", SettingError),
    ({"manners": Manners(rate=3.0)}, "are for an http", SettingError),
    ({"limits": (Limit("tpr", 0.001, 0.1),)}, "cannot be resolved with 300 non-members: it takes 2995", DataError),
    ({"references": Path("nowhere")}, "no references in 'nowhere'", DataError),
]


@pytest.mark.parametrize(("changed", "why", "kind"), BAD, ids=[why for _, why, _ in BAD])
def test_bad_requests_are_refused_and_leave_nothing(
    folder: Path, tmp_path: Path, changed: dict[str, Any], why: str, kind: type[SecurekdError]
) -> None:
    given = {"target": "tests.securekd.audit.test_auditing:uniform"} | changed
    target = given.pop("target").format(folder=folder)
    for side in ("members", "nonmembers"):
        if isinstance(given.get(side), str):
            given[side] = folder / given[side]
    asked = AuditRequest(target, **({"members": folder / "in.jsonl", "nonmembers": folder / "out.jsonl"} | given))
    with pytest.raises(kind, match=why):
        audit_deployment(asked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def uniform(inputs: Any) -> np.ndarray:
    return np.full((len(inputs), 2), 0.5)


def test_references_from_a_signals_file_are_found_by_id(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    sides = [read_records(folder / f"{side}.jsonl", Columns()) for side in ("in", "out")]
    ids = [name for side in sides for name in side.ids]
    order = rng.permutation(len(ids))
    np.savez(
        tmp_path / "references.npz",
        probs=rng.dirichlet(np.ones(2), size=(len(ids), 6)),
        membership=rng.random((len(ids), 6)) < 0.5,
        labels=np.concatenate([np.asarray(side.labels) for side in sides])[order],
        ids=np.array(ids)[order],
    )
    asked = request(
        folder,
        "tests.securekd.audit.test_auditing:uniform",
        references=tmp_path / "references.npz",
        settings=AuditSettings(attacks=("loss", "lira", "shadow", "rmia_online")),
    )
    record = audit_deployment(asked, tmp_path / "out")
    assert [each.attack for each in record.attacks] == [
        "loss",
        "lira_online_residual",
        "lira_offline_per_example",
        "shadow",
    ]
    assert [x.needs for x in record.not_possible] == ["a population (non-members that are not scored)"]
    assert 0 < record.left_out == 2 * N - record.members - record.nonmembers
    # References that know nothing of the target: no attack may find anything (each fails with probability 5% at most).
    assert record.best.epsilon_lower == 0.0


def test_folders_are_never_overwritten_and_never_made_up(folder: Path, tmp_path: Path) -> None:
    signals = AuditRequest(str(folder / "signals.npz"))
    with pytest.raises(FolderError, match="add --resume"):
        audit_deployment(signals, folder)
    with pytest.raises(FolderError, match="does not exist"):
        audit_deployment(signals, tmp_path / "none", resume=True)
    with pytest.raises(FolderError, match="cannot"):
        audit_deployment(signals, Path("/dev/null/x"))


@pytest.mark.parametrize(
    "text", ["", "auc", "auc=x", "tpr=0.1", "tpr@2=0.1", "tpr@1=0.1", "tpr@-0.1=1", "auc=-1", "auc=nan", "f1=1"]
)
def test_limits_that_say_nothing(text: str) -> None:
    with pytest.raises(SettingError, match="--fail-above"):
        Limit.parse(text)


@pytest.mark.parametrize("text", ["tpr@0=0.1", "tpr@0.0=0.1", "tpr@-0=1", "tpr@0e9=0.1"])
def test_a_limit_at_no_false_positive_says_why_it_cannot_be(text: str) -> None:
    with pytest.raises(SettingError, match="no number of non-members resolves an FPR of 0"):
        Limit.parse(text)


def test_the_rate_at_no_false_positive_is_told_everywhere_as_unresolved(folder: Path, tmp_path: Path) -> None:
    words = ["audit", str(folder / "signals.npz"), "--out", str(tmp_path / "out"), "--fpr", "0", "--fpr", "0.1"]
    done = CliRunner().invoke(cli, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    record = read_audit(tmp_path / "out")
    rate = record.attacks[0].tpr_at_fpr[1]
    assert (rate.fpr, rate.resolved, rate.nonmembers_needed, rate.false_positives) == (0.0, False, None, 0)
    assert rate.value > 0.0
    assert "TPR at 0% FPR" in done.stdout
    assert "unresolved: the FPR may be 1.3%" in done.stdout  # 1 − 0.025^(1/300), upwards
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "unresolved: the FPR may be 1.3%" in page
    assert "more of them can only lower it" in page
    refused = CliRunner().invoke(cli, [*words, "--resume", "--fpr", "1"])
    assert isinstance(refused.exception, SettingError)


def test_rounded_probabilities_are_noted_in_record_terminal_and_page(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    given = {"labels": np.zeros(2 * N, dtype=int), "membership": np.arange(2 * N) < N}
    np.savez(tmp_path / "rounded.npz", probs=rng.dirichlet(np.ones(5), size=2 * N).round(3), **given)
    words = ["audit", str(tmp_path / "rounded.npz"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, words)
    found = read_audit(tmp_path / "out").rounded
    assert found is not None
    assert 0 < found.records < 2 * N
    assert found.step == 0.001
    said = f"the probabilities of {found.records} records sum to one only up to their own rounding, in steps of up to "
    assert said in done.stdout
    assert "moved no probability by more than about 1% of itself" in " ".join(done.stdout.split())
    page = (tmp_path / "out" / "audit.html").read_text()
    assert said in page
    assert "exact probabilities may show more" in page
    exact = audit_deployment(AuditRequest(str(folder / "signals.npz")), tmp_path / "exact")
    assert exact.rounded is None
    old = json.loads(exact.to_json())
    del old["rounded"]
    assert AuditRecord.model_validate(old) == exact  # a record of before can still be read


def test_one_run_bounds_are_written_down(folder: Path, tmp_path: Path) -> None:
    settings = AuditSettings(bounds=("one_run", "gdp", "bayesian"), inclusion="bernoulli")
    record = audit_deployment(AuditRequest(str(folder / "signals.npz"), settings=settings), tmp_path / "out")
    assert [bound.kind for bound in record.attacks[0].bounds] == ["clopper_pearson", "bayesian", "gdp", "one_run"]
    assert all(bound.assumptions for bound in record.attacks[0].bounds)
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "fair coin of its own" in page
    assert "trade-off is Gaussian" in page


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_records_of_every_format_are_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    csv_file = written(tmp_path / "a.csv", 'text,label,id\n"one, two",0,a\nthree,1,b\n')
    jsonl = '{"text": "one, two", "label": 0, "id": "a"}\n{"text": "three", "label": 1, "id": "b"}\n'
    columns = {"text": ["one, two", "three"], "label": [0, 1], "id": ["a", "b"]}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", inputs=np.array(columns["text"]), labels=[0, 1], ids=["a", "b"])
    files = [csv_file, written(tmp_path / "a.jsonl", jsonl), tmp_path / "a.parquet", tmp_path / "a.npz"]
    assert len({read_records(path, Columns()).digest() for path in files}) == 1


def test_columns_without_a_text_are_numbers_or_rows(tmp_path: Path) -> None:
    numbers = read_records(written(tmp_path / "n.csv", "a,b,label\n1,2.5,0\n3,4,1\n"), Columns())
    np.testing.assert_array_equal(np.asarray(numbers.inputs), [[1, 2.5], [3, 4]])
    rows = read_records(written(tmp_path / "r.csv", "a,b,label\n1,x,0\n3,y,1\n"), Columns())
    assert list(rows.inputs) == [{"a": "1", "b": "x"}, {"a": "3", "b": "y"}]
    assert rows.kind == "row"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.csv", "", "has no rows"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.csv", "text,label\nx,0,1\n", "row 1 has other columns"),
        ("a.csv", "text,label\nx\n", "other columns"),
        ("a.csv", "text,label\n,0\n", "no text"),
        ("a.csv", "text,label\nx,0.5\n", "no integer from 0"),
        ("a.csv", "text,label\nx,-1\n", "no integer from 0"),
        ("a.csv", "text,label\nx,cat\n", "no integer from 0"),
        ("a.csv", "text,label\nx,0\nx,0\n", "occurs twice"),
        ("a.csv", "label\n0\n", "name one with --text"),
        ("a.jsonl", '{"text": "x"}\n[1]\n', "row 2"),
        ("a.jsonl", '{"text": "x"\n', "cannot read"),
        ("a.jsonl", "[1]\n", "row 1"),
        ("a.jsonl", '{"text": "x", "label": 0}\n{"text": "y", "label": null}\n', "row 2 has other columns"),
        ("a.npz", "PK", "cannot read"),
        ("a.txt", "x", "no file of records"),
    ],
)
def test_unfit_files_of_records(tmp_path: Path, name: str, text: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_records(written(tmp_path / name, text), Columns())


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SECUREKD, "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
    )


def test_the_command(folder: Path, tmp_path: Path) -> None:
    above = command(folder / "signals.npz", "--fail-above", "auc=0.5", cwd=tmp_path)
    assert above.returncode == 3
    assert "audits/audit-1/audit.html" in above.stdout
    assert above.stderr.strip().splitlines()[-1].startswith("error: auc = ")


def test_its_arguments(folder: Path, tmp_path: Path) -> None:
    words = ["audit", str(folder / "signals.npz"), "--out", str(tmp_path / "out"), "--attacks", "loss,entropy"]
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert [each["attack"] for each in json.loads(done.stdout)["attacks"]] == ["loss", "entropy"]
    again = CliRunner().invoke(cli, [*words, "--resume"])
    assert "all attacks together: ε ≥" in again.stdout
    refused = CliRunner().invoke(cli, [*words, "--bounds", "one_run", "--resume"])
    assert isinstance(refused.exception, SettingError)
    nameless = CliRunner().invoke(cli, [words[0], words[1], "--resume"])
    assert isinstance(nameless.exception, FolderError)


def test_ctrl_c_can_be_resumed(folder: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time, numpy\ndef f(x):\n    time.sleep(0.2)\n    return numpy.full((len(x), 2), 0.5)\n")
    arguments = ["slow:f", "--members", folder / "in.jsonl", "--nonmembers", folder / "out.jsonl", "--out", "a"]
    words = [*SECUREKD, "audit", *map(str, arguments), "--batch", "20"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # Where SIGINT was ignored, as in a shell's background jobs, children would ignore it too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    kept = tmp_path / "a" / "answers" / "target"
    deadline = time.monotonic() + 60
    while not (kept / "000001.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in said
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert 2 <= len(before) < 30
    slow.write_text(slow.read_text().replace("0.2", "0.0"))
    assert command(*arguments, "--batch", "20", "--resume", cwd=tmp_path).returncode == 0
    after = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(after) == 30
    assert {name: after[name] for name in before} == before
