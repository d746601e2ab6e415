"""Integer noise against its exact laws: tables, draws, and the rare draws that need more than 64 bits."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from securekd.errors import BudgetError
from securekd.privacy.noise import UNIFORM_BITS, NoiseTable, noise_table, total_variation
from securekd.randomness import Csprng

LAWS = ("discrete_gaussian", "skellam")
SIGMAS = (0.02, 0.5, 1.0, 3.7, 40.0, 1000.0)


def exact_pmf(law: str, sigma: float, reach: int) -> np.ndarray:
    """Probabilities of −reach … reach, in double precision, by another route than the tables'."""
    k = np.arange(-reach, reach + 1)
    if law == "skellam":
        return stats.skellam(sigma**2 / 2, sigma**2 / 2).pmf(k)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    return weights / weights.sum()


def table_pmf(table: NoiseTable) -> np.ndarray:
    scaled = np.diff([0, *table.thresholds, 1 << UNIFORM_BITS])
    return np.array([float(Fraction(int(p), 1 << UNIFORM_BITS)) for p in scaled])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_tables_hold_the_law(law: str, sigma: float) -> None:
    table = noise_table(law, sigma)
    found, expected = table_pmf(table), exact_pmf(law, sigma, table.reach)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-17)
    np.testing.assert_allclose(found, found[::-1], rtol=0, atol=total_variation(sigma))
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_tables_hold_the_law_to_the_precision_that_is_charged(law: str) -> None:
    """Against mpmath at 120 digits: every probability is within what `total_variation` allows."""
    mpmath = pytest.importorskip("mpmath")
    sigma = 3.0
    table = noise_table(law, sigma)
    with mpmath.workdps(120):
        variance = mpmath.mpf(sigma) ** 2
        k = range(-table.reach - 200, table.reach + 201)
        if law == "skellam":
            weights = {i: mpmath.exp(-variance) * mpmath.besseli(abs(i), variance) for i in k}
        else:
            weights = {i: mpmath.exp(-(mpmath.mpf(i) ** 2) / (2 * variance)) for i in k}
        total = sum(weights.values())
        found = np.diff([0, *table.thresholds, 1 << UNIFORM_BITS])
        distance = sum(
            abs(mpmath.mpf(int(found[i + table.reach])) / mpmath.mpf(2) ** UNIFORM_BITS - w / total)
            if abs(i) <= table.reach
            else w / total
            for i, w in weights.items()
        )
        assert float(distance) / 2 <= total_variation(sigma)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", [0.5, 4.0, 300.0])
def test_draws_follow_the_law(law: str, sigma: float) -> None:
    """χ² over cells that expect 50 draws or more, fixed key: a right sampler fails one key in 10,000."""
    table = noise_table(law, sigma)
    drawn = table.draw(200_000, Csprng(b"\x07" * 32))
    assert np.abs(drawn).max() <= table.reach
    counts = np.bincount(drawn + table.reach, minlength=2 * table.reach + 1)
    assert chi_square_p(counts, exact_pmf(law, sigma, table.reach)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", [1.0, 25.0, 10_000.0])
def test_ten_million_draws_follow_the_law(law: str, sigma: float) -> None:
    """As above, over 10⁷ draws; a right sampler fails one key in 10,000."""
    table, stream = noise_table(law, sigma), Csprng(b"\x08" * 32)
    counts = np.zeros(2 * table.reach + 1, np.int64)
    for _ in range(10):
        counts += np.bincount(table.draw(1_000_000, stream) + table.reach, minlength=len(counts))
    assert chi_square_p(counts, exact_pmf(law, sigma, table.reach)) > 1e-4


def chi_square_p(counts: np.ndarray, pmf: np.ndarray, least: float = 50.0) -> float:
    expected = pmf * counts.sum()
    cells = np.floor(np.cumsum(expected) / least).astype(int)  # neighbouring values share a cell until it expects 50
    seen, due = np.bincount(cells, counts), np.bincount(cells, expected)
    keep = due > 0
    seen, due = seen[keep], due[keep]
    statistic = ((seen - due) ** 2 / due).sum()
    return float(stats.chi2(len(due) - 1).sf(statistic))


class Scripted:
    """A stream of given words, and given bytes where more are asked for."""

    def __init__(self, words: list[int], low: int) -> None:
        self._words, self._low = words, low

    def words(self, count: int) -> np.ndarray:
        head, self._words = self._words[:count], self._words[count:]
        return np.array(head, np.uint64)

    def read(self, count: int) -> bytes:
        return self._low.to_bytes(count, "little")


def test_where_64_bits_do_not_decide_the_rest_does() -> None:
    table = noise_table("skellam", 2.0)
    for index in (0, 3, table.reach, 2 * table.reach - 1):
        threshold = table.thresholds[index]
        high, low = threshold >> 192, threshold & ((1 << 192) - 1)
        for below in (low, low - 1):  # U at the threshold, and one below it
            if below < 0:
                continue
            drawn = table.draw(1, Scripted([high], below))  # type: ignore[arg-type]
            expected = sum(t <= ((high << 192) | below) for t in table.thresholds) - table.reach
            assert drawn[0] == expected


def test_extreme_words_stay_inside() -> None:
    table = noise_table("discrete_gaussian", 5.0)
    top = (1 << 64) - 1
    low = table.draw(1, Scripted([0], 0))  # type: ignore[arg-type]
    high = table.draw(1, Scripted([top], (1 << 192) - 1))  # type: ignore[arg-type]
    assert -table.reach <= low[0] <= -0.95 * table.reach
    assert high[0] == table.reach


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_charge_covers_the_table(law: str, sigma: float) -> None:
    table = noise_table(law, sigma)
    assert total_variation(sigma) >= (2 * table.reach + 1) * 2.0**-UNIFORM_BITS + 2.0**-260
    assert 0 < total_variation(sigma) < 1e-70


def test_skellam_noise_is_closed_under_sums() -> None:
    one = table_pmf(noise_table("skellam", 1.5))
    two = np.convolve(one, one)
    together = table_pmf(noise_table("skellam", 1.5 * math.sqrt(2)))
    middle = slice(len(two) // 2 - 20, len(two) // 2 + 21)
    other = slice(len(together) // 2 - 20, len(together) // 2 + 21)
    np.testing.assert_allclose(two[middle], together[other], rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("sigma", [0.0, 0.001, 60_000.0, math.inf, math.nan])
def test_noise_that_no_table_holds_is_refused(sigma: float) -> None:
    with pytest.raises(BudgetError, match="release.step"):
        noise_table("skellam", sigma)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.0516, 0.0519, 0.0521])
def test_a_law_that_hardly_leaves_zero_is_drawn(law: str, sigma: float) -> None:
    table = noise_table(law, sigma)
    drawn = table.draw(1000, Csprng(b"\x09" * 32))
    assert drawn.dtype == np.int64
    assert np.abs(drawn).max() <= table.reach
