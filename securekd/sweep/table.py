"""`sweep.parquet`: one tidy row for each run and observation point, with what every column means in its metadata.

Times and memory are left out, so that an interrupted sweep gives the same table as an uninterrupted one.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from securekd.errors import FolderError
from securekd.files import write_atomically
from securekd.records.record import GuaranteeRecord, Leakage, Result
from securekd.report.audit import last_round
from securekd.sweep.folder import SweepFolder
from securekd.sweep.plan import PlannedRun, SweepPlan
from securekd_attacks import auc_ceiling

if TYPE_CHECKING:
    from pandas import DataFrame

Kind = Literal["string", "Int64", "Float64", "boolean"]


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        name: of the column.
        kind: pandas type; every one of them has missing values.
        meaning: what it says, with unit and range.
    """

    name: str
    kind: Kind
    meaning: str


COLUMNS = (
    Column("run", "string", "the run's folder below runs/"),
    Column("group", "Int64", "number that runs share which differ in their seed alone"),
    Column("role", "string", "point of the axes, or the baseline beside it: fedavg, nonprivate"),
    Column("strategy", "string", "who teaches whom"),
    Column("aggregation", "string", "how releases are added up"),
    Column("seed", "Int64", "of splits and initial weights"),
    Column(
        "status", "string", "done; promise: done, and more was found than was promised; refused or failed: no result"
    ),
    Column("error", "string", "why there is no result, or what broke a promise; missing otherwise"),
    Column("noise", "string", "os, or seeded: repeatable, and nothing is protected"),
    Column("epsilon_example", "Float64", "proven ε for one example, the largest over views; missing: none is given"),
    Column("delta_example", "Float64", "the δ of epsilon_example"),
    Column("neighbours_example", "string", "the neighbouring relation of epsilon_example"),
    Column("epsilon_client", "Float64", "proven ε for a whole client in the server's view; missing: none is given"),
    Column("delta_client", "Float64", "the δ of epsilon_client"),
    Column("neighbours_client", "string", "the neighbouring relation of epsilon_client"),
    Column("accuracy", "Float64", "of the student (the global model) on the test set, 0 to 1"),
    Column("precision", "Float64", "of the student, mean over classes, 0 to 1"),
    Column("recall", "Float64", "of the student, mean over classes, 0 to 1"),
    Column("f1", "Float64", "of the student, mean over classes, 0 to 1"),
    Column("local_mean_accuracy", "Float64", "of the mean client alone, with the whole budget, 0 to 1"),
    Column("local_best_accuracy", "Float64", "of the best client alone, 0 to 1"),
    Column("centralized_accuracy", "Float64", "of all data in one place with the same DP, 0 to 1"),
    Column("centralized_nonprivate_accuracy", "Float64", "of all data in one place without privacy, 0 to 1"),
    Column("upload_bytes", "Float64", "that the mean client sent over the whole run"),
    Column("download_bytes", "Float64", "that the mean client received over the whole run"),
    Column("clients", "Int64", "number of clients"),
    Column("rounds", "Int64", "number of rounds"),
    Column("point", "string", "where the adversary stands: client_model, client_release, aggregate, student"),
    Column("attack", "string", "the attack with the largest AUC at this point"),
    Column("attacks", "Int64", "attacks that were made at this point"),
    Column("auc", "Float64", "of that attack; 0.5 is chance"),
    Column("auc_low", "Float64", "lower end of the AUC's interval"),
    Column("auc_high", "Float64", "upper end of the AUC's interval"),
    Column("auc_ceiling", "Float64", "the largest AUC that epsilon_example allows; missing: nothing is promised"),
    Column("epsilon_lower", "Float64", "largest lower bound on ε that an attack at this point proved"),
    Column("confidence", "Float64", "of the interval and of the bound"),
    Column("members", "Int64", "records that were in the training"),
    Column("nonmembers", "Int64", "records that were not"),
)

# What a run without privacy does not have, whatever the axes say.
_PRIVATE_AXES = (
    "privacy.epsilon",
    "privacy.client_epsilon",
    "privacy.dp_sgd",
    "release.noise",
    "fedavg.noise",
)


def table_of(plan: SweepPlan, folder: SweepFolder) -> "DataFrame":
    """A row for each run and observation point; one row for a run that failed; none for one that was not begun."""
    import pandas as pd

    rows = [row for run in plan.runs for row in _rows(plan, run, folder)]
    columns = columns_of(plan)
    return pd.DataFrame(
        {c.name: pd.array([row.get(c.name) for row in rows], dtype=c.kind) for c in columns},
        columns=[c.name for c in columns],
    )


def columns_of(plan: SweepPlan) -> tuple[Column, ...]:
    """The columns of a sweep: an axis has one too, unless it is strategy or aggregation, which every sweep has."""
    axes = (
        Column(
            name,
            _kind([run.point.get(name) for run in plan.runs]),
            f"the setting {name}; missing where it says nothing",
        )
        for name in plan.axes
        if name not in ("strategy", "aggregation")
    )
    return (*COLUMNS[:6], *axes, *COLUMNS[6:])


