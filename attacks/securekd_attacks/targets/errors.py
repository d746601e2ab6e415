# ruff: noqa: N818 - an error is named after what is wrong, in the words of the field
"""What can go wrong while a target is asked: its own failures, told apart from bad input."""

from securekd_attacks.errors import AttackInputError

LONGEST_SHOWN = 120
"""Characters of a value that a target's failure repeats: it is somebody else's text."""


class TargetUnusable(AttackInputError):
    """A target that cannot be asked at all: no such folder, callable or address, or a part of it is missing."""


class BadSignalsFile(AttackInputError):
    """A file that does not hold signals as `SignalsFile` describes them."""


class TargetFailed(Exception):
    """A target stopped answering. What it answered so far is kept, and the audit can be resumed.

    Attributes:
        value: what came back: a status, or the error's text.
        remedy: what to do about it, as a short clause.
    """

    def __init__(self, problem: str, *, value: object, remedy: str) -> None:
        shown = str(value)
        shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
        super().__init__(f"{problem} (got {shown}); {remedy}")
        self.value = value
        self.remedy = remedy


class BadAnswer(TargetFailed):
    """A target answered something that is no answer: other bytes, another shape, numbers that are none.

    Attributes:
        problem: what is wrong, without where.
        row: of the batch, from 0, in which it is wrong; None where it is no single one.
    """

    def __init__(self, problem: str, *, value: object, remedy: str, row: int | None = None) -> None:
        super().__init__(problem + ("" if row is None else f" in row {row}"), value=value, remedy=remedy)
        self.problem = problem
        self.row = row

    def about(self, record: str) -> "BadAnswer":
        """The same of a record by its name, where nobody knows the batch."""
        return BadAnswer(f"{self.problem} in record {record}", value=self.value, remedy=self.remedy)
