"""What can go wrong, by whose doing, and the exit code that the command gives for it."""

from typing import ClassVar


class SecurekdError(Exception):
    """Base of every error that securekd raises on purpose: one line, the value, the remedy."""

    exit_code: ClassVar[int] = 1


class InputError(SecurekdError):
    """The request itself is wrong: a setting, a file, a path. Nothing was started."""

    exit_code: ClassVar[int] = 2


class SettingError(InputError):
    """A setting is unknown, repeated, of the wrong type or out of its range."""


class DataError(InputError):
    """The data cannot be used as asked: missing, empty, without labels, overlapping."""


class ModelError(InputError):
    """A model cannot be built, or cannot be trained with a per-example guarantee."""


class MixedArchitecturesError(ModelError):
    """Weights of models that are not built alike cannot be averaged."""


class FolderError(InputError):
    """A run folder exists where it must not, or is missing where it must be."""


class BudgetError(InputError):
    """A privacy target that cannot be met, or that would mean nothing (δ at or above 1/N)."""


class AgreementError(InputError):
    """Parties that have agreed on different things, or a document that is no agreement."""


class RunError(SecurekdError):
    """The run failed while it was under way; the folder can be resumed."""


class PromiseError(SecurekdError):
    """More was found than was promised: a measured leak above its ε, a record that disagrees with its ledger."""

    exit_code: ClassVar[int] = 3
