"""`run`: from an experiment to a finished run folder, through phases that a later call can take up again."""

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from securekd.checkpoint import PhaseStore, Saved
from securekd.data import holdings
from securekd.errors import FolderError
from securekd.federation.carrier import play
from securekd.federation.client import file_of
from securekd.files import alone_in, begin_folder, is_there, write_atomically
from securekd.laboratory.baselines import Baselines, baselines
from securekd.laboratory.evaluation import labels_of, utility
from securekd.laboratory.leakage import Measured, measure
from securekd.laboratory.outcome import RoundOutcome
from securekd.laboratory.parties import parties, refuse_disagreement
from securekd.laboratory.plan import Plan, make_plan
from securekd.laboratory.promises import refuse_leak, refuse_overspending
from securekd.laboratory.shared import SharedWork
from securekd.learning.parallel import performer
from securekd.learning.tasks import network_of
from securekd.models.folder import save_model
from securekd.plugins import refuse_unnamed
from securekd.privacy.accountant import Guarantee, guarantees
from securekd.privacy.ledger import Ledger, LedgerFile
from securekd.records.communication import communication
from securekd.records.environment import environment, peak_memory
from securekd.records.record import (
    SCHEMA,
    Compute,
    GuaranteeRecord,
    Holdings,
    PrivacyRecord,
    Result,
    Round,
    Utilities,
    read_result,
)
from securekd.records.wording import server_sees
from securekd.report import render
from securekd.settings.config import load_experiment, to_toml
from securekd.settings.experiment import Experiment
from securekd.settings.privacy import Privacy


@dataclass(frozen=True)
class Progress:
    """How far a run is: phases done, phases in all, and the one that has just ended."""

    done: int
    total: int
    phase: str


OnProgress = Callable[[Progress], None]


def run(
    experiment: Experiment,
    out: Path,
    on_progress: OnProgress = lambda progress: None,
    shared: Path | None = None,
) -> Result:
    """Carry out an experiment in a new folder.

    Clients train in several processes unless `runtime.workers` is 1; these do not import the program that calls this,
    so that it needs no `if __name__ == "__main__":` guard, and may be a notebook.

    Args:
        experiment: what to do.
        out: the run's folder, which must not exist.
        on_progress: hears of every finished phase.
        shared: a folder in which several runs keep what they have in common: yardsticks, features of frozen
            encoders; None: none.

    Returns:
        The record, which `out/result.json` holds too.

    Raises:
        InputError: if the request is wrong; nothing is written then.
        RunError: if a phase fails; the folder can be resumed.
        PromiseError: if an attack's lower bound exceeds the proven ε, or that exceeds what was asked for; the folder
            is complete.
    """
    if is_there(out):
        again = f", or finish the run in it with --resume {out}" if (out / "config.toml").is_file() else ""
        raise FolderError(f"{out} exists; take another folder{again}")
    plan = make_plan(experiment)
    begin_folder(out, "config.toml", to_toml(experiment).encode())
    return carry_out(plan, out, on_progress, shared)


def resume(
    out: Path,
    on_progress: OnProgress = lambda progress: None,
    shared: Path | None = None,
    plugins: Collection[str] = (),
) -> Result:
    """Finish the run in a folder, from the last phase that ended; the first arguments are those of `run`.

    Args:
        out: the run's folder.
        on_progress: see `run`.
        shared: see `run`.
        plugins: parts of the user's own (`module:attribute`) that the folder's settings may name.

    Raises:
        FolderError: if there is no run in the folder, if it is finished, or if its settings name other code.
    """
    if not is_there(out / "config.toml"):
        raise FolderError(f"{out} holds no run (no config.toml); begin one in a new folder with --out")
    if (out / "result.json").exists():
        if (out / "state").exists():  # killed at the very end
            result = read_result(out)
            keep_promises(result)
            shutil.rmtree(out / "state")
            return result
        raise FolderError(f"the run in {out} is finished; `securekd report {out}` writes its page anew")
    experiment = load_experiment(out / "config.toml")
    refuse_unnamed(experiment.plugins(), plugins, out / "config.toml")
    return carry_out(make_plan(experiment), out, on_progress, shared)


