"""What a terminal gets: names as they are, on any console, whoever chose them and wherever the output goes."""

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table

from securekd.audit.auditing import AuditRequest, audit_deployment
from securekd.cli.audit_console import summary
from securekd.cli.console import holdings_table
from securekd.cli.terminal import Screen, escape, progress_bar, say
from securekd.data.holdings import Holdings
from securekd.errors import PromiseError, SettingError
from securekd.records.audit_record import AuditRecord
from securekd.report import numbers
from securekd_attacks.audit import AuditSettings
from tests.securekd.conftest import SMALL

POOR = ["ascii", "cp1252", "latin-1", "cp437", "koi8-r"]

NAMES = ["[/red]", "[bold]x", ":smile:", "\x1b[31mred", "a\rb", "bell\x07", "\u202eevil", "\x9b2J", "\ud800", "\u2028"]

Securekd = Callable[..., int]


@pytest.fixture
def securekd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Securekd:
    """The command, in this process, with a file of a given encoding as its standard output; gives the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, encoding: str = "utf-8", to: str | Path = "shown") -> int:
        from securekd.cli.command import main

        with Path(to).open("w", encoding=encoding) as file:
            monkeypatch.setattr(sys, "argv", ["securekd", *arguments])
            monkeypatch.setattr(sys, "stdout", file)
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = int(str(ended.code))
            assert sys.stdout is file
            monkeypatch.undo()
            monkeypatch.chdir(tmp_path)
        return code

    return run


def spelt(encoding: str) -> str:
    return "ε" if encoding == "cp437" else "epsilon"


@pytest.mark.parametrize("encoding", POOR)
@pytest.mark.parametrize("words", ["config", "config --sweep", "config --markdown", "frontier --help", "audit --help"])
def test_help_and_settings_read_well_on_a_console_without_epsilon(
    words: str, encoding: str, securekd: Securekd, tmp_path: Path
) -> None:
    assert securekd(*words.split(), encoding=encoding) == 0
    shown = (tmp_path / "shown").read_text(encoding=encoding)
    assert words == "config --sweep" or spelt(encoding) in shown
    assert "\\u03b5" not in shown


def test_an_error_reads_well_on_a_console_without_epsilon(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "securekd", "run", "ε.toml"],
        cwd=tmp_path, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.decode("ascii").startswith("error: cannot read epsilon.toml")


def test_a_run_and_all_that_is_said_about_it_on_a_console_without_epsilon(securekd: Securekd, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(tomli_w.dumps(SMALL | {"rounds": 1}), encoding="utf-8")
    random = np.random.default_rng(0)
    logits, membership = random.normal(size=(600, 3)), np.arange(600) < 300
    np.savez(tmp_path / "signals.npz", logits=logits, membership=membership, labels=random.integers(3, size=600))
    for encoding, words, said in (
        ("cp1252", "run small.toml --dry-run", "epsilon"),
        ("cp1252", "run small.toml --out r", "epsilon"),
        ("ascii", "account r", "epsilon"),
        ("latin-1", "report r", "report: "),
        ("ascii", "audit signals.npz --attacks loss --out a", "epsilon >="),
    ):
        assert securekd(*words.split(), encoding=encoding) == 0, words
        assert said in (tmp_path / "shown").read_text(encoding=encoding)
    for words in ("account r --json", "run small.toml --dry-run --json"):
        assert securekd(*words.split(), encoding="ascii") == 0
        assert json.loads((tmp_path / "shown").read_bytes())
    assert "ε" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", ["config", "config --markdown", "--help", "run --help"])
def test_a_reader_who_closes_the_pipe_is_no_error(words: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "securekd", *words.split()], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_pipe_does_not_hide_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    from securekd.cli import command as cli
    from securekd.cli import console

    def leak(*args: object, **kwargs: object) -> None:
        say("what was found")
        Screen().print("as a table")
        raise PromiseError("more than promised")

    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(console, "account", leak)
    monkeypatch.setattr(sys, "argv", ["securekd", "account", "."])
    with open(writing, "w") as pipe:  # noqa: PTH123 (a descriptor)
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", ["config", "--help", "config --markdown"])
def test_output_that_a_full_disk_loses_is_one_line_and_exit_one(
    words: str, securekd: Securekd, capsys: pytest.CaptureFixture[str]
) -> None:
    code = securekd(*words.split(), to="/dev/full")
    shown = capsys.readouterr().err
    assert code == 1
    assert shown.startswith("error: cannot write to standard output: No space left on device")
    assert shown.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_messages_that_a_full_disk_loses_leave_the_exit_code() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "securekd", "run", "--set", "a=1"], stderr=full, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_whole_and_moves_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a {name} b")
    Screen().print(f"c {name} d")
    shown = capsys.readouterr().out
    assert shown == f"a {escape(name)} b\nc {escape(name)} d\n"
    assert escape(name).isprintable()


def test_escaped_characters_read_as_python_writes_them() -> None:
    assert escape("\x1b[0m\r\n\t\u202e\x85é[b]") == r"\x1b[0m\r\n\t\u202e\x85é[b]"


def test_a_dry_run_shows_classes_clients_and_columns_whatever_they_are_called(
    securekd: Securekd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, clients = ["[/red]", "\x1b[31mred", "[bold]x"], ["\u202eevil", "[/]", "a\rb\x07"]
    column = "[link=x]\x1b[2J"
    random = np.random.default_rng(0)
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([column, "other", "label", "site"])
        for i in range(900):
            rows.writerow([random.normal(), random.normal(), classes[i % 3], clients[i // 3 % 3]])
    settings = {
        "data": {"source": "a.csv", "transfer": 60, "test": 60, "partition": {"kind": "column", "column": "site"}},
        "clients": {"models": ["logistic"]},
        "training": {"epochs": 2},
        "privacy": {"dp_sgd": False},
        "rounds": 1,
    }
    (tmp_path / "a.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "300")
    assert securekd("run", "a.toml", "--dry-run") == 0
    shown = (tmp_path / "shown").read_text(encoding="utf-8")
    refuse_controls(shown)
    for name in (*classes, *clients):
        assert shown.count(escape(name)) == (2 if name in clients else 1)
    assert (
        securekd("run", "a.toml", "--dry-run", "--set", f"data.columns={{{json.dumps(column)}={{low=1,high=0}}}}") == 2
    )


def columns(shown: str) -> list[str]:
    """What a table's columns hold, put together again."""
    lines = [line.split("│")[1:-1] for line in shown.splitlines() if line.startswith("│")]
    return [bare("".join(parts)) for parts in zip(*lines, strict=True)]


