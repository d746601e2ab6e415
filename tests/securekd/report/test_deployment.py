"""The page of an audit, read as facts: what must be there is there, and what must not be is not."""

import contextlib
import io
from pathlib import Path

import pytest

from securekd.cli.audit_console import summary
from securekd.records.audit_record import AuditRecord
from securekd.report import numbers, render_audit
from securekd.report.deployment import contradictions, sharpest
from tests.securekd.report import audit_records
from tests.securekd.report.reading import Page


@pytest.fixture(scope="module")
def record() -> AuditRecord:
    return audit_records.record()


@pytest.fixture(scope="module")
def page(record: AuditRecord) -> Page:
    return Page(render_audit(record))


def test_figures_stand_with_intervals_counts_and_realised_rates(page: Page, record: AuditRecord) -> None:
    table = page.table("AUC and TPR")
    for each in record.attacks:
        row = table.row(each.attack)
        rate = each.tpr_at_fpr[1]
        assert row[1] == f"{each.auc.value:.3f} {numbers.area_range(each.auc.low, each.auc.high)}"
        assert f"{rate.true_positives} / {rate.members}" in row[3]
        assert f"{rate.false_positives} / {rate.nonmembers}" in row[3]
        assert numbers.percent_range(rate.low, rate.high) in row[3]
        assert row[6] == numbers.epsilon_lower(each.bounds[0].epsilon_lower)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_terminal_prints_the_same_strings_as_the_page(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    found = audit_records.record(shift=shift)
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        summary(found, Path("out"))
    said, page = stream.getvalue(), Page(render_audit(found))
    lines = {line.split("│")[1].strip(): line for line in said.splitlines() if line.count("│") > 3}
    for each in found.attacks:
        cells, row = (
            [cell.strip() for cell in lines[each.attack].split("│")],
            page.table("AUC and TPR").row(each.attack),
        )
        assert cells[2].replace("(", "").replace(")", "") == row[1]
        assert row[2].startswith(cells[3].replace("(", "").replace(")", ""))
        assert cells[6] == row[6]
    assert f"ε ≥ {numbers.epsilon_lower(found.best.epsilon_lower)}" in said
    if shift:
        assert found.blind is not None
        interval = numbers.area_range(found.blind.auc.low, found.blind.auc.high)
        assert f"(AUC {interval})" in said
        assert f"interval {interval}" in page.text


def test_what_cannot_be_resolved_is_withheld_and_says_what_it_takes(page: Page, record: AuditRecord) -> None:
    assert not any(each.tpr_at_fpr[2].resolved for each in record.attacks)
    for each in record.attacks:
        assert page.table("AUC and TPR").row(each.attack)[4] == "withheld: takes 2,995 non-members"
    found = sharpest(record)
    assert found is not None
    assert found[1].fpr == 0.01


def test_the_blind_baseline_and_the_claim(page: Page) -> None:
    assert page.table("AUC and TPR").row("Blind baseline")[1].startswith("0.")
    assert "nothing speaks against it" in page.section("What was audited")
    assert "No leakage is claimed." not in page.text
    shifted = Page(render_audit(audit_records.record(shift=1.0)))
    assert "No leakage is claimed. A classifier that never sees the model" in shifted.text
    unchecked = Page(render_audit(audit_records.canaries()))
    assert "not checked" in unchecked.section("What was audited")
    assert "a difference between them would pass for leakage" in unchecked.section("What these figures do not say")


def test_the_most_exposed_are_named_by_ids_alone(page: Page, record: AuditRecord) -> None:
    rows = page.table("The most exposed members").rows[1:]
    assert [row[1] for row in rows] == [each.record for each in record.most_exposed]
    assert len(rows) == 20
    assert [row[2] for row in rows] == [f"{each.score:.4g}" for each in record.most_exposed]


def test_bounds_carry_their_assumptions(page: Page, record: AuditRecord) -> None:
    said = page.section("Lower bounds on ε, and what they take for granted")
    for each in record.attacks:
        for bound in each.bounds:
            for assumption in bound.assumptions:
                assert " ".join(assumption.split()) in said
    assert "each has 1/" in said
    assert "A low lower bound is not safety." in page.section("In one glance")


def test_what_was_not_possible_is_said(page: Page, record: AuditRecord) -> None:
    said = page.section("What attacks measured")
    assert record.not_possible
    for missing in record.not_possible:
        assert f"{missing.attack}: needs {missing.needs}" in said


def test_limits_are_shown_and_an_exceeded_one_stands_on_top(page: Page) -> None:
    assert "auc at most 0.55: 0.5, kept" in page.section("What was audited")
    assert "Above its limit." not in page.text
    above = Page(render_audit(audit_records.record(exceeded=True)))
    assert above.text.index("Above its limit. auc is 0.7") < above.text.index("In one glance")


def test_exposure_of_canaries() -> None:
    found = audit_records.canaries()
    assert found.exposure is not None
    said = Page(render_audit(found)).section("Planted canaries")
    assert f"{found.exposure.mean:.2f} bits of {found.exposure.ceiling:.2f}" in said
    assert "20 of 20 canaries" in said


def test_figures_that_cannot_go_together_are_called_out(record: AuditRecord) -> None:
    assert contradictions(record) == ()
    first = record.attacks[0]
    broken = first.model_copy(update={"auc": first.auc.model_copy(update={"value": 0.01})})
    assert "contradicts itself (loss)" in contradictions(record.model_copy(update={"attacks": (broken,)}))[0]


def test_the_picture_has_words_and_few_points(page: Page, record: AuditRecord) -> None:
    assert page.pictures[0].startswith("True-positive rate over false-positive rate")
    for each in record.attacks:
        assert len(each.roc.fpr) <= 200
        assert each.roc.fpr[-1] == each.roc.tpr[-1] == 1.0
        assert all(a < b for a, b in zip(each.roc.fpr, each.roc.fpr[1:], strict=False))
        assert all(low <= v <= high for v, low, high in zip(each.roc.tpr, each.roc.low, each.roc.high, strict=True))


def test_the_same_record_gives_the_same_bytes(record: AuditRecord) -> None:
    assert render_audit(record) == render_audit(record)


def test_hostile_names_are_text() -> None:
    name = "<script>alert(1)</script>"
    html = render_audit(audit_records.record(name=name))
    assert name not in html
    assert not [tag for tag, _ in Page(html).tags if tag == "script"]
