"""The strategies that a configuration can name."""

from collections.abc import Callable

from securekd.errors import SettingError
from securekd.federation.strategies.distil import Distil
from securekd.federation.strategies.fedavg import FedAvg
from securekd.federation.strategies.pate import Pate
from securekd.federation.strategies.seam import Strategy
from securekd.plugins import named

STRATEGIES: dict[str, Callable[[], Strategy]] = {"distil": Distil, "pate": Pate, "fedavg": FedAvg}


def strategy_named(name: str) -> Strategy:
    """The strategy that a configuration names.

    Raises:
        SettingError: if there is none, or if it has no two halves.
    """
    found = named("strategy", name, STRATEGIES)
    if not isinstance(found, Strategy):
        old = ", but `play` as in securekd 0.1" if hasattr(found, "play") else ""
        raise SettingError(
            f"strategy = {name!r} has no two halves (`client`, `server`, `asks`, `about`, `refuse_unfit`){old}; "
            "CHANGELOG says how to write them"
        )
    return found
