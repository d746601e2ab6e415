"""The accountant against published values and direct computation; the ledger's promises."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from securekd.errors import BudgetError, FolderError, RunError
from securekd.privacy.accountant import calibrate_dp_sgd, compose_epsilon, guarantees
from securekd.privacy.events import DpSgdEvent, Entry, GaussianEvent, UnprotectedEvent
from securekd.privacy.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from securekd.privacy.ledger import Ledger, LedgerFile, read_ledger

DELTA = {"example": 1e-5, "client": 1e-4}


def entry(client: str = "a", round_number: int = 1, event: object = None, **kwargs: object) -> Entry:
    defaults = {
        "phase": "train",
        "unit": "example",
        "neighbours": "add_remove",
        "views": ("server", "clients", "public"),
    }
    event = event or DpSgdEvent(sampling_rate=0.01, noise_multiplier=1.0, steps=100)
    return Entry(client=client, round=round_number, event=event, **defaults | kwargs)


def release(client: str = "a", round_number: int = 1, noise_multiplier: float = 1.0, view: str = "server") -> Entry:
    event = GaussianEvent(noise_multiplier=noise_multiplier)
    return entry(client, round_number, event, phase="release", unit="client", neighbours="zero_out", views=(view,))


def ledger(*entries: Entry, noise: str = "os") -> LedgerFile:
    return LedgerFile(schema="securekd.ledger/1", noise=noise, delta=DELTA, entries=entries)


def found(file: LedgerFile, unit: str, view: str):
    return next(g for g in guarantees(file) if (g.unit, g.view) == (unit, view))


def test_gaussian_epsilon_at_mu_one_is_the_published_value() -> None:
    # Balle and Wang 2018, theorem 8, evaluated at Δ/σ = 1 and δ = 1e-5.
    assert gaussian_epsilon(1.0, 1e-5) == pytest.approx(4.3772, abs=1e-4)


@pytest.mark.parametrize(("mu", "epsilon"), [(0.3, 0.5), (1.0, 2.0), (2.5, 8.0)])
def test_gaussian_delta_equals_the_integral_of_the_hockey_stick(mu: float, epsilon: float) -> None:
    direct, _ = quad(
        lambda x: max(0.0, norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x)),
        -10,
        mu + 12,
        limit=400,
        points=[epsilon / mu + mu / 2],
    )
    assert gaussian_delta(epsilon, mu) == pytest.approx(direct, rel=1e-6, abs=1e-12)


@given(st.floats(0.01, 300), st.floats(1e-12, 1e-2))
def test_gaussian_curve_and_its_inverse_agree(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(epsilon, mu) <= delta * (1 + 1e-6)
    if epsilon > 1e-3:
        assert gaussian_mu(epsilon, delta) == pytest.approx(mu, rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "steps", "published"), [(0.6, 1000, 7.43), (1.0, 100, 0.72), (1.0, 1000, 1.83), (2.0, 10_000, 2.16)]
)
def test_dp_sgd_epsilon_equals_the_tight_figures(noise: float, steps: int, published: float) -> None:
    event = DpSgdEvent(sampling_rate=0.01, noise_multiplier=noise, steps=steps)
    assert compose_epsilon([event], "add_remove", 1e-5) == pytest.approx(published, abs=0.011)


def test_dp_sgd_epsilon_stays_below_renyi_and_replace_one_costs_more() -> None:
    import dp_accounting as dpa

    event = DpSgdEvent(sampling_rate=0.01, noise_multiplier=1.0, steps=1000)
    tight = compose_epsilon([event], "add_remove", 1e-5)
    renyi = (
        dpa.rdp.RdpAccountant()
        .compose(dpa.PoissonSampledDpEvent(0.01, dpa.GaussianDpEvent(1.0)), 1000)
        .get_epsilon(1e-5)
    )
    assert tight < renyi < 1.3 * tight
    assert compose_epsilon([event], "replace_one", 1e-5) == pytest.approx(2.84, abs=0.02)


def test_full_sampling_is_the_gaussian_mechanism() -> None:
    event = DpSgdEvent(sampling_rate=1.0, noise_multiplier=4.0, steps=16)
    assert compose_epsilon([event], "add_remove", 1e-5) == pytest.approx(gaussian_epsilon(1.0, 1e-5), abs=2e-3)


@pytest.mark.parametrize(("rate", "steps", "epsilon"), [(0.5, 40, 8.0), (0.02, 500, 3.0), (1.0, 10, 0.5)])
def test_calibration_meets_the_target_and_wastes_little(rate: float, steps: int, epsilon: float) -> None:
    noise = calibrate_dp_sgd(rate, steps, epsilon, 1e-5, "add_remove")
    got = compose_epsilon([DpSgdEvent(sampling_rate=rate, noise_multiplier=noise, steps=steps)], "add_remove", 1e-5)
    assert 0.98 * epsilon < got <= epsilon


def test_calibration_refuses_what_cannot_be_met() -> None:
    with pytest.raises(BudgetError, match="raise privacy.epsilon"):
        calibrate_dp_sgd(1.0, 10, 1e-6, 1e-9, "add_remove")


@pytest.mark.parametrize(("epsilon", "delta"), [(1e-6, 1e-5), (1e-5, 1e-5)])
def test_an_epsilon_that_delta_outweighs_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(BudgetError, match="cannot be met in earnest .* lower privacy.delta"):
        calibrate_dp_sgd(0.1, 10, epsilon, delta, "add_remove")


def test_examples_take_the_maximum_over_clients_not_the_sum() -> None:
    strong = DpSgdEvent(sampling_rate=0.01, noise_multiplier=2.0, steps=100)
    both = found(ledger(entry("a"), entry("b"), entry("c", event=strong)), "example", "server")
    assert both.epsilon == pytest.approx(compose_epsilon([entry().event], "add_remove", 1e-5))
    assert both.events == 3


def test_rounds_compose() -> None:
    one = found(ledger(release()), "client", "server").epsilon
    four = found(ledger(*(release(round_number=r) for r in (1, 2, 3, 4))), "client", "server").epsilon
    assert one == pytest.approx(gaussian_epsilon(1.0, 1e-4))
    assert four == pytest.approx(gaussian_epsilon(2.0, 1e-4))


def test_views_are_kept_apart() -> None:
    file = ledger(release(noise_multiplier=1.0, view="server"), release(noise_multiplier=4.0, view="public"))
    assert found(file, "client", "server").epsilon > found(file, "client", "public").epsilon
    nobody = found(file, "client", "clients")
    assert nobody.epsilon is None
    assert nobody.why


def test_one_unprotected_event_voids_the_guarantee() -> None:
    gone = found(ledger(entry("a"), entry("b", event=UnprotectedEvent(why="no noise"))), "example", "public")
    assert (gone.epsilon, gone.neighbours, gone.why) == (None, None, "no noise")


def test_seeded_noise_gives_no_guarantee_and_says_what_it_would_be() -> None:
    seeded = found(ledger(entry(), noise="seeded"), "example", "server")
    assert seeded.epsilon is None
    assert "seeded" in seeded.why
    assert f"{found(ledger(entry()), 'example', 'server').epsilon:.4g}" in seeded.why


def test_mixed_relations_are_not_added_up() -> None:
    file = ledger(entry(), entry(round_number=2, neighbours="replace_one"))
    assert found(file, "example", "server").epsilon is None


def test_unknown_compositions_are_refused() -> None:
    with pytest.raises(RunError, match="no accountant"):
        compose_epsilon([entry().event, release().event], "add_remove", 1e-5)


def test_ledger_is_append_only_and_does_not_charge_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    book = Ledger(path, noise="os", delta=DELTA)
    book.append([entry(), release()])
    book.append([entry(), release(), release(round_number=2)])  # met again after a resumption
    assert read_ledger(path).entries == (entry(), release(), release(round_number=2))
    assert Ledger(path, noise="os", delta=DELTA).entries == book.entries


def test_ledger_refuses_another_event_in_the_same_place(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "ledger.json", noise="os", delta=DELTA)
    book.append([release(noise_multiplier=1.0)])
    before = (tmp_path / "ledger.json").read_bytes()
    with pytest.raises(RunError, match="nothing was released"):
        book.append([release(noise_multiplier=2.0)])
    assert (tmp_path / "ledger.json").read_bytes() == before


def test_ledger_refuses_another_delta_or_noise(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.json", noise="os", delta=DELTA).append([entry()])
    with pytest.raises(FolderError, match="resume with the run's own settings"):
        Ledger(tmp_path / "ledger.json", noise="seeded", delta=DELTA)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": "securekd.ledger/2"}', b"\xff"])
def test_ledger_refuses_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.json").write_bytes(content)
    with pytest.raises(FolderError):
        read_ledger(tmp_path / "ledger.json")


def test_unknown_events_are_refused(tmp_path: Path) -> None:
    text = ledger(entry()).model_dump_json(by_alias=True).replace('"dp_sgd"', '"laplace"')
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(FolderError, match="not a securekd.ledger/1"):
        read_ledger(tmp_path / "ledger.json")


def test_epsilon_is_monotone_in_noise() -> None:
    values = [
        compose_epsilon([GaussianEvent(noise_multiplier=z)], "zero_out", 1e-5) for z in np.geomspace(0.01, 100, 9)
    ]
    assert values == sorted(values, reverse=True)