def write_table(plan: SweepPlan, folder: SweepFolder) -> "DataFrame":
    """Write the table, with each column's meaning in its metadata, and give it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = table_of(plan, folder)
    plain = pa.Table.from_pandas(frame, preserve_index=False)
    meanings = {c.name: c.meaning for c in columns_of(plan)}
    fields = [field.with_metadata({"meaning": meanings[field.name]}) for field in plain.schema]
    file = io.BytesIO()
    pq.write_table(plain.cast(pa.schema(fields, metadata=plain.schema.metadata)), file)
    write_atomically(folder.table, file.getvalue())
    return frame


def read_table(path: Path) -> "DataFrame":
    """The table of a sweep.

    Raises:
        FolderError: if it is missing or no such table.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
    except (OSError, ValueError) as error:
        raise FolderError(f"no table of a sweep at {path}: {str(error).splitlines()[0]}") from error
    missing = [c.name for c in COLUMNS if c.name not in frame]
    if missing:
        raise FolderError(f"{path} is not the table of a sweep: it has no column {missing[0]!r}")
    return frame


def _kind(values: list[Any]) -> Kind:
    found = {type(value) for value in values if value is not None}
    if found <= {bool}:
        return "boolean"
    if found <= {int}:
        return "Int64"
    return "Float64" if found <= {int, float} else "string"


def _rows(plan: SweepPlan, run: PlannedRun, folder: SweepFolder) -> Iterator[dict[str, Any]]:
    result, failure = folder.result(run), folder.failure(run)
    if result is None and failure is None:
        return
    row = {
        "run": run.key,
        "group": run.group,
        "role": run.role,
        "strategy": run.experiment.strategy,
        "aggregation": run.experiment.aggregation,
        "seed": run.seed,
        "status": "done" if failure is None else failure.kind,
        "error": None if failure is None else failure.error,
        "noise": run.experiment.privacy.noise,
        "rounds": run.experiment.rounds,
    } | _axes(plan, run)
    if result is None:
        yield row
        return
    at_end = last_round(result)
    for point in dict.fromkeys(leak.point for leak in at_end):
        leaks = [leak for leak in at_end if leak.point == point]
        yield row | _of_run(result) | _of_point(result, leaks)


def _axes(plan: SweepPlan, run: PlannedRun) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns_of(plan):
        if column.name not in run.point or column.name in ("strategy", "aggregation"):
            continue
        if run.role == "nonprivate" and column.name in _PRIVATE_AXES:
            continue
        value = run.point[column.name]
        found[column.name] = value if column.kind != "string" or isinstance(value, str) else json.dumps(value)
    return found


def _of_run(result: Result) -> dict[str, Any]:
    utility, sent = result.utility, result.communication
    example, client = _guarantee(result, "example"), _guarantee(result, "client")
    return {
        "epsilon_example": example.epsilon,
        "delta_example": example.delta,
        "neighbours_example": example.neighbours,
        "epsilon_client": client.epsilon,
        "delta_client": client.delta,
        "neighbours_client": client.neighbours,
        "accuracy": utility.student.accuracy,
        "precision": utility.student.precision,
        "recall": utility.student.recall,
        "f1": utility.student.f1,
        "local_mean_accuracy": utility.local_mean.accuracy,
        "local_best_accuracy": utility.local_best.accuracy,
        "centralized_accuracy": utility.centralized.accuracy,
        "centralized_nonprivate_accuracy": utility.centralized_nonprivate.accuracy,
        "upload_bytes": sent.upload_bytes_per_client.mean,
        "download_bytes": sent.download_bytes_per_client.mean,
        "clients": len(utility.locals),
    }


def _guarantee(result: Result, unit: Literal["example", "client"]) -> GuaranteeRecord:
    """For an example the largest ε over all views, or none as soon as one view has none; for a client the server's."""
    found = [g for g in result.privacy.guarantees if g.unit == unit and (unit == "example" or g.view == "server")]
    return max(found, key=lambda g: float("inf") if g.epsilon is None else g.epsilon)


def _of_point(result: Result, leaks: list[Leakage]) -> dict[str, Any]:
    worst, example = max(leaks, key=lambda leak: leak.auc), _guarantee(result, "example")
    return {
        "point": worst.point,
        "attack": worst.attack,
        "attacks": len(leaks),
        "auc": worst.auc,
        "auc_low": worst.auc_ci[0],
        "auc_high": worst.auc_ci[1],
        "auc_ceiling": None if example.epsilon is None else auc_ceiling(example.epsilon, example.delta),
        "epsilon_lower": max(leak.epsilon_lower for leak in leaks),
        "confidence": worst.confidence,
        "members": worst.members,
        "nonmembers": worst.nonmembers,
    }
