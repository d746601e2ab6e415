"""Text on its way to a terminal: a name is never taken for markup or a control sequence, and any console can print it.

Names and messages of others (classes, columns, files, a server's error) go through `say`, `Screen` or `progress_bar`.
"""

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TypeGuard

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from securekd.errors import RunError

# How signs that we print read where a console has none of them; any other character is shown by its number.
_SPELT = {"ε": "epsilon", "δ": "delta", "σ": "sigma", "η": "eta", "μ": "mu", "≥": ">=", "≤": "<=", "≈": "~"} | {
    "…": "...", "–": "-", "—": "-", "−": "-", "·": ".", "×": "x", "±": "+-", "²": "^2", "∞": "inf", "→": "->"
}  # fmt: skip

# Columns where no terminal counts them.
_UNBOUNDED = 10_000

OnProgress = Callable[[str, int, int | None], None]
"""Called with what is going on, how much of it is done, and of how much."""


def escape(text: str) -> str:
    """The text with whatever is no printable character (controls, bidi overrides, line ends) as Python writes it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(text: str, *, err: bool = False) -> None:
    """Print lines, escaped."""
    click.echo(_escaped_lines(text), err=err)


def say_json(text: str) -> None:
    """Print JSON that is ASCII, as every console can."""
    click.echo(text.rstrip("\n").replace("\x7f", "\\u007f"))


class Screen(Console):
    """A rich console that takes every string as it is, and shows all of it.

    In a terminal, what is too wide for its column goes on in the next line. A file or pipe has no width to keep to.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        """Print on standard output, or on standard error."""
        super().__init__(stderr=stderr, markup=False, emoji=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = _UNBOUNDED

    def render_str(self, text: str, **how: Any) -> Text:
        """The string, escaped, and spelt out before it is laid out where the console cannot print it."""
        spelt = _escaped_lines(text).encode(self.encoding, READABLE).decode(self.encoding)
        shown = super().render_str(spelt, **how)
        shown.overflow = "fold"
        return shown


@contextmanager
def progress_bar(first: str, screen: Screen | None = None) -> Iterator[OnProgress]:
    """A bar on standard error while something goes on; `first` is shown until the first call."""
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen or Screen(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(first), total=None)
        yield lambda what, done, total: bar.update(task, completed=done, total=total, description=escape(what))


@contextmanager
def streams() -> Iterator[None]:
    """Have standard output and standard error take any text, and outlast a reader who has seen enough."""
    with ExitStack() as stack:
        if _is_real(sys.stdout):
            stack.enter_context(redirect_stdout(_Stream(sys.stdout, must_arrive=True)))
        if _is_real(sys.stderr):
            stack.enter_context(redirect_stderr(_Stream(sys.stderr, must_arrive=False)))
        yield


def _is_real(stream: object) -> TypeGuard[io.TextIOWrapper]:
    """Whether a standard stream is open, and not what a test or a notebook put in its place."""
    buffer = getattr(stream, "buffer", None)
    return isinstance(getattr(buffer, "raw", buffer), io.FileIO)  # without a buffer under PYTHONUNBUFFERED


class _Stream(io.TextIOWrapper):
    """A standard stream that spells out what its encoding lacks."""

    def __init__(self, like: io.TextIOWrapper, *, must_arrive: bool) -> None:
        """Write where `like` does, in its encoding."""
        like.flush()
        written = io.BufferedWriter(_Pipe(like.fileno(), must_arrive=must_arrive))
        super().__init__(written, encoding=like.encoding, errors=READABLE, line_buffering=like.line_buffering)

    @property
    def buffer(self) -> Any:
        """Not to be had: click would write UTF-8 to it where the encoding is ASCII."""
        raise AttributeError("buffer")


class _Pipe(io.FileIO):
    """A descriptor that outlasts its reader: who closes a pipe has seen enough, and the exit code stays the work's."""

    def __init__(self, descriptor: int, *, must_arrive: bool) -> None:
        """Of what must arrive (results, and not messages) any other loss is an error, once."""
        super().__init__(descriptor, "wb", closefd=False)
        self._must_arrive = must_arrive

    def write(self, data: Any) -> int:
        """Write, or drop what nobody can have.

        Raises:
            RunError: if results are lost on a full disk.
        """
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return len(data)
        except OSError as error:
            if not self._must_arrive:
                return len(data)
            self._must_arrive = False
            raise RunError(
                f"cannot write to standard output: {error.strerror}; what was written to files is there"
            ) from error


def _escaped_lines(text: str) -> str:
    return "\n".join(map(escape, text.split("\n")))


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_SPELT.get(c) or ascii(c)[1:-1] for c in found), error.end


READABLE = "securekd.readable"
codecs.register_error(READABLE, _readable)
