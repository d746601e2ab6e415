"""Every ε of a run, computed a second time from its `ledger.json` by formulas that share no code with the package.

The formulas stand in `formulas.py`, which reads the ledger as plain JSON. Of securekd, only the run itself, the command
`securekd account` and (for the small cases) the accountant under test appear here.
"""

import ast
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, skellam

from securekd.cli.command import main
from securekd.laboratory.runner import run
from securekd.privacy.accountant import compose_epsilon
from securekd.privacy.events import DiscreteGaussianEvent, SkellamEvent
from tests.securekd.conftest import small
from tests.securekd.privacy import formulas

CLIENTS, COLLUDERS, DROPOUTS, ROUNDS = 4, 1, 1, 3
ROWS, CLASSES, CLIP = 24, 10, 2.0
DELTA = 1e-5
# Law, neighbouring relation with its factor, encoding step, client ε. Steps are coarse, so that the rounding's share of
# the sensitivity and Skellam's own term are well above the tolerance: leaving one out fails the tests.
VARIANTS = {
    "skellam": ("zero_out", 1.0, 1.0, 30.0),
    "discrete_gaussian": ("replace_one", 2.0, 0.5, 12.0),
}


def settings(law: str) -> dict[str, Any]:
    relation, _, step, client_epsilon = VARIANTS[law]
    return {
        "rounds": ROUNDS,
        "clients": {"count": CLIENTS, "models": ["logistic"]},
        "data": {"transfer": ROWS, "test": 60, "private": 200, "partition": {"kind": "quantity"}},
        "training": {"epochs": 6, "sampling_rate": 0.5, "digest_epochs": 1},
        "privacy": {
            "noise": "os",
            "epsilon": 3.0,
            "delta": DELTA,
            "client_epsilon": client_epsilon,
            "client_delta": DELTA,
            "client_neighbours": relation,
            "neighbours": "zero_out",
        },
        "release": {"mechanism": law, "clip": CLIP, "step": step, "weight_cap": 60},
        "cohort": {"dropouts": DROPOUTS, "colluders": COLLUDERS},
        "student": {"consensus": "weighted", "epochs": 1},
    }


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run with DP-SGD, three rounds of weighted releases and a dropout in each; tests only read it."""
    folder = tmp_path_factory.mktemp("recomputed") / request.param
    run(small(**settings(request.param)), folder)
    return request.param, folder


def entries_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "ledger.json").read_text())["entries"]


def accounted(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What `securekd account FOLDER --json` says, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "securekd", "account", str(folder), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {(g["view"], g["unit"]): g for g in json.loads(done.stdout)}


def by_client(entries: list[dict[str, Any]], unit: str, view: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry["unit"] == unit and view in entry["views"]:
            found.setdefault(entry["client"], []).append(entry["event"])
    return found


def example_bracket(entries: list[dict[str, Any]], view: str) -> tuple[float, float]:
    brackets = [
        formulas.subsampled_gaussian_bracket(runs, DELTA)
        for runs in {
            tuple((e["sampling_rate"], e["noise_multiplier"], e["steps"]) for e in events)
            for events in by_client(entries, "example", view).values()
        }
    ]
    return max(low for low, _ in brackets), max(high for _, high in brackets)


def test_the_formulas_share_no_code_with_the_package() -> None:
    tree = ast.parse(Path(formulas.__file__).read_text())
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= {"functools", "math", "numpy", "scipy"}


def test_the_formulas_meet_known_values() -> None:
    # Balle and Wang 2018, theorem 8, at μ = 1; and one subsampled step in closed form, addition and removal apart.
    low, high = formulas.subsampled_gaussian_bracket(((1.0, 1.0, 1),), DELTA)
    assert low <= 4.37718 <= high
    q, sigma = 0.2, 0.9
    low, high = formulas.subsampled_gaussian_bracket(((q, sigma, 1),), DELTA)
    for epsilon, above in ((low - 1e-4, True), (high + 1e-4, False)):
        x = sigma**2 * math.log((math.exp(epsilon) - 1 + q) / q) + 0.5
        removal = (1 - q - math.exp(epsilon)) * norm.sf(x / sigma) + q * norm.sf((x - 1) / sigma)
        assert bool(removal > DELTA) is above  # removal is the larger direction here


def test_what_examples_lose_is_recomputed(finished: tuple[str, Path]) -> None:
    _, folder = finished
    entries, said = entries_of(folder), accounted(folder)
    for view in ("server", "clients", "public"):
        low, high = example_bracket(entries, view)
        assert high - low < 1e-3  # what the numerical method itself leaves open
        guarantee = said[view, "example"]
        assert low - 1e-3 <= guarantee["epsilon"] <= high + 1e-3
        assert (guarantee["neighbours"], guarantee["delta"], guarantee["events"]) == (
            "zero_out",
            DELTA,
            CLIENTS * ROUNDS,
        )
        assert guarantee["epsilon"] <= 3.0


def test_what_clients_lose_is_recomputed(finished: tuple[str, Path]) -> None:
    law, folder = finished
    entries, said = entries_of(folder), accounted(folder)
    for view in ("server", "clients", "public"):
        events = by_client(entries, "client", view)
        assert {len(e) for e in events.values()} == {ROUNDS}
        expected = max(formulas.client_epsilon(e, DELTA) for e in events.values())
        assert said[view, "client"]["epsilon"] == pytest.approx(expected, rel=1e-3)
        assert said[view, "client"]["neighbours"] == VARIANTS[law][0]
    # The smallest noise for the target in the server's view: it meets it, and a thousandth less would not.
    target = VARIANTS[law][3]
    assert said["server", "client"]["epsilon"] <= target
    less = [e | {"sigma": e["sigma"] * 0.999} for e in by_client(entries, "client", "server")["client-01"]]
    assert formulas.client_epsilon(less, DELTA) > target


def test_the_events_say_what_the_configuration_asked_for(finished: tuple[str, Path]) -> None:
    law, folder = finished
    relation, factor, step, _ = VARIANTS[law]
    entries = entries_of(folder)
    record = json.loads((folder / "result.json").read_text())
    names = [f"client-{i:02}" for i in range(1, CLIENTS + 1)]
    assert [record["rounds"][r]["survivors"] for r in range(ROUNDS)] == [CLIENTS - DROPOUTS] * ROUNDS
    assert len({sum(row) for row in record["data"]["counts"]}) > 1  # weights differ
    # Training: 6 passes at rate 1/2 are 12 steps, 4 in each of 3 rounds.
    trained = [e for e in entries if e["unit"] == "example"]
    assert sorted((e["client"], e["round"]) for e in trained) == sorted(
        (n, r + 1) for n in names for r in range(ROUNDS)
    )
    for entry in trained:
        assert set(entry["views"]) == {"server", "clients", "public"}
        assert entry["event"] == {
            "kind": "dp_sgd",
            "sampling_rate": 0.5,
            "noise_multiplier": record["privacy"]["dp_sgd_noise_multiplier"],
            "steps": 4,
        }
    # Releases: one for each client, round and view, dropped or not.
    threshold = formulas.smallest_threshold(CLIENTS, COLLUDERS)
    unknown = {"server": threshold - COLLUDERS, "clients": threshold - COLLUDERS, "public": threshold - COLLUDERS}
    dimension, l2, l1 = formulas.weighted_release(ROWS, CLASSES, CLIP, step)
    released = [e for e in entries if e["unit"] == "client"]
    assert sorted((e["client"], e["round"], *e["views"]) for e in released) == sorted(
        (n, r + 1, v) for n in names for r in range(ROUNDS) for v in unknown
    )
    for entry in released:
        event = entry["event"]
        assert (event["kind"], entry["neighbours"], entry["phase"]) == (law, relation, "release")
        assert event["shares"] == unknown[entry["views"][0]]
        assert event["dimension"] == dimension
        assert event["l2"] == pytest.approx(factor * l2, rel=1e-12)
        assert event["l1"] == pytest.approx(factor * l1, rel=1e-12)
        assert event["sigma"] == pytest.approx(record["privacy"]["release_noise"] / step, rel=1e-12)
        assert event["sampling_rate"] == 1.0
        # The set-aside millionth of δ covers the sampler, at any ε that is stated here.
        lost = ROUNDS * event["shares"] * dimension * event["total_variation"]
        assert lost * (1 + math.exp(VARIANTS[law][3])) < 1e-6 * DELTA


def test_leaving_a_term_out_would_be_seen(finished: tuple[str, Path]) -> None:
    """The tolerance is tight enough: without rounding, the Skellam term or a share, the figures differ by more."""
    law, folder = finished
    events = by_client(entries_of(folder), "client", "server")["client-01"]
    right = formulas.client_epsilon(events, DELTA)
    unrounded = math.sqrt(ROWS + 1) * CLIP / VARIANTS[law][2] * VARIANTS[law][1]
    wrong = [{"l2": unrounded}, {"shares": events[0]["shares"] + 1}]
    if law == "skellam":
        wrong.append({"kind": "discrete_gaussian"})  # whose divergence is Skellam's first term alone
    for change in wrong:
        assert formulas.client_epsilon([e | change for e in events], DELTA) < right * (1 - 2e-3)


# ---- The command on folders that were tampered with ----


def account(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["securekd", "account", str(folder)])
    code = 0
    try:
        main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


Tree = dict[str, Any]


def halved(record: Tree) -> None:
    record["privacy"]["guarantees"][0]["epsilon"] /= 2


def withheld(record: Tree) -> None:
    record["privacy"]["guarantees"][0]["epsilon"] = None


def other_delta(record: Tree) -> None:
    record["privacy"]["guarantees"][3]["delta"] = 1e-9


def other_relation(record: Tree) -> None:
    record["privacy"]["guarantees"][0]["neighbours"] = "add_remove"


def missing_view(record: Tree) -> None:
    record["privacy"]["guarantees"].pop()


def other_source_of_noise(record: Tree) -> None:
    record["environment"]["noise"] = record["experiment"]["privacy"]["noise"] = "seeded"


def other_setting(record: Tree) -> None:
    record["experiment"]["privacy"]["client_delta"] = 1e-9


def no_settings(record: Tree) -> None:
    del record["experiment"]["privacy"]


def less_noise(ledger: Tree) -> None:
    ledger["entries"][CLIENTS]["event"]["sigma"] *= 0.99


def more_steps(ledger: Tree) -> None:
    ledger["entries"][0]["event"]["steps"] += 1


def entry_gone(ledger: Tree) -> None:
    del ledger["entries"][-1]


def entry_twice(ledger: Tree) -> None:
    ledger["entries"].append(ledger["entries"][-1])


def seeded(ledger: Tree) -> None:
    ledger["noise"] = "seeded"


def ledger_delta(ledger: Tree) -> None:
    ledger["delta"]["client"] = 1e-3


def unprotected(ledger: Tree) -> None:
    ledger["entries"][0]["event"] = {"kind": "unprotected", "why": "changed"}


CHANGES = [("result.json", f) for f in (halved, withheld, other_delta, other_relation, missing_view)]
CHANGES += [("result.json", f) for f in (other_source_of_noise, other_setting, no_settings)]
CHANGES += [
    ("ledger.json", f) for f in (less_noise, more_steps, entry_gone, entry_twice, seeded, ledger_delta, unprotected)
]


def tampered(folder: Path, out: Path, name: str, change: Callable[[Tree], None]) -> Path:
    out.mkdir()
    for file in ("ledger.json", "result.json"):
        shutil.copy(folder / file, out / file)
    tree = json.loads((out / name).read_text())
    change(tree)
    (out / name).write_text(json.dumps(tree))
    return out


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[f.__name__ for _, f in CHANGES])
def test_a_record_and_a_ledger_that_disagree_are_exit_three(
    name: str,
    change: Callable[[Tree], None],
    finished: tuple[str, Path],
    out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, shown, errors = account(tampered(finished[1], out, name, change), capsys, monkeypatch)
    assert (code, shown) == (3, "")
    assert errors.startswith("error: ")
    assert "Traceback" not in errors


def unknown_kind(ledger: Tree) -> None:
    ledger["entries"][0]["event"]["kind"] = "laplace"


def unknown_field(ledger: Tree) -> None:
    ledger["entries"][0]["event"]["amplified"] = True


def unknown_version(ledger: Tree) -> None:
    ledger["schema"] = "securekd.ledger/2"


def unknown_view(ledger: Tree) -> None:
    ledger["entries"][0]["views"] = ["nobody"]


def no_noise(ledger: Tree) -> None:
    ledger["entries"][-1]["event"]["sigma"] = 0.0


def countless_shares(ledger: Tree) -> None:
    ledger["entries"][-1]["event"]["shares"] = 10**400


def no_delta(ledger: Tree) -> None:
    del ledger["delta"]["client"]


def zero_delta(ledger: Tree) -> None:
    ledger["delta"]["client"] = 0.0


def not_a_delta(ledger: Tree) -> None:
    ledger["delta"]["client"] = math.nan


REFUSED = [unknown_kind, unknown_field, unknown_version, unknown_view, no_noise, countless_shares, no_delta]
REFUSED += [zero_delta, not_a_delta]


@pytest.mark.parametrize("change", REFUSED)
def test_a_ledger_with_something_unknown_is_exit_two(
    change: Callable[[Tree], None],
    finished: tuple[str, Path],
    out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, shown, errors = account(tampered(finished[1], out, "ledger.json", change), capsys, monkeypatch)
    assert (code, shown) == (2, "")
    assert "ledger.json is not a securekd.ledger/1 ledger" in errors


def test_a_ledger_with_numbers_that_give_no_epsilon_is_not_believed(
    finished: tuple[str, Path], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanishing(ledger: Tree) -> None:
        ledger["entries"][-1]["event"]["sigma"] = 1e-200

    code, shown, errors = account(tampered(finished[1], out, "ledger.json", vanishing), capsys, monkeypatch)
    assert (code, shown) in [(2, ""), (3, "")]  # no number can be given, or none is proven
    assert "unexpected" not in errors


def test_a_folder_without_a_ledger_is_exit_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, errors = account(tmp_path, capsys, monkeypatch)
    assert code == 2
    assert "cannot read the ledger" in errors


def test_an_unfinished_run_is_accounted_for_as_far_as_it_went(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: Any) -> None:
        if progress.phase == "aggregate.1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(**settings("skellam")), out, stop)
    assert not (out / "result.json").exists()
    entries, said = entries_of(out), accounted(out)
    assert {e["round"] for e in entries} == {1}
    low, high = example_bracket(entries, "server")
    assert low - 1e-3 <= said["server", "example"]["epsilon"] <= high + 1e-3
    expected = formulas.client_epsilon(by_client(entries, "client", "server")["client-01"], DELTA)
    assert said["server", "client"]["epsilon"] == pytest.approx(expected, rel=1e-3)
    code, shown, _ = account(out, capsys, monkeypatch)
    assert code == 0
    assert "the run is not finished" in shown


# ---- Small cases: the hockey-stick divergence, summed over all outcomes ----

# Law, dimension, clients' noises in the sum, L2 sensitivity, standard deviation of the sum over it, rate, how loose.
# The accountant is at most 1.35 times the exact ε (1.6 under client sampling) where the sum's standard deviation is 5
# steps or more; below that it must be an upper bound, and nothing else is said (Skellam's bound then is 5 times it).
CASES = [
    *((law, d, n, l2, z, rate, None) for law in ("skellam", "discrete_gaussian") for d, n, l2, z, rate in (
        (1, 1, 1.0, 0.8, 1.0), (1, 3, 2.0, 0.8, 0.3), (2, 1, 2.0, 1.2, 1.0), (2, 3, 3.0, 1.2, 0.3),
        (2, 2, 1.0, 2.5, 0.3),
    )),
    *((law, d, n, l2, z, 1.0, 1.35) for law in ("skellam", "discrete_gaussian") for d, n, l2, z in (
        (1, 1, 3.0, 2.5), (1, 4, 8.0, 1.0), (2, 1, 5.0, 1.2), (2, 3, 8.0, 0.8), (2, 2, 6.0, 2.5),
    )),
    *((law, d, n, l2, z, 0.3, 1.6) for law in ("skellam", "discrete_gaussian") for d, n, l2, z in (
        (1, 1, 5.0, 1.5), (1, 4, 12.0, 0.8), (2, 1, 5.0, 1.2), (2, 3, 8.0, 0.8),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("law", "dimension", "shares", "l2", "ratio", "rate", "loose"), CASES)
def test_the_accountant_bounds_the_exact_divergence(
    law: str, dimension: int, shares: int, l2: float, ratio: float, rate: float, loose: float | None
) -> None:
    """Over every integer vector within the sensitivities, both directions; sampled: the mixture against none."""
    sigma = ratio * l2 / math.sqrt(shares)
    l1 = min(l2 * math.sqrt(dimension), l2**2)
    kind = SkellamEvent if law == "skellam" else DiscreteGaussianEvent
    event = kind(
        sigma=sigma, shares=shares, l2=l2, l1=l1, dimension=dimension, total_variation=1e-70, sampling_rate=rate
    )
    pmf = sum_of_noise(law, sigma, shares, l2)
    vectors = formulas.integer_vectors(dimension, l2, l1)
    epsilon = compose_epsilon([event], "zero_out", DELTA)
    assert max(formulas.exact_delta(pmf, v, epsilon, rate) for v in vectors) <= DELTA
    if loose is not None:
        exact = max(formulas.exact_epsilon(pmf, v, DELTA, rate) for v in vectors)
        assert exact <= epsilon <= loose * exact


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("law", ["skellam", "discrete_gaussian"])
def test_two_rounds_bound_the_exact_divergence_of_both_together(law: str, rate: float) -> None:
    """Two rounds of one entry are two coordinates with a coin each; the exact δ is summed over both outcomes."""
    sigma, shares, l2 = 5.0, 2, 6.0
    kind = SkellamEvent if law == "skellam" else DiscreteGaussianEvent
    event = kind(sigma=sigma, shares=shares, l2=l2, l1=l2, dimension=1, total_variation=1e-70, sampling_rate=rate)
    epsilon = compose_epsilon([event, event], "zero_out", DELTA)
    moved, still = formulas.shifted(sum_of_noise(law, sigma, shares, l2), (6,))
    mixed = (1 - rate) * still + rate * moved
    both, none = np.multiply.outer(mixed, mixed), np.multiply.outer(still, still)
    assert max(formulas.hockey_stick(both, none, epsilon), formulas.hockey_stick(none, both, epsilon)) <= DELTA
    less = epsilon / (1.35 if rate == 1 else 1.6)
    assert max(formulas.hockey_stick(both, none, less), formulas.hockey_stick(none, both, less)) > DELTA


def sum_of_noise(law: str, sigma: float, shares: int, l2: float) -> np.ndarray:
    """The law of a sum of noises on the integers, as far as probabilities of 1e-20 reach."""
    deviation = sigma * math.sqrt(shares)
    reach = math.ceil(12 * deviation + 12 + 4 * l2)
    if law == "discrete_gaussian":
        return formulas.discrete_gaussian_pmf(sigma, shares, reach)
    return skellam.pmf(np.arange(-reach, reach + 1), deviation**2 / 2, deviation**2 / 2)
