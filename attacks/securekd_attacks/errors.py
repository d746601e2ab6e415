# ruff: noqa: N818 - an error is named after what is wrong, in the words of the field
"""What can be wrong with the input of an audit: each error carries the offending value and the remedy."""


class AttackInputError(ValueError):
    """Base of every refusal in this package: the input cannot give a figure that would be true.

    Attributes:
        value: what was found (a number, a shape, a record's id; never a whole array).
        remedy: what to do about it, as a short clause.
    """

    def __init__(self, problem: str, *, value: object, remedy: str) -> None:
        super().__init__(f"{problem} (got {value}); {remedy}")
        self.value = value
        self.remedy = remedy


class BadProbabilities(AttackInputError):
    """Log-probabilities with NaN or +inf, or rows that are no distributions."""


class BadLabels(AttackInputError):
    """Labels that are not integers, or that name a class which does not exist."""


class NotFiniteScores(AttackInputError):
    """Scores with NaN or an infinity, or that are no real numbers at all."""


class TooFewRecords(AttackInputError):
    """Fewer records than the figure needs to exist."""


class OverlappingRecords(AttackInputError):
    """A record that stands on both sides, or twice on one."""


class ShapeMismatch(AttackInputError):
    """Arrays whose shapes do not belong together."""


class MissingAccess(AttackInputError):
    """An attack was asked to run without a signal that it needs."""


class BadSetting(AttackInputError):
    """A confidence, delta, epsilon or FPR outside its range."""


class BadCounts(AttackInputError):
    """Counts that cannot have been counted: negative, not whole, or more hits than trials."""


class BadInclusion(AttackInputError):
    """Records that were not included in the way that a bound takes for granted."""


class DesignChanged(AttackInputError):
    """A store of signals that was begun with another design than it is resumed with."""


class DamagedStore(AttackInputError):
    """A store of signals whose content is not what was written."""


class ReleaseNotSeen(AttackInputError):
    """An observation point at which the releases that an attack needs are not shown."""
