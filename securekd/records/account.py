"""`account`: every ε of a run anew, from its ledger alone, and compared with what its record says."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from securekd.errors import FolderError, PromiseError
from securekd.privacy.accountant import Guarantee, guarantees
from securekd.privacy.events import DpSgdEvent
from securekd.privacy.ledger import LedgerFile, read_ledger
from securekd.records.record import GuaranteeRecord, Result, read_result

# How far a recorded ε may be from the recomputed one: the accountant is deterministic on one version of its libraries.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Account:
    """A ledger, recomputed.

    Attributes:
        ledger: as read.
        guarantees: what it proves.
        record: the run's record, if it is finished; it says the same.
    """

    ledger: LedgerFile
    guarantees: tuple[Guarantee, ...]
    record: Result | None


def account(folder: Path) -> Account:
    """Recompute every ε of the run in a folder, finished or not, from `ledger.json` alone.

    Raises:
        FolderError: if there is no readable ledger, one with impossible numbers, or a record that cannot be read.
        PromiseError: if the record promises something else than the ledger proves.
    """
    ledger = read_ledger(folder / "ledger.json")
    try:
        proven = guarantees(ledger)
    except (ArithmeticError, MemoryError, ValueError) as error:
        raise FolderError(f"{folder / 'ledger.json'} states events that give no ε: {error}") from error
    record = read_result(folder) if (folder / "result.json").exists() else None
    if record is not None:
        refuse_difference(ledger, proven, record)
    return Account(ledger, proven, record)


def refuse_difference(ledger: LedgerFile, proven: tuple[Guarantee, ...], record: Result) -> None:
    """Raise `PromiseError` at the first thing in which a record and its ledger differ."""
    recorded = {(g.view, g.unit): g for g in record.privacy.guarantees}
    settings = record.experiment.get("privacy", {})
    if not ledger.noise == record.environment.noise == settings.get("noise"):
        raise PromiseError(
            f"ledger.json names {ledger.noise!r} as the source of noise, result.json {settings.get('noise')!r} in its "
            f"experiment and {record.environment.noise!r} in its environment"
        )
    digest = record.privacy.ledger_sha256
    if digest is not None and digest != hashlib.sha256(ledger.to_json()).hexdigest():
        raise PromiseError("ledger.json is not the ledger that result.json was written with: its SHA-256 differs")
    multipliers = {e.event.noise_multiplier for e in ledger.entries if isinstance(e.event, DpSgdEvent)}
    if multipliers - {record.privacy.dp_sgd_noise_multiplier}:
        raise PromiseError(
            f"ledger.json holds DP-SGD with noise multipliers {sorted(multipliers)}, and result.json states "
            f"{record.privacy.dp_sgd_noise_multiplier}"
        )
    if ledger.delta != {"example": settings.get("delta"), "client": settings.get("client_delta")}:
        raise PromiseError(f"ledger.json is for δ = {ledger.delta}, and the experiment in result.json asked for others")
    if len(recorded) != len(record.privacy.guarantees) or set(recorded) != {(g.view, g.unit) for g in proven}:
        raise PromiseError("result.json does not state one guarantee for each view and unit of its ledger")
    for found in proven:
        stated = recorded[found.view, found.unit]
        if not _same(found, stated):
            raise PromiseError(
                f"against {found.view}, for one {found.unit}, ledger.json proves {_words(found)}, "
                f"and result.json states {_words(stated)}: one of the two was changed, do not rely on the record"
            )


def _same(found: Guarantee, stated: GuaranteeRecord) -> bool:
    if (found.neighbours, found.delta, found.events) != (stated.neighbours, stated.delta, stated.events):
        return False
    if found.epsilon is None or stated.epsilon is None:
        return found.epsilon is stated.epsilon
    return math.isclose(found.epsilon, stated.epsilon, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _words(guarantee: Guarantee | GuaranteeRecord) -> str:
    if guarantee.epsilon is None:
        return f"none ({guarantee.why})"
    return f"ε = {guarantee.epsilon:.6g} at δ = {guarantee.delta:g}, {guarantee.neighbours}, {guarantee.events} events"
