"""Vectors of LANES floats: each operation in a small compiled function, against NumPy."""

import numba
import numpy as np
import pytest

from minicnn.backend.cpu import exponential, halves, lanes
from minicnn.backend.cpu.jit import LANES


@numba.njit
def expm1(x, y):
    for i in range(0, x.size, LANES):
        lanes.store(y, i, exponential.expm1(lanes.load(x, i)))


@numba.njit
def powers(x, y):
    for i in range(0, x.size, LANES):
        lanes.store(y, i, lanes.power_of_two(lanes.load(x, i)))


@numba.njit
def first(count, y):
    lanes.store(y, 0, lanes.first(count))


@numba.njit
def transposed(x, at, step, y, to, to_step):
    lanes.transpose(x, at, step, y, to, to_step)


@numba.njit
def three(x, y):
    """a b + c, a + b, a - b, a b, a / b, the larger, where a = b and where a > b: 1, else 0; the sum of a."""
    a, b, c = lanes.load(x, 0), lanes.load(x, LANES), lanes.load(x, 2 * LANES)
    one, zero = lanes.fill(1.0), lanes.fill(0.0)
    lanes.store(y, 0, lanes.multiply_add(a, b, c))
    lanes.store(y, LANES, a + b)
    lanes.store(y, 2 * LANES, a - b)
    lanes.store(y, 3 * LANES, a * b)
    lanes.store(y, 4 * LANES, lanes.divide(a, b))
    lanes.store(y, 5 * LANES, lanes.maximum(a, b))
    lanes.store(y, 6 * LANES, lanes.where_equal(a, b, one, zero))
    lanes.store(y, 7 * LANES, lanes.where_greater(a, b, one, zero))
    lanes.store(y, 8 * LANES, lanes.round_even(a))
    y[9 * LANES] = lanes.total(a)


@numba.njit
def turned(x, at, step, to, to_step):
    halves.turn_pairs(x, at, step, to, to_step)


@numba.njit
def both_halves(x, y):
    a, b = lanes.load(x, 0), lanes.load(x, LANES)
    lanes.store(y, 0, halves.lower_halves(a, b))
    lanes.store(y, LANES, halves.upper_halves(a, b))
    lanes.store(y, 2 * LANES, halves.halves_where_equal(a, b, lanes.fill(2.0), lanes.load(x, 2 * LANES)))


@numba.njit
def wins(x, y):
    a, b = lanes.load(x, 0), lanes.load(x, LANES)
    lanes.store(y, 0, lanes.where_wins(a, b, lanes.fill(1.0), lanes.fill(0.0)))


@numba.njit
def wide(x, y):
    value = lanes.load_wide(x, 1)
    lanes.store(y, 0, lanes.absolute(value) + lanes.fill_like(value, 0.5))


def floats(values):
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("low, high", [(-87, -1), (-1, -1e-3), (-1e-3, 0), (-0.36, -0.33), (-0.7, -0.68)])
def test_expm1(low, high):
    x = np.linspace(low, high, 1 << 16).astype(np.float32)
    y = np.empty_like(x)
    expm1(x, y)
    np.testing.assert_allclose(y, np.expm1(x.astype(np.float64)), rtol=3e-7, atol=0)


def test_expm1_of_extreme_numbers():
    x = -floats([0, 1e-38, 1e-30, 1e-20, 1e-10, 1e-7, 88, 1e30])
    y = np.empty_like(x)
    expm1(x, y)
    np.testing.assert_allclose(y, np.expm1(x.astype(np.float64)), rtol=3e-7, atol=0)
    x = np.full(LANES, np.nan, dtype=np.float32)
    expm1(x, y)
    assert np.isnan(y).all()


def test_power_of_two():
    x = np.resize(np.arange(-126, 128, dtype=np.float32), 256)
    y = np.empty_like(x)
    powers(x, y)
    np.testing.assert_array_equal(y, np.exp2(x.astype(np.float64)))


@pytest.mark.parametrize("count", range(LANES + 1))
def test_first(count):
    y = np.full(LANES, np.nan, dtype=np.float32)
    first(count, y)
    assert y.tolist() == [1.0] * count + [0.0] * (LANES - count)