def carry_out(plan: Plan, out: Path, on_progress: OnProgress, shared: Path | None = None) -> Result:
    """All phases of a plan, and the record; the working state is deleted at the end.

    Raises:
        FolderError: if another process works in the folder, or the data is not what the run began with.
    """
    with alone_in(out):
        return _carry_out(replace(plan, shared=shared), out, on_progress)


def _carry_out(plan: Plan, out: Path, on_progress: OnProgress) -> Result:
    count = _Counter(phases(plan), on_progress)
    store = PhaseStore(out / "state", count)
    _same_data(plan, out / "state" / "data.sha256")
    plan = _planted(plan, store)
    ledger = Ledger(out / "ledger.json", noise=plan.experiment.privacy.noise, delta=plan.agreement.delta)
    _nothing_lost(plan, store, ledger, out)
    start = time.monotonic()
    with performer(plan.experiment.runtime.workers, len(plan.clients)) as perform:
        everybody = parties(plan, out, perform, count, ledger)
        for number in range(1, plan.experiment.rounds + 1):
            play(everybody.server, number, everybody.carrier, perform)
        refuse_disagreement(ledger, everybody.clients)
        outcomes = [RoundOutcome(one.number, one, everybody) for one in everybody.server.played]
        shared = perform if plan.shared is None else SharedWork(plan.shared, perform)
        compared = baselines(plan, everybody.clients, store, shared)
        proven = guarantees(ledger.file)
        before = time.monotonic()
        measured = measure(plan, outcomes, perform, ledger.file)
        audit_seconds = time.monotonic() - before
    result = _result(plan, outcomes, compared, ledger.file, proven, measured, _compute(store, audit_seconds, start))
    _finish(plan, out, outcomes[-1], result)
    keep_promises(result)
    return result


def keep_promises(result: Result) -> None:
    """Raise `PromiseError` where a record shows more ε than was asked for, or more leakage than is proven."""
    refuse_overspending(Privacy.model_validate(result.experiment["privacy"]), result.privacy.guarantees)
    refuse_leak(Measured(result.leakage, result.canaries, result.replays))


def phases(plan: Plan) -> int:
    """How many phases `carry_out` goes through."""
    clients, sums = len(plan.clients), sum(question.exchanges for question in plan.questions)
    return (
        plan.experiment.rounds * (clients * plan.agreement.trainings + sums * (clients + 1) + 1)
        + clients
        + 2
        + (plan.agreement.dp is not None)
        + (plan.canaries is not None)
    )


def _planted(plan: Plan, store: PhaseStore) -> Plan:
    """The plan with canaries planted by coins that are tossed once: a resumed run finds them as they fell."""
    canaries = plan.canaries
    if canaries is None:
        return plan
    coins = store.phase(
        "canaries",
        lambda: Saved(arrays={"included": canaries.toss(plan.randomness.secret("canaries")).astype(np.uint8)}),
    )
    return plan.planted(coins.arrays["included"].astype(bool))


def _same_data(plan: Plan, path: Path) -> None:
    """Note which data a run began with, and refuse to go on with other data."""
    digest = hashlib.sha256()
    for part in (*plan.data.clients, plan.data.transfer, plan.data.test):
        for array in (part.inputs, part.ids, part.labels if part.labels is not None else np.zeros(0)):
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    found = digest.hexdigest().encode()
    if not path.exists():
        write_atomically(path, found, private=True)
    elif path.read_bytes() != found:
        raise FolderError(f"the data is not what the run in {path.parents[1]} began with; restore it, or begin anew")


def _nothing_lost(plan: Plan, store: PhaseStore, ledger: Ledger, out: Path) -> None:
    """Refuse to go on where what was charged for is gone: made anew it would be a second release, and charged once."""
    keys = {c.name: c.key for c in plan.clients}
    for entry in ledger.entries:
        if entry.client not in keys or not store.has(file_of(entry, keys[entry.client])):
            raise FolderError(
                f"{out / 'ledger.json'} charges {entry.client} for the {entry.phase} phase of round {entry.round}, and "
                f"{out / 'state'} no longer holds what it gave; restore that folder, or begin anew"
            )


