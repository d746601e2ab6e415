"""The audit of a deployment, as the command carries it out: files in, a folder with record and report out."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from securekd.audit.files import Columns, read_sides
from securekd.data.sources import expand
from securekd.errors import DataError, FolderError, PromiseError, RunError, SettingError
from securekd.files import FULL, is_there, not_written, write_atomically
from securekd.plugins import PLUGIN
from securekd.records.audit_record import AuditRecord, Check, record_of
from securekd.report import numbers
from securekd_attacks import AttackInputError, nonmembers_to_resolve
from securekd_attacks.audit import AuditResult, AuditSettings, audit, evaluate
from securekd_attacks.audit.asking import refuse_unlike
from securekd_attacks.targets import (
    BadAnswer,
    EndpointTarget,
    FolderTarget,
    FunctionTarget,
    Manners,
    Records,
    References,
    SignalsFile,
    Target,
    TargetFailed,
)
from securekd_attacks.targets.answers import AnswerStore, Progress
from securekd_attacks.targets.reference_models import from_file, from_models, from_store

Kind = Literal["folder", "endpoint", "callable", "signals"]
TARGETS = "a model folder, an http(s):// address, a module:callable, or a signals file (.npz, .parquet)"

_LIMIT = re.compile(r"(?:(tpr)@([0-9.eE+-]+)|(auc|epsilon_lower))=([0-9.eE+-]+)")


@dataclass(frozen=True)
class Limit:
    """A figure that must not be exceeded by any attack.

    Attributes:
        figure: `tpr`, `auc` or `epsilon_lower`.
        fpr: at which the TPR is taken; None for the others.
        value: the most that is allowed.
    """

    figure: str
    fpr: float | None
    value: float

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """Read `tpr@0.01=0.05`, `auc=0.6` or `epsilon_lower=2`.

        Raises:
            SettingError: it is none of these.
        """
        parts = _LIMIT.fullmatch(text.strip())
        try:
            if parts is None:
                raise ValueError
            fpr = None if parts[2] is None else float(parts[2])
            limit = cls(parts[1] or parts[3], fpr, float(parts[4]))
        except ValueError:
            raise SettingError(
                f"--fail-above {text!r}: write tpr@FPR=VALUE, auc=VALUE or epsilon_lower=VALUE"
            ) from None
        if limit.fpr == 0.0:
            raise SettingError(
                f"--fail-above {text!r}: no number of non-members resolves an FPR of 0, so nothing can be held against "
                "it; give a limit at a larger FPR"
            )
        if limit.value < 0.0 or (limit.fpr is not None and not 0.0 < limit.fpr < 1.0):
            raise SettingError(f"--fail-above {text!r}: the FPR must be in (0, 1), and the value at or above 0")
        return limit

    @property
    def what(self) -> str:
        """As it was written, without the value."""
        return self.figure if self.fpr is None else f"tpr@{self.fpr:g}"

    def check(self, result: AuditResult) -> Check:
        """Hold the largest figure over all attacks against the limit."""
        if self.figure == "epsilon_lower":
            value = result.best.epsilon_lower
        elif self.figure == "auc":
            value = max(each.auc.value for each in result.found)
        else:
            value = max(rate.value for each in result.found for rate in each.tprs if rate.fpr == self.fpr)
        return Check(what=self.what, limit=self.value, value=value, exceeded=value > self.value)


@dataclass(frozen=True)
class AuditRequest:
    """What is asked for.

    Attributes:
        target: see `TARGETS`.
        members: file of records that the target was trained with; a signals file can do without.
        nonmembers: file of records that it was not trained with; a signals file can do without.
        population: file of further non-members, which attacks learn from.
        references: folder or file of reference models.
        disjoint: the references were trained with none of the records.
        columns: what the files' columns are called.
        manners: how an endpoint is asked.
        settings: everything that can change a figure.
        limits: figures that must not be exceeded.
    """

    target: str
    members: Path | None = None
    nonmembers: Path | None = None
    population: Path | None = None
    references: Path | None = None
    disjoint: bool = False
    columns: Columns = field(default_factory=Columns)
    manners: Manners = field(default_factory=Manners)
    settings: AuditSettings = field(default_factory=AuditSettings)
    limits: tuple[Limit, ...] = ()


def audit_deployment(
    request: AuditRequest, out: Path, *, resume: bool = False, on_progress: Progress | None = None
) -> AuditRecord:
    """Carry out an audit, and write `audit.json` and `audit.html` to its folder.

    Args:
        request: what is asked for.
        out: the audit's folder; it must not exist, unless `resume`.
        resume: go on in the folder: what was answered there is not asked again.
        on_progress: called after every batch with its part, the batches done and all of them.

    Raises:
        InputError: the request is wrong, or the records, signals or answers cannot give a true figure.
        RunError: the target stopped answering; the folder can be resumed.
        PromiseError: a limit is exceeded; record and report are written.
    """
    from securekd.report import write_audit_report

    if is_there(out) != resume:
        said = "does not exist: leave --resume out to begin there" if resume else "exists: add --resume"
        raise FolderError(f"{out} {said}, or give another --out")
    with _named_errors(out, fresh=not resume):
        settings = _with_rates(request)
        kind = kind_of(request.target)
        _refuse_wrong_options(request, kind)
        made = _of_signals if kind == "signals" else _by_asking
        made_of = made(request, settings, out, on_progress)
    checks = tuple(limit.check(made_of.result) for limit in request.limits)
    record = record_of(made_of.result, kind, made_of.target, checks, columns=made_of.columns, notes=made_of.notes)
    _make(out)
    write_atomically(out / "audit.json", record.to_json())
    write_audit_report(out)
    refuse_exceeded(record)
    return record


def refuse_exceeded(record: AuditRecord) -> None:
    """Raise where a limit is exceeded, or cannot be held against anything.

    Raises:
        PromiseError: a figure is above its limit.
        DataError: members and non-members can be told apart without the model, so that no figure means anything.
    """
    above = [f"{x.what} = {x.value:.4g} is above {x.limit:g}" for x in record.checks if x.exceeded]
    if above:
        raise PromiseError("; ".join(above))
    if record.checks and record.blind is not None and record.blind.distribution_shift:
        raise DataError(
            f"--fail-above cannot be judged: a classifier that never sees the model tells members from non-members "
            f"(AUC {numbers.area_range(record.blind.auc.low, record.blind.auc.high)}); "
            "give non-members drawn as members are"
        )


def kind_of(target: str) -> Kind:
    """What a target is, from how it is written.

    Raises:
        DataError: none of the kinds.
    """
    if target.startswith(("http://", "https://")):
        return "endpoint"
    path = expand(target)
    if path.is_dir():
        return "folder"
    if path.suffix.lower() in (".npz", ".parquet") and path.is_file():
        return "signals"
    if PLUGIN.fullmatch(target):
        return "callable"
    raise DataError(f"cannot tell what {target!r} is: give {TARGETS}; any other model takes a function that calls it")


@dataclass(frozen=True)
class _Made:
    """A result, and of what it was made: the target's name, and what was read of the sides."""

    result: AuditResult
    target: str
    columns: tuple[str, ...]
    notes: tuple[str, ...]


