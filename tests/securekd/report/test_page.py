"""The page, read as facts: what must be there is there, and what must not be is not."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from securekd.cli import console
from securekd.errors import FolderError, InputError
from securekd.report import numbers, render, write_report
from securekd_attacks import auc_ceiling, ceiling
from tests.securekd.report import records
from tests.securekd.report.reading import Page
from tests.securekd.report.records import Tree

LIMIT = 1_500_000

PRINT_A_PAGE = """
from securekd.report import render
from tests.securekd.report import records
sys.stdout.buffer.write(render(records.result()).encode())
"""


def elsewhere(program: str) -> bytes:
    """What a Python program prints in a process of its own."""
    paths = f"import sys\nsys.path[:] = {sys.path!r}\n"
    return subprocess.run([sys.executable, "-c", paths + program], capture_output=True, check=True).stdout


def page(changed: Tree | None = None) -> Page:
    return Page(render(records.result(changed)))


@pytest.fixture(scope="module")
def default() -> Page:
    return page()


def test_what_was_run(default: Page) -> None:
    said = default.section("What was run")
    for fact in (
        "Federated distillation",
        "pairwise masking: the server sees sums only",
        "Rounds 2",
        "6: 2 × logistic, 2 × mlp, 1 × cnn, 1 × transformers",
        "digits, 10 classes",
        "1,254 private, 400 transfer (public), 359 test",
        "Seed 4",
    ):
        assert fact in said


def test_the_glance(default: Page) -> None:
    said = default.section("In one glance")
    for fact in (
        "92.2%",
        "+21.5 points against the mean client alone (70.7%)",
        "−2.5 points against all data in one place, same DP (94.7%)",
        "Proven ε for one example 8.00",
        "At δ = 1e-5, in every view: moderate",
        "ε = 108,636 at δ = 1e-5, no meaningful protection",
        "Strongest attack’s AUC 0.579",
        "0.542–0.614",
        "A client’s own model, loss attack: the largest of 8 measured",
        "Share the student, not the record.",
    ):
        assert fact in said


def test_the_guarantee_by_view(default: Page) -> None:
    said = default.section("What is proven, and against whom")
    server, clients, public = (said.index(name) for name in ("The server", "The clients", "The public"))
    assert "Server sees: only sums of at least 4 of 6 clients' noised releases, in each of 2 rounds" in said
    for view in (said[server:clients], said[clients:public], said[public:]):
        assert "ε = 8.00 moderate at δ = 1e-5, neighbouring relation add/remove" in view
        assert "no meaningful protection at δ = 1e-5, neighbouring relation zero-out" in view
    assert "ε = 108,636" in said[server:clients]
    assert "ε = 81,705" in said[public:]
    assert "Measured for this view: AUC 0.517 (0.480–0.552), loss attack on the aggregate" in said[server:clients]
    assert "loss attack on the student" in said[public:]


def test_with_plain_sums_the_server_is_measured_at_the_release() -> None:
    changed = records.tree()
    changed["experiment"]["aggregation"] = "plain"
    said = page(changed).section("What is proven, and against whom")
    assert "loss attack on a client’s release" in said[: said.index("The clients")]
    assert "the server sees every client’s release" in page(changed).section("What was run")


def test_utility(default: Page) -> None:
    table = default.table("The student and its baselines")
    assert table.row("Student") == ["Student", "92.2%", "92.6%", "91.9%", "91.6%"]
    assert [row[:2] for row in table.rows[2:]] == [
        ["Clients alone, mean", "70.7%"],
        ["Clients alone, best", "76.3%"],
        ["All data in one place, same DP", "94.7%"],
        ["All data in one place, no privacy", "97.8%"],
    ]
    alone = default.table("Each client with its own data")
    assert alone.row("client-04") == ["client-04", "transformers", "206", "66.0%", "66.4%", "65.7%", "65.4%"]
    assert len(alone.rows) == 7
    rounds = default.table("What each round did")
    assert rounds.row("2") == ["2", "92.2%", "79.8%", "5", "client-03", "83.3%", "0", "17"]


def test_leakage(default: Page) -> None:
    table = default.table("True-positive rate")
    assert table.row("loss", after="A client’s own model") == [
        "loss",
        "0.579 0.542–0.614",
        "11.8% 9.8–13.9%",
        "1.2% 0.6–2.2%",
        "withheld: too few non-members",
        "1,038 / 359",
        "0.09 95% confidence",
    ]
    assert table.row("entropy", after="The student")[1] == "0.515 0.479–0.551"
    assert table.row("Guessing")[1:5] == ["0.500", "10.0%", "1.0%", "0.1%"]
    assert table.row("Allowed by ε = 8.00")[1:5] == ["0.9997", "100.0%", "100.0%", "100.0%"]
    groups = [row[0] for row in table.rows if "seen by" in row[0]]
    assert groups == [
        "A client’s own model seen by the client itself, and whoever takes its model",
        "A client’s release seen by the client alone: the server gets sums",
        "The aggregate seen by the server, and in the next round the clients",
        "The student seen by everybody to whom the student is given",
    ]
    assert "A low lower bound is not safety." in default.section("What attacks measured")
    assert "belong to δ = 1e-5" in default.section("What attacks measured")


def test_the_ceiling_is_what_epsilon_allows() -> None:
    changed = records.tree()
    for x in changed["leakage"]:
        x["epsilon"] = 0.7
    row = page(changed).table("True-positive rate").row("Allowed by ε = 0.70")
    assert float(row[1]) == pytest.approx(auc_ceiling(0.7, 1e-5), abs=1e-4)
    for shown, fpr in zip(row[2:5], (0.1, 0.01, 0.001), strict=True):
        assert float(shown[:-1]) / 100 == pytest.approx(ceiling(0.7, 1e-5, fpr), abs=1.1e-3)
        assert float(shown[:-1]) / 100 >= ceiling(0.7, 1e-5, fpr)


def test_ceilings_that_differ_stand_at_their_points() -> None:
    changed = records.tree()
    for x in changed["leakage"]:
        x["epsilon"] = 1.0 if x["point"] == "student" else 3.0
    table = page(changed).table("True-positive rate")
    assert table.row("Allowed by ε = 1.00", after="The student")[1] == "0.7311"
    assert sum(row[0] == "Allowed by ε = 3.00" for row in table.rows) == 3


def test_an_unresolved_rate_is_printed_nowhere() -> None:
    changed = records.tree()
    for x in changed["leakage"]:
        x["tpr_at_fpr"]["0.001"] |= {"value": 0.4321, "low": 0.4011, "high": 0.4777}
    found = page(changed)
    printed = " ".join([found.text, *found.pictures])
    assert not any(figure in printed for figure in ("43.2", "0.432", "40.1", "47.8"))
    changed["leakage"][0]["tpr_at_fpr"]["0.001"]["resolved"] = True
    assert "43.2%" in render(records.result(changed))


def test_holdings(default: Page) -> None:
    table = default.table("Private examples by client and class")
    assert table.rows[0] == ["Client", *records.CLASSES, "All"]
    assert table.row("client-02") == ["client-02", *map(str, records.tree()["data"]["counts"][1]), "209"]


def test_costs(default: Page) -> None:
    per_client = default.table("Bytes of one client")
    assert per_client.row("Upload") == ["Upload", "68.3 KiB", "68.3 KiB"]
    assert per_client.row("Download") == ["Download", "62.2 KiB", "62.2 KiB"]
    assert per_client.rows[-1] == ["FedAvg’s upload, for comparison", "616.7 KiB", "1.5 MiB"]
    assert "9.0 times less than FedAvg" in default.section("What it cost")
    assert default.table("Bytes by phase").row("masked input") == ["masked input", "378.3 KiB", "3.6 KiB"]
    assert default.table("Time by phase").row("audit") == ["audit", "1 min 15 s"]
    assert "23.8 s on the clock; largest process 617.3 MiB" in default.section("What it cost")


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        ({"closed_form": 4, "hooks": 2}, "computed once, for 4 of 6 clients, and example by example, through hooks"),
        ({"closed_form": 6}, "in closed form, on features computed once, for every client."),
        ({"hooks": 6}, "computed example by example, through hooks in the model, for every client."),
        ({}, None),
        (None, None),
    ],
)
def test_how_gradients_were_computed(ways: dict[str, int] | None, said: str | None) -> None:
    changed = records.tree()
    for one in changed["rounds"]:
        one.pop("gradients")  # as in records from before there was this key
        if ways is not None:
            one["gradients"] = ways
    section = page(changed).section("What it cost")
    assert said in section if said else "Clipped gradients" not in section


def test_more_bytes_than_fedavg_are_admitted() -> None:
    changed = records.tree()
    changed["communication"]["fedavg_bytes_per_client"] = {"mean": 34984.0, "max": 40000}
    assert "2.0 times as much as FedAvg" in page(changed).section("What it cost")


def test_environment_and_configuration(default: Page) -> None:
    said = default.section("How to repeat it")
    for fact in ("2.13.0+cpu", "Linux-6.1-x86_64-with-glibc2.36", 'strategy = "distil"', "sampling_rate = 0.25"):
        assert fact in said
    assert sum(tag == "details" for tag, _ in default.tags) == 2
    assert not any(tag == "details" and "open" in attrs for tag, attrs in default.tags)


def test_no_epsilon() -> None:
    found = page(records.without_epsilon())
    said = found.section("What is proven, and against whom")
    assert said.count("No ε is given: the clients train without DP-SGD.") == 3
    assert said.count("No ε is given: the releases carry no noise.") == 3
    assert "Proven ε for one example none" in found.section("In one glance")
    assert "no DP here" in found.section("How good the student is")
    assert not any(row[0].startswith("Allowed by") for row in found.table("True-positive rate").rows)
    assert "there is no ceiling" in found.section("What attacks measured")


def test_one_view_without_epsilon_leaves_none_for_all() -> None:
    changed = records.tree()
    changed["privacy"]["guarantees"][1] |= {"epsilon": None, "neighbours": None, "why": "shuffled"}
    assert "Proven ε for one example none" in page(changed).section("In one glance")


def test_seeded_noise_is_announced_and_voids_every_epsilon() -> None:
    found = page(records.seeded())
    assert any(attrs.get("role") == "alert" for _, attrs in found.tags)
    assert found.text.index("Nothing is protected in this run.") < found.text.index("In one glance")
    assert "Proven ε for one example none" in found.section("In one glance")
    said = found.section("What is proven, and against whom")
    assert said.count("no guarantee") == 6
    assert not any(row[0].startswith("Allowed by") for row in found.table("True-positive rate").rows)


def test_a_run_that_holds_its_promise_raises_no_alarm(default: Page) -> None:
    assert not any(attrs.get("role") == "alert" for _, attrs in default.tags)


def test_a_leak_above_epsilon_raises_an_alarm() -> None:
    changed = records.tree()
    changed["leakage"][7]["epsilon_lower"] = 8.519
    found = page(changed)
    assert "More was found than was promised (entropy, the student): the attack shows ε ≥ 8.51" in found.text
    assert found.text.index("More was found") < found.text.index("In one glance")


def test_figures_that_contradict_each_other_raise_an_alarm() -> None:
    changed = records.tree()
    changed["leakage"][0]["tpr_at_fpr"]["0.01"] |= {"value": 0.9, "high": 0.95}
    assert "The record contradicts itself (loss, a client’s own model)" in page(changed).text


def test_foreign_nonmembers_are_pointed_out(default: Page) -> None:
    changed = records.tree()
    for leak in changed["leakage"]:
        leak["comparable"] = False
        leak["epsilon_lower"] = 99.0
    text = page(changed).text
    assert "Non-members are not drawn as members are" in text
    assert "More was found than was promised" not in text
    assert "are not drawn as members" not in default.text


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"><img src=https://evil.example/x onerror=alert(1)>',
        "</style><script>1</script>",
        "]]>&lt;{{ 7*7 }}{% raw %}",
        "$x^2$ #010101 url(#p1)",
        "\x00\x0b\x1b[31m\u202eevil",
        "北京 🏥 العربية",
        "x" * 5000,
    ],
)
def test_hostile_names_come_out_as_text(name: str) -> None:
    html = render(records.result(records.hostile(name)))
    found = Page(html)
    allowed = {tag for tag, _ in Page(render(records.result())).tags}
    assert {tag for tag, _ in found.tags} <= allowed
    assert not [a for _, attrs in found.tags for a in attrs if a.startswith("on")]
    assert found.loads() == []
    shown = "".join(c if c.isprintable() else "�" for c in name)
    expected = shown if len(name) <= 60 else shown[:59] + "…"
    assert found.table("Each client with").rows[1][0] == " ".join(expected.split())
    assert len(html) < LIMIT


def test_the_page_loads_nothing_and_runs_nothing(default: Page) -> None:
    html = render(records.result())
    assert default.loads() == []
    assert not any(tag == "script" for tag, _ in default.tags)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    policy = next(a["content"] for tag, a in default.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("changed", [records.tree, records.large], ids=["default", "large"])
def test_size(changed: Callable[[], Tree]) -> None:
    html = render(records.result(changed()))
    assert len(html.encode()) < LIMIT


def test_what_a_large_run_leaves_out_is_said() -> None:
    found = page(records.large())
    assert len(found.table("Private examples by client and class").rows) == 51
    assert found.text.count("The first 50 of 1,000 clients") == 2
    header, row = found.table("Private examples by client and class").rows[:2]
    assert header[-2:] == ["85 others", "All"]
    assert sum(map(int, row[1:-1])) == int(row[-1].replace(",", "")) == sum((3 * c) % 23 for c in range(100))
    assert "and 297 more" in found.text


def test_the_same_record_gives_the_same_bytes() -> None:
    first = render(records.result())
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert render(records.result()) == first
    assert elsewhere(PRINT_A_PAGE).decode() == first


def test_ids_are_unique_and_references_resolve(default: Page) -> None:
    ids = [attrs["id"] for _, attrs in default.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    html = render(records.result())
    pointed = {attrs.get("aria-labelledby") for _, attrs in default.tags} - {None}
    pointed |= {attrs["href"][1:] for _, attrs in default.tags if (attrs.get("href") or "").startswith("#")}
    pointed |= {part.split(")")[0] for part in html.split("url(#")[1:]}
    assert pointed
    assert pointed <= set(ids)


def test_headings_are_in_order_and_tables_are_labelled(default: Page) -> None:
    levels = [level for level, _ in default.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(default.tables) == 8
    assert all(table.caption and table.rows[0][0] for table in default.tables)
    assert all("scope" in attrs for tag, attrs in default.tags if tag == "th")


def test_pictures_have_words_and_take_the_colours_of_the_page(default: Page) -> None:
    utility, rounds, leakage, holdings = default.pictures
    assert "Student 92.2%" in utility
    assert "round 2: student 92.2%, mean client 79.8%" in rounds
    assert "A client’s own model: loss 0.579 (0.542–0.614)" in leakage
    assert "at most 0.9997 allowed" in leakage
    assert "6 clients with 206 to 212 examples" in holdings
    html = render(records.result())
    assert "#0101" not in html
    assert "currentColor" in html
    assert all(f"var(--{name})" in html for name in ("accent", "second", "quiet", "muted", "rule"))


def test_a_single_round_has_no_line() -> None:
    changed = records.tree()
    changed["rounds"] = changed["rounds"][:1]
    changed["communication"]["rounds"] = 1
    found = page(changed)
    assert len(found.pictures) == 3
    assert "over 1 round " in found.text


def test_no_attack_is_said() -> None:
    changed = records.tree()
    changed["leakage"] = []
    found = page(changed)
    assert "No attack was made" in found.text
    assert "not measured" in found.section("In one glance")


def test_a_record_with_settings_of_another_version_still_has_a_page() -> None:
    changed = records.tree()
    changed["experiment"] = {"strategy": "mutual", "novel": {"thing": 3, "unset": None}}
    found = page(changed)
    assert "mutual" in found.section("What was run")
    assert "thing = 3" in found.text


def test_write_report_reads_the_folder_and_replaces_the_page(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(records.result().to_json())
    (tmp_path / "report.html").write_text("old")
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == render(records.result())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "result.json"]


def test_write_report_refuses_a_folder_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no finished run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=rf"needs {missing}; pip install 'securekd\[report\]'"):
        render(records.result())


def test_importing_the_package_loads_neither_jinja2_nor_matplotlib() -> None:
    elsewhere("import securekd.report\nassert not {'jinja2', 'matplotlib', 'torch'} & set(sys.modules)")


def test_every_point_after_every_round() -> None:
    shown = page(records.observed())
    table = shown.table("AUC at each point after each round")
    assert table.row("Release, unclipped") == ["Release, unclipped", "loss", "0.561", "0.571"]
    assert table.row("Aggregate less colluders")[2:] == ["0.521", "0.531"]
    assert "the largest of 10 measured" in shown.section("In one glance")
    groups = [row[0].split(" seen by")[0] for row in shown.table("True-positive rate").rows if "seen by" in row[0]]
    assert groups == [
        "A client’s own model", "Release, unclipped", "A client’s release", "The aggregate",
        "Aggregate less colluders", "The student",
    ]  # fmt: skip


def test_canaries_beside_epsilon() -> None:
    shown = page(records.observed())
    assert "60 records of the clients’ own, 20 of them in training" in shown.section("What attacks measured")
    row = shown.table("What the coins’ outcome gives away").row("natural", after="The student")
    assert row[2:] == ["2", "0.640 0.470–0.790", "11 of 15 30 coins", "0.12 of at most 0.81", "8.00"]


def test_replayed_releases_beside_epsilon() -> None:
    table = page(records.observed()).table("The best test on replayed releases")
    assert table.row("2", after="Aggregate less colluders")[1:] == [
        "0.760 0.750–0.770",
        "0.760",
        "1.2% promised 9.2%",
        "1.41",
        "4.71 of at most 40.20",
        "5.52",
    ]
    assert table.row("2", after="A client’s release")[5:] == ["–", "none"]


def test_without_them_nothing_is_said_of_canaries_or_replays(default: Page) -> None:
    said = default.section("What attacks measured")
    for absent in ("Canaries", "played again", "From round to round", "Bonferroni"):
        assert absent not in said


@pytest.mark.parametrize(
    ("part", "where"),
    [("canaries", "loss, natural canaries, the student"), ("replays", "replayed releases, the aggregate")],
)
def test_a_bound_above_epsilon_heads_the_page(part: str, where: str) -> None:
    changed = records.observed()
    found = changed["canaries"]["bounds"][3] if part == "canaries" else changed["replays"][1]
    found["epsilon"] = 0.1 if part == "canaries" else 3.9
    assert f"More was found than was promised ({where})" in page(changed).text
    assert "More was found" not in page(records.observed()).text


def test_the_terminal_prints_the_same_intervals_and_bounds_as_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    result, stream = records.result(records.observed()), io.StringIO()
    with contextlib.redirect_stdout(stream):
        console.summary(result, Path("out"))
    said, shown = stream.getvalue(), Page(render(result)).text
    last = [leak for leak in result.leakage if leak.round in (None, result.communication.rounds)]
    intervals = [numbers.area_range(*leak.auc_ci) for leak in last]
    bounds = [numbers.epsilon(g.epsilon) for g in result.privacy.guarantees if g.epsilon is not None]
    bounds += [numbers.epsilon_lower(r.epsilon_lower) for r in result.replays if r.round == result.communication.rounds]
    assert intervals
    assert bounds
    for each in (*intervals, *bounds):
        assert each in said
        assert each in shown