@pytest.mark.parametrize("at, step, to, to_step", [(0, LANES, 0, LANES), (3, 11, 5, 17), (1, 40, 2, LANES)])
def test_transpose(at, step, to, to_step):
    x = np.arange(400, dtype=np.float32)
    y = np.full(400, -1, dtype=np.float32)
    transposed(x, at, step, y, to, to_step)
    expected = np.full(400, -1, dtype=np.float32)
    for i in range(LANES):
        expected[to + i * to_step : to + i * to_step + LANES] = x[at + i : at + i + LANES * step : step][:LANES]
    np.testing.assert_array_equal(y, expected)


def test_arithmetic():
    a = floats([0.5, 1.5, 2.5, -0.5, -1.5, 7, 1e30, -3])
    b = floats([0.5, 2, -2.5, -0.5, 3, -7, 1e-6, 3])
    c = floats([1, -3, 0, 4, 0.5, 49, 2, 0])
    y = np.empty(10 * LANES, dtype=np.float32)
    three(np.concatenate([a, b, c]), y)
    found = y[: 9 * LANES].reshape(9, LANES)
    wide = a.astype(np.float64) * b + c
    np.testing.assert_allclose(found[0], wide, rtol=1e-7)
    for row, expected in zip(
        found[1:], (a + b, a - b, a * b, a / b, np.maximum(a, b), a == b, a > b, np.rint(a)), strict=True
    ):
        np.testing.assert_array_equal(row, expected.astype(np.float32))
    assert y[9 * LANES] == a.astype(np.float64).sum().astype(np.float32)


def test_maximum_keeps_nan():
    x = floats([np.nan, 1.0, 0.0, -1.0, np.nan, 2.0, 3.0, -np.inf] * 3)
    x[LANES : 2 * LANES] = 0
    y = np.empty(10 * LANES, dtype=np.float32)
    three(x, y)
    np.testing.assert_array_equal(y[5 * LANES : 6 * LANES], np.maximum(x[:LANES], 0))
    assert y[6 * LANES] == y[7 * LANES] == 0  # no comparison with NaN holds


def test_pairs_of_channels_become_pairs_of_images():
    channels = np.arange(LANES * LANES, dtype=np.uint16).reshape(LANES, LANES)  # channel, image
    x = np.zeros(200, dtype=np.float32)
    step, to, to_step, half = LANES + 3, 80, LANES + 5, LANES // 2
    for i in range(half):
        x.view(np.uint16)[2 * (2 + i * step) :][: 2 * LANES] = channels[2 * i : 2 * i + 2].T.ravel()
    before = x.copy()
    turned(x, 2, step, to, to_step)
    words = x.view(np.uint16)
    for r in range(half):
        place = slice(2 * (to + r * to_step), 2 * (to + r * to_step) + 2 * LANES)
        np.testing.assert_array_equal(words[place], channels[:, 2 * r : 2 * r + 2].ravel())
        words[place] = 0
    np.testing.assert_array_equal(words, before.view(np.uint16))


def test_halves():
    x, y = np.zeros((2, 3 * LANES), dtype=np.float32)
    x.view(np.uint16)[:] = np.arange(6 * LANES) * 257 + 1
    x[:LANES:2], x[LANES : 2 * LANES : 3] = 2, 2
    both_halves(x, y)
    words = x.view(np.uint16).reshape(3, LANES, 2)
    np.testing.assert_array_equal(y.view(np.uint16)[: 4 * LANES].reshape(2, -1), words[:2].reshape(-1, 2).T)
    chosen = words[2] * np.stack([x[:LANES] == 2, x[LANES : 2 * LANES] == 2], axis=1)
    np.testing.assert_array_equal(y.view(np.uint16)[4 * LANES :].reshape(-1, 2), chosen)


def test_the_first_nan_wins():
    a, b = floats([1, 2, 2, np.nan, np.nan, 1, -np.inf, np.inf]), floats([2, 1, 2, 0, np.nan, np.nan, -np.inf, np.nan])
    y = np.empty(LANES, dtype=np.float32)
    wins(np.concatenate([a, b]), y)
    np.testing.assert_array_equal(y, [0, 1, 0, 1, 0, 0, 0, 0])


def test_twice_as_many_lanes():
    x, y = np.linspace(-3, 4, 2 * LANES + 1).astype(np.float32), np.empty(2 * LANES, dtype=np.float32)
    wide(x, y)
    np.testing.assert_array_equal(y, np.abs(x[1:]) + np.float32(0.5))
