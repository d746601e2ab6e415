"""The page of a sweep: what it says, and how it behaves in a real browser."""

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from securekd.sweep.folder import SweepFolder
from securekd.sweep.page import write_outputs
from securekd.sweep.plan import SweepPlan
from securekd.sweep.summary import settings_of
from securekd.sweep.table import read_table
from tests.securekd.report.reading import Page
from tests.securekd.report.test_browser import CONTRAST, Visit, browser

__all__ = ["browser"]  # a fixture

Sweep = tuple[SweepFolder, SweepPlan]


@pytest.fixture
def read(sweep: Sweep) -> Page:
    return Page(sweep[0].page.read_text(encoding="utf-8"))


def test_it_says_what_was_looked_at_and_what_that_costs(read: Page) -> None:
    assert "8 runs of 12 planned" in read.text
    assert "No bound is given here" in read.text
    assert "no ε is given" not in read.text


def test_what_failed_stands_there_with_its_reason(read: Page) -> None:
    failed = next(t for t in read.tables if t.caption.startswith("What went wrong"))
    assert len(failed.rows) == 1 + 4
    assert all("cannot be met" in row[-1] for row in failed.rows[1:])


def test_every_setting_stands_there_with_links_to_its_reports(sweep: Sweep, read: Page) -> None:
    folder, _ = sweep
    links = {a["href"] for tag, a in read.tags if tag == "a" and "href" in a}
    assert links
    assert all((folder.path / str(link)).is_file() for link in links)
    shown = next(t for t in read.tables if t.caption.startswith("Means over seeds"))
    assert len(shown.rows) == 1 + len(settings_of(read_table(folder.table)))
    marks = {a.get("xlink:href") or a.get("href") for tag, a in read.tags if tag == "a"}
    assert {f"runs/{s.runs[0]}/report.html" for s in settings_of(read_table(folder.table))} <= marks


def test_plots_are_files_too(sweep: Sweep) -> None:
    for name in ("accuracy", "leakage", "bytes"):
        text = (sweep[0].plots / f"{name}.svg").read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert not re.search("#0101[0-9]{2}", text)


def test_marks_at_one_epsilon_stand_side_by_side(sweep: Sweep) -> None:
    text = (sweep[0].plots / "accuracy.svg").read_text(encoding="utf-8")
    intervals = re.findall(r'<g id="setting-(\d+)">\s*<path d="M (\S+) \S+\s+L (\S+) \S+\s+"', text)
    assert all(start == end for _, start, end in intervals)  # upright
    places = {int(group): float(place) for group, place, _ in intervals}
    settings = settings_of(read_table(sweep[0].table))
    known, unknown = ([places[s.group] for s in settings if s.role == role] for role in ("point", "nonprivate"))
    assert len(known) == len(unknown) == 2
    assert 4 < abs(known[0] - known[1]) < min(unknown) - max(known)
    assert abs(unknown[0] - unknown[1]) > 4


def test_the_same_table_gives_the_same_page(sweep: Sweep) -> None:
    folder, plan = sweep
    before = folder.page.read_bytes()
    write_outputs(plan, folder)
    assert folder.page.read_bytes() == before


def test_names_of_a_user_are_escaped(sweep: Sweep, tmp_path: Path) -> None:
    folder = SweepFolder(Path(shutil.copytree(sweep[0].path, tmp_path / "s")))
    plan = sweep[1]
    from securekd.sweep.folder import Failure

    folder.note(plan.runs[0].key, Failure(kind="failed", error="<script>alert(1)</script>"))
    write_outputs(plan, folder)
    text = folder.page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert" in text
    assert text.count("<script>") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_goes_wrong_and_nothing_is_fetched(browser: Any, sweep: Sweep, scheme: str, width: int) -> None:
    address = sweep[0].page.as_uri()
    visit = Visit(browser, address, width, scheme)
    assert visit.troubles == []
    assert [r for r in visit.requests if not r.startswith("data:")] == [address]
    assert visit.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    ratio, text = visit.page.evaluate(CONTRAST)
    assert ratio >= 4.5, text
    visit.page.close()


def visible(page: Any) -> tuple[int, int]:
    """Rows of the table and marks of the first plot that are to be seen."""
    rows = page.evaluate("[...document.querySelectorAll('tr[data-setting]')].filter(r => !r.hidden).length")
    marks = page.evaluate(
        "new Set([...document.querySelectorAll('section[aria-labelledby=accuracy] svg [data-setting]')]"
        ".filter(e => getComputedStyle(e).display !== 'none').map(e => e.dataset.setting)).size"
    )
    return rows, marks


def test_filters_hide_rows_and_marks(browser: Any, sweep: Sweep) -> None:
    visit = Visit(browser, sweep[0].page.as_uri())
    page = visit.page
    assert visible(page) == (4, 4)
    page.uncheck("input[data-filter=strategy][value=fedavg]")
    assert visible(page) == (2, 2)
    page.uncheck("input[data-filter=role][value=nonprivate]")
    assert visible(page) == (1, 1)
    assert page.inner_text("#shown") == "1 of 4 settings shown"
    page.check("input[data-filter=strategy][value=fedavg]")
    page.fill("#most-epsilon", "3")
    assert visible(page) == (0, 0)
    page.fill("#most-epsilon", "")
    page.check("input[data-filter=role][value=nonprivate]")
    page.check("#only-frontier")
    best = sum(s.pareto for s in settings_of(read_table(sweep[0].table)))
    assert visible(page) == (best, best)
    assert visit.troubles == []
    page.close()


def test_a_mark_leads_to_its_runs_report(browser: Any, sweep: Sweep) -> None:
    visit = Visit(browser, sweep[0].page.as_uri())
    with visit.page.expect_popup() as opened:
        visit.page.locator("section[aria-labelledby=accuracy] svg a").last.click()
    assert re.search(r"/runs/run-\d{4}/report\.html$", opened.value.url)
    opened.value.close()
    visit.page.close()
