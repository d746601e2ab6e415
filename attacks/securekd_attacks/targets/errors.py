# ruff: noqa: N818 - an error is named after what is wrong, in the words of the field
"""What can go wrong while a target is asked: its own failures, told apart from bad input."""

from securekd_attacks.errors import AttackInputError


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
        super().__init__(f"{problem} (got {value}); {remedy}")
        self.value = value
        self.remedy = remedy


class BadAnswer(TargetFailed):
    """A target answered something that is no answer: other bytes, another shape, numbers that are none."""
