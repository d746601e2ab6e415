"""How an agreement comes about: what a strategy asks, how much noise that takes, and what follows from it.

`read_agreement` is for whoever is handed one: it settles it anew, and believes only what comes out the same.
"""

import math
from collections.abc import Collection, Sequence

from securekd.errors import AgreementError, BudgetError, SecurekdError, SettingError
from securekd.federation.aggregation.catalogue import aggregator_named
from securekd.federation.aggregation.seam import Aggregator, Limited
from securekd.federation.agreement import Agreement, Asked, Member
from securekd.federation.strategies.catalogue import strategy_named
from securekd.federation.strategies.seam import Strategy, trainings_of
from securekd.knowledge.questions import questions, refuse_pairs
from securekd.learning.dp.class_sums import split_white
from securekd.learning.dp.dp_sgd import DpSgdPlan
from securekd.learning.dp.suited import refuse_unsuited
from securekd.models.registry import build, probe
from securekd.models.shape import InputShape
from securekd.plugins import is_plugin, refuse_unnamed
from securekd.privacy.accountant import calibrate_dp_sgd
from securekd.privacy.mechanisms import refuse_unreachable
from securekd.privacy.release import Exposure, unknown_shares
from securekd.settings.experiment import Experiment
from securekd_protocols import ProtocolError, recommended_threshold


def settle(
    settings: Experiment,
    strategy: Strategy,
    aggregator: Aggregator,
    members: Sequence[Member],
    *,
    shape: InputShape,
    classes: tuple[str, ...],
    transfer_rows: int,
    transfer_sha256: str,
    labels_sha256: str | None,
) -> Agreement:
    """What parties agree on who do what these settings say.

    Args:
        settings: an experiment; what is no part of an agreement does not count.
        strategy: that it names.
        aggregator: that it names.
        members: the clients, in order.
        shape: see `Agreement`, like the rest.
        classes: likewise.
        transfer_rows: likewise.
        transfer_sha256: likewise.
        labels_sha256: likewise.

    Raises:
        InputError: for settings that contradict each other, or targets that cannot be met.
    """
    threshold, trainings = _threshold(settings, len(members), aggregator), trainings_of(strategy)
    exposure = Exposure(
        neighbours=settings.privacy.client_neighbours,
        unknown_shares=unknown_shares(
            sums_only=aggregator.sums_only, threshold=threshold, colluders=settings.cohort.colluders
        ),
        sampling_rate=settings.cohort.sampling_rate,
    )
    refuse_pairs(settings)
    _refuse_counting_twice(settings, members)
    asked = questions(settings, strategy.asks(settings, shape, transfer_rows), exposure)
    for one in asked:
        refuse_unreachable(one.release.mechanism, len(members))
        if isinstance(aggregator, Limited):
            aggregator.refuse_unfit(len(members), one.knowledge.length, one.release.mechanism.magnitude)
    return Agreement(
        settings=settings,
        shape=shape,
        classes=classes,
        transfer_rows=transfer_rows,
        transfer_sha256=transfer_sha256,
        labels_sha256=labels_sha256,
        members=tuple(members),
        threshold=threshold,
        dp=_dp_plan(settings, trainings),
        trainings=trainings,
        asked=tuple(
            Asked(
                phase=one.phase,
                exchanges=one.exchanges,
                bounds=one.knowledge.bounds,
                sigma=one.release.mechanism.sigma,
                step=one.release.mechanism.step,
                exposure=exposure,
                unit=one.release.unit,
            )
            for one in asked
        ),
    )


