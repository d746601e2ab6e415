"""The page in a real browser: light, dark, on a phone and on paper."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from securekd.report import render, render_audit
from tests.securekd.report import audit_records, records

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CONTRAST = """() => {
  const parse = c => c.match(/[0-9.]+/g).map(Number);
  const light = c => { const [r, g, b] = parse(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b; };
  const ground = e => { for (; e; e = e.parentElement) { const b = parse(getComputedStyle(e).backgroundColor);
    if (b.length < 4 || b[3] > 0) return getComputedStyle(e).backgroundColor; } return "rgb(255,255,255)"; };
  const worst = [];
  const seen = "h1, h2, h3, h4, p, dd, dt, li, th, td:not(.heat), small, .tag, caption, figcaption, svg text";
  for (const e of document.querySelectorAll(seen)) {
    const style = getComputedStyle(e);
    const a = light(e.closest("svg") && style.fill !== "none" ? style.fill : style.color), b = light(ground(e));
    worst.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.slice(0, 40)]);
  }
  return worst.sort((x, y) => x[0] - y[0])[0];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next((found for name in NAMES if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no Chromium on this machine (none of {', '.join(NAMES)} in PATH)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module", params=["run", "audit"])
def address(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    path: Path = tmp_path_factory.mktemp("page") / f"{request.param}.html"
    page = (
        render(records.result(records.observed())) if request.param == "run" else render_audit(audit_records.record())
    )
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


class Visit:
    """One page in one setting, with everything that went wrong on it."""

    def __init__(self, browser: Any, address: str, width: int = 1200, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.troubles.append(m.text))
        self.page.on("pageerror", lambda e: self.troubles.append(str(e)))
        self.page.on("requestfailed", lambda r: self.troubles.append(r.url))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(address)
        self.page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_goes_wrong_and_nothing_is_fetched(browser: Any, address: str, scheme: str, width: int) -> None:
    visit = Visit(browser, address, width, scheme)
    assert visit.troubles == []
    assert [r for r in visit.requests if not r.startswith("data:")] == [address]
    overflow = visit.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    ratio, text = visit.page.evaluate(CONTRAST)
    assert ratio >= 4.5, text
    visit.page.close()


@pytest.mark.parametrize("name", ["x" * 5000, "<script>alert(1)</script>"])
def test_hostile_names_neither_run_nor_widen_a_phone(browser: Any, tmp_path: Path, name: str) -> None:
    pages = (render(records.result(records.hostile(name))), render_audit(audit_records.record(name=name)))
    for number, page in enumerate(pages):
        path = tmp_path / f"{number}.html"
        path.write_text(page, encoding="utf-8")
        visit = Visit(browser, path.as_uri(), 390)
        assert visit.troubles == []
        assert visit.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        visit.page.close()


def test_pictures_change_their_ink_with_the_scheme(browser: Any, address: str) -> None:
    inks = []
    for scheme in ("light", "dark"):
        visit = Visit(browser, address, scheme=scheme)
        inks.append(visit.page.evaluate("getComputedStyle(document.querySelector('svg.plot text')).fill"))
        visit.page.close()
    assert inks[0] != inks[1]


def test_lettering_of_the_pictures_can_be_read_on_a_phone(browser: Any, address: str) -> None:
    visit = Visit(browser, address, 390)
    sizes = visit.page.evaluate(
        "[...document.querySelectorAll('svg.plot text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 8
    visit.page.close()


@pytest.mark.parametrize(
    "page",
    [
        lambda: render(records.result(records.tree())),
        lambda: render(records.result(records.large())),
        lambda: render_audit(audit_records.record(shift=1.0, exceeded=True)),
    ],
    ids=["default", "large", "audit"],
)
def test_paper_has_light_colours_and_cuts_nothing_off(browser: Any, tmp_path: Path, page: Callable[[], str]) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(), encoding="utf-8")
    visit = Visit(browser, path.as_uri(), 720, "dark")
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visit.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    visit.page.close()
