import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd.report import numbers


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.percent(0.92201), "92.2%"),
        (numbers.percent_up(0.99901), "100.0%"),
        (numbers.percent_up(0.123), "12.3%"),
        (numbers.percent_range(0.0985, 0.1387), "9.8–13.9%"),
        (numbers.points(0.2149), "+21.5 points"),
        (numbers.points(-0.0251), "−2.5 points"),
        (numbers.points(0.00001), "±0.0 points"),
        (numbers.area(0.5788), "0.579"),
        (numbers.area_up(0.99961), "0.9997"),
        (numbers.area_range(0.5428, 0.6138), "0.542–0.614"),
        (numbers.area_range(0.9168, 0.9454), "0.916–0.946"),
        (numbers.interval(1.005, 1.3, 2), "1.00–1.30"),
        (numbers.interval(-0.001, 0.001, 2), "-0.01–0.01"),
        (numbers.epsilon(7.9951), "8.00"),
        (numbers.epsilon(8.0), "8.00"),
        (numbers.epsilon(108635.2), "108,636"),
        (numbers.epsilon(3.2e12), "3.2e+12"),
        (numbers.epsilon_lower(0.0991), "0.09"),
        (numbers.delta(1e-5), "1e-5"),
        (numbers.delta(2.5e-7), "2.5e-7"),
        (numbers.delta(0.001), "0.001"),
        (numbers.size(0), "0 B"),
        (numbers.size(1023), "1,023 B"),
        (numbers.size(69968), "68.3 KiB"),
        (numbers.size(647254016), "617.3 MiB"),
        (numbers.duration(0.0123), "12 ms"),
        (numbers.duration(23.795), "23.8 s"),
        (numbers.duration(59.97), "1 min 00 s"),
        (numbers.duration(75.2), "1 min 15 s"),
        (numbers.duration(7261), "2 h 01 min"),
        (numbers.plural(1, "round"), "1 round"),
        (numbers.plural(1200, "class", "classes"), "1,200 classes"),
    ],
)
def test_numbers_as_shown(shown: str, expected: str) -> None:
    assert shown == expected


@given(st.floats(0, 90))
def test_a_bound_is_never_shown_tighter_than_it_is(value: float) -> None:
    assert float(numbers.epsilon(value)) >= value - 1e-9
    assert float(numbers.epsilon_lower(value)) <= value + 1e-9
    assert float(numbers.percent_up(value / 90)[:-1]) / 100 >= value / 90 - 1e-9
    low, high = numbers.area_range(value / 100, value / 90).split("–")
    assert float(low) <= value / 100 + 1e-9
    assert float(high) >= value / 90 - 1e-9