def _made(result: AuditResult, target: str, sides: Sequence[Records]) -> _Made:
    columns = sides[0].columns if sides else None
    return _Made(result, target, columns or (), tuple(note for side in sides for note in side.notes))


def _of_signals(request: AuditRequest, settings: AuditSettings, out: Path, on_progress: Progress | None) -> _Made:
    del out, on_progress  # nothing is asked
    file = SignalsFile.read(expand(request.target))
    given: tuple[Records, ...] = ()
    if request.members is None or request.nonmembers is None:
        sides = file.sides()
    else:
        given = read_sides((request.members, request.nonmembers), request.columns)
        refuse_unlike(given)
        sides = file.beside(*given)
    _refuse_unresolved(request, settings, sides.nonmembers.records)
    if request.references is not None:
        sides = from_file(expand(str(request.references))).beside(sides)
    return _made(evaluate(sides, settings), file.name, given)


def _by_asking(request: AuditRequest, settings: AuditSettings, out: Path, on_progress: Progress | None) -> _Made:
    if request.members is None or request.nonmembers is None:
        raise DataError("give --members and --nonmembers; only a signals file says by itself who was a member")
    paths = (request.members, request.nonmembers, *(() if request.population is None else (request.population,)))
    members, nonmembers, *further = read_sides(paths, request.columns)
    population = further[0] if further else None
    _refuse_unresolved(request, settings, len(nonmembers))
    target = _open(request)

    def references(store: AnswerStore, records: Records) -> References:
        return _references(request, settings, store, records, on_progress)

    result = audit(
        target,
        members,
        nonmembers,
        settings,
        out / "answers",
        population=population,
        references=None if request.references is None else references,
        progress=on_progress,
    )
    return _made(result, target.name, (members, nonmembers, *further))


