"""The table, what is made of it, and the frontier."""

import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import ttest_1samp

from securekd.errors import FolderError, RunError, SettingError
from securekd.records.record import POINTS
from securekd.report.audit import points
from securekd.sweep.folder import SweepFolder
from securekd.sweep.frontier import frontier
from securekd.sweep.plan import SweepPlan
from securekd.sweep.summary import Estimate, Setting, estimate, settings_of, unit_of
from securekd.sweep.table import columns_of, read_table, table_of

Sweep = tuple[SweepFolder, SweepPlan]


def test_there_is_a_row_for_each_run_and_observation_point(sweep: Sweep) -> None:
    folder, plan = sweep
    frame = pd.read_parquet(folder.table)
    done = frame[frame["status"] == "done"]
    assert sorted(done.groupby("run")["point"].apply(tuple).unique().tolist()) == [POINTS]
    assert done["run"].nunique() == 8
    refused = frame[frame["status"] == "refused"]
    assert (refused["run"].is_unique, len(refused)) == (True, 4)
    assert refused["error"].str.contains("cannot be met").all()
    assert set(frame["run"]) == {run.key for run in plan.runs}


def test_every_column_says_what_it_means(sweep: Sweep) -> None:
    folder, plan = sweep
    schema = pq.read_schema(folder.table)
    assert schema.names == [c.name for c in columns_of(plan)]
    assert all(field.metadata[b"meaning"] for field in schema)
    assert "privacy.epsilon" in schema.names


def test_rows_say_what_the_records_say(sweep: Sweep) -> None:
    folder, plan = sweep
    frame = read_table(folder.table)
    assert frame.equals(table_of(plan, folder))
    for run in plan.runs:
        result = folder.result(run)
        if result is None:
            continue
        rows = frame[frame["run"] == run.key].set_index("point")
        assert set(rows["accuracy"]) == {result.utility.student.accuracy}
        assert set(rows["centralized_accuracy"]) == {result.utility.centralized.accuracy}
        assert set(rows["upload_bytes"]) == {result.communication.upload_bytes_per_client.mean}
        proven = {g.epsilon for g in result.privacy.guarantees if g.unit == "example"}
        for shown in points(result):
            row = rows.loc[shown.point]
            assert row["auc"] == max(a.found.auc for a in shown.attacks)
            if run.role == "nonprivate":
                assert pd.isna(row["epsilon_example"])
                assert pd.isna(row["auc_ceiling"])
                assert pd.isna(row["privacy.epsilon"])
            else:
                assert {row["epsilon_example"]} == proven
                assert shown.ceiling is not None
                assert row["auc_ceiling"] == shown.ceiling.auc


def test_other_files_are_no_tables(tmp_path) -> None:
    with pytest.raises(FolderError, match="no table of a sweep"):
        read_table(tmp_path / "sweep.parquet")
    pd.DataFrame({"run": ["a"]}).to_parquet(tmp_path / "sweep.parquet")
    with pytest.raises(FolderError, match="no column 'group'"):
        read_table(tmp_path / "sweep.parquet")


def test_an_interval_is_students() -> None:
    values = [0.90, 0.92, 0.97]
    found = estimate(values)
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert estimate([0.5]) == Estimate(0.5, 0.5, 0.5, 1)


def test_seeds_are_put_together(sweep: Sweep) -> None:
    folder, plan = sweep
    found = settings_of(read_table(folder.table))
    assert [(s.strategy, s.role, len(s.runs)) for s in found] == [
        ("distil", "nonprivate", 2), ("fedavg", "nonprivate", 2), ("distil", "point", 2), ("fedavg", "point", 2),
    ]  # fmt: skip
    by_key = {run.key: run for run in plan.runs}
    for s in found:
        results = [folder.result(by_key[key]) for key in s.runs]
        assert s.accuracy.mean == pytest.approx(sum(r.utility.student.accuracy for r in results) / 2)
        assert (s.epsilon["example"] is None) == (s.role == "nonprivate")
    assert unit_of(found) == "example"


def made(group: int, epsilon: float | None, accuracy: float) -> dict[str, object]:
    return {
        "run": f"run-{group:04}", "group": group, "role": "point", "strategy": "distil", "aggregation": "masking",
        "seed": 0, "status": "done", "epsilon_example": epsilon, "epsilon_client": None, "accuracy": accuracy,
        "centralized_accuracy": 0.9, "auc": 0.5, "auc_ceiling": 0.7, "upload_bytes": 10.0, "point": "student",
    }  # fmt: skip


def settings(*figures: tuple[float | None, float]) -> tuple[Setting, ...]:
    rows = [made(i, epsilon, accuracy) for i, (epsilon, accuracy) in enumerate(figures, start=1)]
    frame = pd.DataFrame(rows).astype({"epsilon_example": "Float64", "epsilon_client": "Float64"})
    return settings_of(frame)


def test_the_pareto_set_is_what_nothing_beats() -> None:
    found = settings((1.0, 0.7), (2.0, 0.6), (2.0, 0.8), (4.0, 0.8), (None, 0.95), (None, 0.9), (8.0, 0.94))
    assert [s.group for s in found if s.pareto] == [1, 3, 5, 7]


def test_the_frontier_is_sorted_by_what_was_not_asked_for() -> None:
    found = settings((1.0, 0.7), (2.0, 0.9), (4.0, 0.85), (None, 0.95))
    assert [s.group for s in frontier(found, "example", min_accuracy=0.8)] == [2, 3, 4]
    assert [s.group for s in frontier(found, "example", max_epsilon=4.0)] == [2, 3, 1]
    assert [s.group for s in frontier(found, "example", max_epsilon=3.0, min_accuracy=0.6)] == [1, 2]


def test_a_frontier_that_nothing_reaches_names_the_nearest() -> None:
    found = settings((1.0, 0.7), (2.0, 0.9))
    with pytest.raises(RunError, match=r"the best, distil, masking \(group 2\), has 0\.900"):
        frontier(found, "example", min_accuracy=0.99)
    with pytest.raises(RunError, match="the lowest is 1"):
        frontier(found, "example", max_epsilon=0.5)
    with pytest.raises(RunError, match="the lowest is inf"):
        frontier(found, "client", max_epsilon=0.5)
    with pytest.raises(SettingError, match="--min-accuracy"):
        frontier(found, "example")
