"""The settings of a finished sweep that reach what was asked for."""

from collections.abc import Sequence

from securekd.errors import RunError, SettingError
from securekd.sweep.summary import Setting, Unit


def frontier(
    settings: Sequence[Setting], unit: Unit, *, min_accuracy: float | None = None, max_epsilon: float | None = None
) -> tuple[Setting, ...]:
    """The settings that reach an accuracy, most private first, or stay within an ε, most accurate first.

    Args:
        settings: of a sweep.
        unit: whose ε counts.
        min_accuracy: mean accuracy over seeds at least, 0 to 1.
        max_epsilon: proven ε at most; with both, most private first.

    Raises:
        SettingError: if neither is given.
        RunError: if no setting reaches it; the message names the nearest.
    """
    if min_accuracy is None and max_epsilon is None:
        raise SettingError("frontier needs --min-accuracy, --max-epsilon or both; for example --min-accuracy 0.9")
    within = [s for s in settings if max_epsilon is None or _epsilon(s, unit) <= max_epsilon]
    if not within:
        lowest = min((_epsilon(s, unit) for s in settings), default=float("inf"))
        raise RunError(f"no setting proves ε ≤ {max_epsilon:g} for one {unit}; the lowest is {lowest:.4g}")
    reached = [s for s in within if min_accuracy is None or s.accuracy.mean >= min_accuracy]
    if not reached:
        best = max(within, key=lambda s: s.accuracy.mean)
        raise RunError(
            f"no setting reaches an accuracy of {min_accuracy:g}; the best, {best.series} (group {best.group}), has "
            f"{best.accuracy.mean:.3f}"
        )
    if min_accuracy is None:
        return tuple(sorted(reached, key=lambda s: (-s.accuracy.mean, _epsilon(s, unit))))
    return tuple(sorted(reached, key=lambda s: (_epsilon(s, unit), -s.accuracy.mean)))


def _epsilon(setting: Setting, unit: Unit) -> float:
    found = setting.epsilon[unit]
    return float("inf") if found is None else found