def _open(request: AuditRequest) -> Target:
    kind = kind_of(request.target)
    if kind == "endpoint":
        return EndpointTarget(request.target, request.manners)
    if kind == "folder":
        return FolderTarget.open(expand(request.target))
    return FunctionTarget.named(request.target)


def _references(
    request: AuditRequest, settings: AuditSettings, store: AnswerStore, records: Records, progress: Progress | None
) -> References:
    path = expand(str(request.references))
    if path.is_file():
        return from_file(path)
    if (path / "manifest.json").is_file():
        return from_store(path, records)
    return from_models(
        path,
        records,
        store,
        batch=settings.batch,
        seed=settings.seed,
        disjoint=request.disjoint,
        progress=progress,
    )


def _with_rates(request: AuditRequest) -> AuditSettings:
    """The settings, with every rate that a limit names among those that are told."""
    rates = {*request.settings.fprs, *(limit.fpr for limit in request.limits if limit.fpr is not None)}
    return replace(request.settings, fprs=tuple(sorted(rates, reverse=True)))


def _refuse_wrong_options(request: AuditRequest, kind: Kind) -> None:
    if kind == "signals" and request.population is not None:
        raise SettingError("a signals file has its population in itself; drop --population")
    if (request.members is None) != (request.nonmembers is None):
        raise SettingError("give both --members and --nonmembers, or with a signals file neither")
    if request.references is not None and not expand(str(request.references)).exists():
        raise DataError(f"no references in {str(request.references)!r}: give a folder or a file of them")
    if request.disjoint and request.references is None:
        raise SettingError("--references-disjoint without --references; drop it, or give them")
    if kind != "endpoint" and request.manners != Manners():
        raise SettingError("--rate, --timeout, --retries and --token-env are for an http(s):// target; drop them")


def _refuse_unresolved(request: AuditRequest, settings: AuditSettings, nonmembers: int) -> None:
    for limit in request.limits:
        needed = 0 if limit.fpr is None else nonmembers_to_resolve(limit.fpr, settings.confidence)
        if nonmembers < needed:
            raise DataError(
                f"{limit.what} cannot be resolved with {nonmembers} non-members: it takes {needed}; give more, or a "
                "limit at a larger FPR"
            )


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"cannot make the folder {out}: {error.strerror}") from error


@contextmanager
def _named_errors(out: Path, *, fresh: bool) -> Iterator[None]:
    """The auditor's errors as those of this package, with their exit codes; a refusal leaves no empty folder."""
    try:
        yield
    except TargetFailed as error:
        if fresh and _sweep(out):
            raise RunError(f"{error}; nothing was answered yet, and nothing is kept: begin again then") from error
        raise RunError(f"{error}; {_going_on(error)}") from error
    except OSError as error:
        if error.errno in FULL:
            raise not_written(Path(error.filename or out), error) from error
        raise FolderError(f"cannot use the folder {out}: {error.strerror or error}") from error
    except AttackInputError as error:
        if fresh:
            _sweep(out)
        raise DataError(str(error)) from error


def _going_on(error: TargetFailed) -> str:
    """How an audit goes on of which something is kept; what it was begun with cannot change."""
    if isinstance(error, BadAnswer):
        return "mend the target before --resume, or begin anew in another --out"
    return "what was answered is kept: go on with the same command and --resume, or begin anew in another --out"


def _sweep(out: Path) -> bool:
    """Take away the folder of an audit in which nothing was answered yet; whether there was none to take away."""
    answers = out / "answers"
    if not answers.is_dir() or any(answers.rglob("*.npz")):
        return False
    shutil.rmtree(answers)
    if not any(out.iterdir()):
        out.rmdir()
    return True
