"""What picking the best of several private runs costs.

An ε that holds for each run does not hold for the best of them: which one is best depends on the data. Papernot and
Steinke 2022 (arXiv:2110.03620) bound it where each run is a fresh draw of its settings, the *number* of runs is drawn
from a truncated negative binomial (theorem 2) or Poisson law (theorem 6) and stays secret, and nothing but the best run
is released. A number that was fixed beforehand, or is known, has no such bound.
"""

import math
from collections import Counter
from collections.abc import Sequence

from securekd.privacy.events import DpSgdEvent, Entry, Neighbours
from securekd.sweep.settings import Selection


def draw_number(selection: Selection, seed: int) -> int:
    """How many runs there will be.

    Args:
        selection: the law.
        seed: from the operating system; the number is secret.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    if selection.law == "poisson":
        return int(rng.poisson(selection.mean))
    gamma = success(selection.mean, selection.shape)
    if selection.shape == 0:
        return int(rng.logseries(1 - gamma))
    while True:  # at least one: the law is truncated
        number = int(rng.negative_binomial(selection.shape, gamma))
        if number:
            return number


def success(mean: float, shape: float) -> float:
    """γ of the truncated negative binomial with this mean and shape η (Papernot and Steinke 2022, definition 1)."""
    from scipy.optimize import brentq

    def excess(gamma: float) -> float:
        if shape == 0:
            return (1 / gamma - 1) / math.log(1 / gamma) - mean
        return shape * (1 - gamma) / (gamma * -math.expm1(shape * math.log(gamma))) - mean

    return float(brentq(excess, 1e-12, 1 - 1e-9, xtol=1e-15))


def selection_epsilon(
    events: Sequence[DpSgdEvent], selection: Selection, delta: float, neighbours: Neighbours
) -> float | None:
    """ε of releasing the best of a drawn number of runs, of which each did these events; None where no bound is known.

    Args:
        events: of one client, in one run.
        selection: the law that the number of runs was drawn from.
        delta: the δ that goes with it.
        neighbours: the relation; replace-one is not covered by the Rényi accountant.
    """
    import dp_accounting as dpa
    from dp_accounting.dp_event import RepeatAndSelectDpEvent

    if neighbours == "replace_one" or not events:
        return None
    one = dpa.ComposedDpEvent(
        [
            dpa.SelfComposedDpEvent(
                dpa.PoissonSampledDpEvent(rate, dpa.GaussianDpEvent(noise)) if rate < 1 else dpa.GaussianDpEvent(noise),
                steps,
            )
            for (rate, noise), steps in _counted(events).items()
        ]
    )
    shape = math.inf if selection.law == "poisson" else selection.shape
    accountant = dpa.rdp.RdpAccountant(orders=[1 + x / 10 for x in range(1, 100)] + list(range(11, 257)))
    accountant.compose(RepeatAndSelectDpEvent(one, selection.mean, shape))
    return float(accountant.get_epsilon(delta))


def events_of(entries: Sequence[Entry]) -> dict[str, tuple[DpSgdEvent, ...]]:
    """What each client's training did, from a run's ledger; a client that trained without privacy is left out."""
    found: dict[str, list[DpSgdEvent]] = {}
    unprotected = set()
    for entry in entries:
        if entry.unit != "example":
            continue
        if isinstance(entry.event, DpSgdEvent):
            found.setdefault(entry.client, []).append(entry.event)
        else:
            unprotected.add(entry.client)
    return {client: tuple(events) for client, events in found.items() if client not in unprotected}


def _counted(events: Sequence[DpSgdEvent]) -> Counter[tuple[float, float]]:
    merged: Counter[tuple[float, float]] = Counter()
    for event in events:
        merged[event.sampling_rate, event.noise_multiplier] += event.steps
    return merged
