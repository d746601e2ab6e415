"""What an audit is computed from: the signals of both sides, of a population, and of reference models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.access import Signals
from securekd_attacks.errors import ShapeMismatch
from securekd_attacks.inputs import FloatArray
from securekd_attacks.references import BoolArray


@dataclass(frozen=True, eq=False)
class Sides:
    """Signals of members, of non-members, and of further non-members that attacks learn from (None for none)."""

    members: Signals
    nonmembers: Signals
    population: Signals | None = None


@dataclass(frozen=True, eq=False)
class References:
    """What reference models say of records.

    Attributes:
        ids: n names, of the records.
        signals: shape (R, n), scaled logits; None for language models.
        inclusion: shape (R, n), booleans; None where nobody knows who was trained with what.
        token_log_probs: n arrays under the one reference of a language model; None for classifiers.
    """

    ids: tuple[str, ...]
    signals: NDArray[np.floating] | None = None
    inclusion: BoolArray | None = None
    token_log_probs: Sequence[FloatArray] | None = None

    def beside(self, sides: Sides) -> Sides:
        """The sides with these references.

        Raises:
            ShapeMismatch: a record of a side is unknown to the references.
        """
        place = {name: column for column, name in enumerate(self.ids)}
        population = None if sides.population is None else self._beside(sides.population, place)
        return Sides(self._beside(sides.members, place), self._beside(sides.nonmembers, place), population)

    def _beside(self, side: Signals, place: dict[str, int]) -> Signals:
        names = [str(name) for name in side.record_ids or ()]
        unknown = [name for name in names if name not in place]
        if unknown or not names:
            raise ShapeMismatch(
                f"the references do not know {len(unknown)} of {len(names)} records",
                value=unknown[0] if unknown else "no ids",
                remedy="give references of the same records, by the same ids",
            )
        rows = np.array([place[name] for name in names])
        tokens = self.token_log_probs
        return replace(
            side,
            references=None if self.signals is None else self.signals[:, rows],
            inclusion=None if self.inclusion is None else self.inclusion[:, rows],
            reference_token_log_probs=None if tokens is None else [tokens[row] for row in rows],
        )