def read_agreement(data: bytes, plugins: Collection[str] = ()) -> Agreement:
    """Read an agreement of somebody else's making, and settle it anew: nothing is believed that does not follow.

    Args:
        data: the document.
        plugins: parts of the user's own (`module:attribute`) that it may name: they are imported here.

    Raises:
        AgreementError: It is none, or states other bounds, noise, thresholds or steps than its own settings ask for.
        FolderError: It names other code.
    """
    stated = Agreement.decode(data)
    settings = stated.settings
    kinds = {member.model.kind for member in stated.members if is_plugin(member.model.kind)}
    refuse_unnamed(settings.plugins() | kinds, plugins, "this agreement")
    public = {"shape", "classes", "transfer_rows", "transfer_sha256", "labels_sha256"}
    try:
        strategy, aggregator = strategy_named(settings.strategy), aggregator_named(settings.aggregation)
        strategy.refuse_unfit(settings, stated.members, stated.shape, stated.transfer_rows)
        refuse_large_deltas(settings, stated.members)
        _refuse_unsuited(stated)
        found = settle(settings, strategy, aggregator, stated.members, **{n: getattr(stated, n) for n in public})
    except (SecurekdError, MemoryError, ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise AgreementError(f"nobody could keep this agreement: {said}") from error
    for name in ("threshold", "trainings", "dp", "asked"):
        if getattr(found, name) != getattr(stated, name):
            raise AgreementError(
                f"this agreement states {name} = {getattr(stated, name)!r}, and its own settings ask for "
                f"{getattr(found, name)!r}; have it made anew"
            )
    return stated


def refuse_large_deltas(settings: Experiment, members: Sequence[Member]) -> None:
    """Refuse a δ that would allow giving away whole what it is there to protect.

    Raises:
        BudgetError: δ is at or above one over the examples of a client, or one over the clients.
    """
    privacy, largest = settings.privacy, max(members, key=lambda member: member.examples)
    if privacy.dp_sgd and privacy.delta >= 1 / largest.examples:
        raise BudgetError(
            f"privacy.delta = {privacy.delta} is not below 1/{largest.examples}, the examples of {largest.name}: "
            f"it would allow giving one example away whole; take {0.1 / largest.examples:.0e} or less"
        )
    if privacy.client_delta >= 1 / len(members):
        raise BudgetError(
            f"privacy.client_delta = {privacy.client_delta} is not below 1/{len(members)}, the number of clients; "
            f"take {0.1 / len(members):.0e} or less"
        )


def _refuse_counting_twice(settings: Experiment, members: Sequence[Member]) -> None:
    """Refuse to weight by examples what is so already."""
    counted = next((m for m in members if m.model.loss != "cross_entropy"), None)
    if settings.student.consensus == "weighted" and counted is not None:
        raise SettingError(
            f"loss = {counted.model.loss!r} of {counted.name} counts a client by its examples, and student.consensus = "
            "'weighted' would count it twice; take 'mean'"
        )


def _refuse_unsuited(agreement: Agreement) -> None:
    """Refuse models that DP-SGD cannot train with the guarantee that is promised, or whose loss they do not have."""
    for model in {repr(member.model): member.model for member in agreement.members}.values():
        network = build(model, agreement.shape, seed=0)
        if model.loss == "class_sums":
            split_white(network)
        if agreement.dp is not None:
            refuse_unsuited(network, probe(agreement.shape, 3))


def _threshold(settings: Experiment, clients: int, summing: Aggregator) -> int:
    cohort = settings.cohort
    try:
        lowest = recommended_threshold(clients, cohort.colluders) if summing.sums_only else 2
    except ProtocolError as error:
        raise SettingError(f"{clients} clients, of whom {cohort.colluders} may collude: {error}") from error
    threshold = lowest if cohort.threshold is None else cohort.threshold
    if threshold < lowest:
        raise SettingError(
            f"cohort.threshold = {threshold} is unsafe for {clients} clients of whom {cohort.colluders} may collude: "
            f"a server could open two sums; take {lowest} or more"
        )
    if clients - cohort.dropouts < threshold:
        raise SettingError(
            f"cohort.dropouts = {cohort.dropouts} leaves {clients - cohort.dropouts} of {clients} clients, and "
            f"{threshold} must survive; lower it, or have more clients"
        )
    return threshold


def _dp_plan(settings: Experiment, trainings: int) -> DpSgdPlan | None:
    if not settings.privacy.dp_sgd:
        return None
    training, privacy, parts = settings.training, settings.privacy, settings.rounds * trainings
    steps = math.floor(training.epochs / training.sampling_rate / parts + 1e-9)
    if steps < 1:
        raise SettingError(
            f"training.epochs = {training.epochs} at sampling rate {training.sampling_rate} leaves no step for each of "
            f"{parts} rounds; raise it to {training.sampling_rate * parts:g} or more"
        )
    noise_multiplier = calibrate_dp_sgd(
        training.sampling_rate, steps * parts, privacy.epsilon, privacy.delta, privacy.neighbours
    )
    return DpSgdPlan(training.sampling_rate, steps, noise_multiplier, training.clip)
