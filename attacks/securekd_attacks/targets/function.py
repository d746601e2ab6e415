"""A target in this process: a Python callable."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike

from securekd_attacks.targets.errors import TargetFailed, TargetUnusable
from securekd_attacks.targets.reading import told_apart
from securekd_attacks.targets.records import Answers, Inputs

Predict = Callable[[Inputs], ArrayLike]
"""n records to log-probabilities (n, C), probabilities (n, C) or labels (n,), as numpy arrays or nested lists."""


@dataclass(frozen=True)
class FunctionTarget:
    """A callable as a target.

    Attributes:
        name: what is audited.
        predict: as `Predict`; it must answer the same when asked again.
    """

    name: str
    predict: Predict

    @classmethod
    def named(cls, name: str) -> "FunctionTarget":
        """Import the callable behind `module:attribute`.

        Raises:
            TargetUnusable: there is no such module or attribute, or it is not callable.
        """
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise TargetUnusable(
                f"cannot load the callable {name}", value=error, remedy="write module:callable, the module importable"
            ) from error
        if not callable(found):
            raise TargetUnusable(f"{name} is not callable", value=type(found).__name__, remedy="name a function")
        return cls(name, found)

    def ask(self, inputs: Inputs) -> Answers:
        """Call it. What it raises becomes TargetFailed."""
        try:
            output = self.predict(inputs)
        except Exception as error:
            raise TargetFailed(
                f"the callable {self.name} failed", value=f"{type(error).__name__}: {error}", remedy="mend it, resume"
            ) from error
        return told_apart(output, len(inputs))
