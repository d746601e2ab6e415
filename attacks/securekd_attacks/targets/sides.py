"""What an audit is computed from: the signals of both sides, of a population, and of reference models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from securekd_attacks.errors import ShapeMismatch
from securekd_attacks.inputs import FloatArray
from securekd_attacks.references.inclusion import BoolArray
from securekd_attacks.signals.access import Signals


@dataclass(frozen=True, eq=False)
class Sides:
    """Signals of both sides, and of what attacks learn from.

    Attributes:
        members: records that the target was trained with.
        nonmembers: records that it was not trained with.
        population: further such records, which are not scored; None for none.
        shadows: outputs of reference models for records that they were, and were not, trained with; None for none.
    """

    members: Signals
    nonmembers: Signals
    population: Signals | None = None
    shadows: tuple[Signals, Signals] | None = None


@dataclass(frozen=True, eq=False)
class References:
    """What reference models say of records.

    Attributes:
        ids: n names, of the records.
        signals: shape (R, n), scaled logits; None for language models.
        inclusion: shape (R, n), booleans; None where nobody knows who was trained with what.
        token_log_probs: n arrays under the one reference of a language model; None for classifiers.
        log_probs: shape (R, n, C), what classifiers answer themselves; None where only signals were kept.
        rounding: shape (n,), as `Signals.rounding`, the coarsest over the references.
    """

    ids: tuple[str, ...]
    signals: NDArray[np.floating] | None = None
    inclusion: BoolArray | None = None
    token_log_probs: Sequence[FloatArray] | None = None
    log_probs: NDArray[np.floating] | None = None
    rounding: NDArray[np.floating] | None = None

    def beside(self, sides: Sides) -> Sides:
        """The sides with these references.

        Raises:
            ShapeMismatch: a record of a side is unknown to the references.
        """
        place = {name: column for column, name in enumerate(self.ids)}
        population = None if sides.population is None else self._beside(sides.population, place)
        both = self._beside(sides.members, place), self._beside(sides.nonmembers, place)
        return Sides(*both, population, self._shadows(both, place))

    def _shadows(self, both: tuple[Signals, Signals], place: dict[str, int]) -> tuple[Signals, Signals] | None:
        if self.log_probs is None or self.inclusion is None or any(side.labels is None for side in both):
            return None
        names = [str(name) for side in both for name in side.record_ids or ()]
        labels = np.concatenate([np.asarray(side.labels) for side in both])
        rows = np.array([place[name] for name in names])
        return shadow_signals(self.log_probs[:, rows], labels, self.inclusion[:, rows])

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
            rounding=side.rounding if self.rounding is None else _coarsest(side, self.rounding[rows]),
        )


def _coarsest(side: Signals, rounding: NDArray[np.floating]) -> NDArray[np.floating]:
    return rounding if side.rounding is None else np.maximum(side.rounding, rounding)


def shadow_signals(
    log_probs: NDArray[np.floating], labels: NDArray[np.integer], inclusion: BoolArray
) -> tuple[Signals, Signals] | None:
    """What reference models answer to records that they hold, and to others; None where there are none of either.

    Args:
        log_probs: shape (R, n, C).
        labels: shape (n,).
        inclusion: shape (R, n), booleans.
    """
    if inclusion.all() or not inclusion.any():
        return None
    known = np.broadcast_to(labels, inclusion.shape)
    held, others = (
        Signals(log_probs=log_probs[mask], labels=np.asarray(known[mask])) for mask in (inclusion, ~inclusion)
    )
    return held, others
