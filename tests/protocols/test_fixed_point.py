import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from securekd_protocols.errors import BadParameter, NotFinite, ValueOutOfRange
from securekd_protocols.fixed_point import FixedPoint
from securekd_protocols.randomness import InsecureSeededRandomness, KeystreamRandomness

GRID = FixedPoint(clip_range=8.0, step=2**-10)


@given(
    hnp.arrays(np.float32, hnp.array_shapes(), elements=st.floats(-8, 8, width=32)),
    st.sampled_from([2**-10, 0.003, 1.7]),
)
def test_an_encoding_is_one_of_the_two_neighbours(values, step):
    grid = FixedPoint(8.0, step)
    integers = grid.encode(values, InsecureSeededRandomness(b"x"))
    assert integers.shape == values.shape
    assert (np.abs(grid.decode(integers) - values) < step).all()
    assert (np.abs(integers) <= grid.magnitude).all()


@given(hnp.arrays(np.int64, 20, elements=st.integers(-8192, 8192)))
def test_grid_points_are_exact(integers):
    assert (GRID.encode(GRID.decode(integers), KeystreamRandomness()) == integers).all()


@pytest.mark.parametrize("value", [0.3, -0.3, 0.999, 7.00049])
def test_rounding_is_unbiased(value):
    count = 200_000
    integers = FixedPoint(8.0, 1.0).encode(np.full(count, value), InsecureSeededRandomness(b"unbiased"))
    fraction = value - math.floor(value)
    spread = math.sqrt(fraction * (1 - fraction) / count)
    assert abs(integers.mean() - value) < 5 * spread  # false alarm below 1e-6, and the seed is fixed


def test_the_coins_are_spent_one_by_one():
    values = np.full(100_000, 0.5)
    a, b = (FixedPoint(1.0, 1.0).encode(values, InsecureSeededRandomness(seed)) for seed in (b"a", b"b"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad):
    with pytest.raises(NotFinite):
        GRID.encode(np.array([0.0, bad]), KeystreamRandomness())


@pytest.mark.parametrize("bad", [8.001, -8.001, 1e300])
def test_out_of_range(bad):
    with pytest.raises(ValueOutOfRange):
        GRID.encode(np.array([0.0, bad]), KeystreamRandomness())


@pytest.mark.parametrize(
    ("clip", "step"), [(0, 1), (1, 0), (1, -1), (1, 2), (math.inf, 1), (math.nan, 1), (1, math.nan), (1, 1e-300)]
)
def test_senseless_grids(clip, step):
    with pytest.raises(BadParameter):
        FixedPoint(clip, step)


def test_integers_need_no_fixed_point():
    with pytest.raises(BadParameter):
        GRID.encode(np.array([1, 2]), KeystreamRandomness())
    assert GRID.encode(np.zeros((0, 3)), KeystreamRandomness()).shape == (0, 3)
