"""The attacks that a run's own leakage is measured with."""

from collections.abc import Callable

from securekd.plugins import named
from securekd_attacks import Attack, EntropyAttack, LossAttack

ATTACKS: dict[str, Callable[[], Attack]] = {"loss": LossAttack, "entropy": EntropyAttack}


def attack_named(name: str) -> Attack:
    """The attack that a configuration names."""
    return named("attack", name, ATTACKS)
