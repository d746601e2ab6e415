"""The page on models says what the code does: its commands run, and its models exist."""

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from securekd.cli.command import cli
from securekd.models.registry import CONSTRUCTORS

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_its_commands_run() -> None:
    commands = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert len(commands) == 3
    for command in commands:
        found = CliRunner().invoke(cli, shlex.split(command)[1:])
        assert found.exit_code == 0, found.output


def test_its_models_exist() -> None:
    named = re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE)
    assert len(named) == 5
    assert set(named) <= CONSTRUCTORS.keys()