def measured(tmp_path: Path) -> AuditRecord:
    random = np.random.default_rng(0)
    logits, membership = random.normal(size=(600, 3)), np.arange(600) < 300
    np.savez(tmp_path / "signals.npz", logits=logits, membership=membership, labels=random.integers(3, size=600))
    return audit_deployment(
        AuditRequest(str(tmp_path / "signals.npz"), settings=AuditSettings(attacks=("loss",))), tmp_path / "audit"
    )


@pytest.mark.parametrize("place", ["a terminal of 80 columns", "a terminal of 40 columns", "a pipe", "COLUMNS=60"])
def test_nothing_in_a_table_is_cut(place: str) -> None:
    """Intervals, settings, heads and titles; in a terminal they go on in the next line."""
    cells = ["0.669 (0.636–0.702)", "mlp; epsilon=4.0, hidden=16, batch_size=32", "123456789.123456789" * 6]
    table = Table("a head of several words", "averyveryverylonghead", "third", title="a title that is long " * 3)
    table.add_row(*cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        if place.startswith("COLUMNS"):
            patch.setenv("COLUMNS", "60")
        patch.setattr(sys, "stdout", caught := io.StringIO())
        screen = Screen()
        if "terminal" in place:
            screen.width = int(place.split()[3])
        screen.print(table)
    shown = caught.getvalue()
    assert columns(shown) == [bare(cell) for cell in cells]
    assert "…" not in shown
    if place == "a pipe":
        assert all(f" {cell} " in shown for cell in cells)
    else:
        assert max(map(len, shown.splitlines())) <= int("".join(c for c in place if c.isdigit()))


@pytest.mark.parametrize("width", [None, 80])
def test_an_audits_intervals_are_whole(width: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = measured(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", caught := io.StringIO())
    summary(record, tmp_path)
    shown = caught.getvalue()
    assert "…" not in shown
    area = record.attacks[0].auc
    told = f"{numbers.area(area.value)} ({numbers.area_range(area.low, area.high)})"
    assert columns(shown)[1] == bare(told)
    assert bool(width) != (told in shown)


names = st.text(st.characters() | st.sampled_from("[]/:\\\x1b\r\x07\x9b\u202e\u200b\n\t"), min_size=1, max_size=20)


@given(names, names, names)
@example("[/red]", "[bold]x", "\x1b[2J")
def test_any_names_of_clients_classes_and_columns_are_shown_and_control_nothing(
    client: str, label: str, column: str
) -> None:
    table = holdings_table(Holdings((client,), (label,), np.ones((1, 1), np.int64)))
    settings = Table(column, title=column)
    settings.add_row(f"{column}=1")
    shown = printed(table, settings, f"models: {client}")
    for name in (client, label):
        assert bare(escape(name)) in bare(shown)
    for line in column.split("\n"):
        assert bare(escape(line)) in bare(shown)


@given(names)
@example("\x1b]0;title\x07")
@example("two\nlines")
@example("\u2028")
def test_any_error_is_one_line_that_controls_nothing(text: str) -> None:
    from securekd.cli import command as cli

    caught = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", caught)
        patch.setattr(sys, "argv", ["securekd", "config"])
        patch.setattr(cli, "cli", lambda standalone_mode: refuse(text))
        with pytest.raises(SystemExit):
            cli.main()
    shown = caught.getvalue()
    assert (shown.count("\n"), shown[-1]) == (1, "\n")
    refuse_controls(shown)
    assert shown.startswith("error: ")
    assert all(escape(word) in shown for word in text.split())


@given(names)
@example("[/red]")
@example("\x1b[31m")
def test_any_phase_is_shown_in_a_progress_bar_and_controls_nothing(name: str) -> None:
    screen = Screen(stderr=True)
    screen.file = io.StringIO()
    with progress_bar(name, screen) as tell:
        tell(name, 1, 2)
        screen.print(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")
        patch.setenv("COLUMNS", "400")
        patch.setattr(sys, "stderr", caught := io.StringIO())
        with progress_bar("begin") as tell:
            tell(name, 1, 2)
    shown = caught.getvalue()
    assert bare(escape(name)) in bare(shown)
    own = "".join(c for c in name if not c.isprintable() and c not in "\n\r\x1b")  # rich's own bar uses these
    assert not set(own) & set(shown)


def printed(*what: object) -> str:
    """What a screen shows that is wide enough not to break lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "2000")
        patch.setattr(sys, "stdout", caught := io.StringIO())
        Screen().print(*what)
    refuse_controls(caught.getvalue())
    return caught.getvalue()


def refuse_controls(text: str) -> None:
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def bare(text: str) -> str:
    return "".join(text.split())


def refuse(text: str) -> None:
    raise SettingError(text)