class _Counter:
    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._seen: set[str] = set()
        self._total = total
        self._on_progress = on_progress

    def __call__(self, name: str, saved: object) -> None:
        self._seen.add(name)
        done = len(self._seen)
        self._on_progress(Progress(done, max(done, self._total), name))  # a strategy may have phases of its own


def _finish(plan: Plan, out: Path, last: RoundOutcome, result: Result) -> None:
    model, shape = plan.experiment.student.model, plan.agreement.shape
    network = network_of(model, shape, 0, last.student, plan.fits.of(model))
    save_model(network, model, shape, plan.data.classes, out / "student")
    write_atomically(out / "report.html", render(result).encode())
    write_atomically(out / "result.json", result.to_json())
    shutil.rmtree(out / "state")


def _result(
    plan: Plan,
    outcomes: list[RoundOutcome],
    compared: Baselines,
    ledger: LedgerFile,
    proven: tuple[Guarantee, ...],
    measured: Measured,
    compute: Compute,
) -> Result:
    rounds = tuple(_round(plan, outcome) for outcome in outcomes)
    weights = {name: sum(v.size for v in state.values()) for name, state in outcomes[-1].clients.items()}
    mechanism = plan.question.release.mechanism
    return Result(
        schema=SCHEMA,
        experiment=plan.experiment.model_dump(mode="json"),
        environment=environment(plan.experiment),
        data=_holdings(plan),
        rounds=rounds,
        utility=Utilities(
            student=rounds[-1].student,
            local_mean=compared.local_mean,
            local_best=compared.local_best,
            centralized=compared.centralized,
            centralized_nonprivate=compared.centralized_nonprivate,
            simple=compared.simple,
            locals=compared.locals,
        ),
        privacy=PrivacyRecord(
            guarantees=tuple(GuaranteeRecord(**vars(g)) for g in proven),
            dp_sgd_noise_multiplier=None if plan.agreement.dp is None else plan.agreement.dp.noise_multiplier,
            release_noise=mechanism.sigma,
            release_sensitivity=mechanism.bounds.l2,
            release_mechanism=plan.experiment.release.mechanism,
            server_sees=server_sees(plan.agreement, plan.aggregator),
            ledger_sha256=hashlib.sha256(ledger.to_json()).hexdigest(),
        ),
        leakage=measured.leakage,
        communication=communication([outcome.played for outcome in outcomes], weights),
        compute=compute,
        canaries=measured.canaries,
        replays=measured.replays,
    )


def _round(plan: Plan, outcome: RoundOutcome) -> Round:
    test, truth = plan.data.test, labels_of(plan.data.test)
    trained = outcome.clients
    accuracies = [(plan.logits(c.model, trained[c.name], test.inputs).argmax(1) == truth).mean() for c in plan.clients]
    survivors, answers, trainings = set(outcome.aggregate.survivors), outcome.answers, outcome.trainings
    parts = len(answers) * plan.question.knowledge.parts
    return Round(
        round=outcome.number,
        student=utility(plan.logits(plan.experiment.student.model, outcome.student, test.inputs), truth),
        clients_mean_accuracy=float(np.mean(accuracies)),
        survivors=len(survivors),
        dropped=tuple(c.name for c in plan.clients if c.name not in survivors),
        clipped_rows=sum(noted.clipped for noted in answers) / parts,
        zeroed_rows=sum(noted.zeroed for noted in answers),
        zeroed_gradients=sum(noted.zeroed for noted in trainings),
        gradients=Counter(noted.gradients for noted in trainings if noted.gradients),
    )


def _holdings(plan: Plan) -> Holdings:
    held = holdings(plan.data)
    return Holdings(
        classes=held.classes,
        clients=held.clients,
        counts=tuple(map(tuple, held.counts.tolist())),
        transfer=len(plan.data.transfer),
        test=len(plan.data.test),
        notes=plan.data.notes,
    )


def _compute(store: PhaseStore, audit_seconds: float, start: float) -> Compute:
    by_phase = store.seconds() | {"audit": audit_seconds}
    return Compute(wall_s=time.monotonic() - start, by_phase=by_phase, peak_rss_bytes=peak_memory())
