"""3 x 3 convolution of one block with 16 instead of 36 multiplications for 2 x 2 outputs (Lavin and Gray, 2016).

F(2 x 2, 3 x 3): with d the 4 x 4 pixels that 2 x 2 outputs see, and U = G g G^T of the filter g,

    Y = A^T [(U) * (B^T d B)] A        * element by element, summed over the input channels

so that for each of the 16 positions the sum over channels is a matrix product, done by register tiles. The gradient for
the filter turns it around: G^T [sum over the 2 x 2 outputs of (A dY A^T) * (B^T d B)] G.
"""

import numpy as np

from minicnn.backend.cpu.blocks import accumulate, products
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import fill, load, maximum, store, transpose

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=np.float32)
FILTER = np.kron(_G, _G)
"""G g G^T for the flat filter g, (16, 9)."""


@helper
def _spread(a, b, c, d):
    """B^T of four vectors."""
    return a - c, b + c, c - b, b - d


@helper
def _gathered(a, b, c, d):
    """A^T of four vectors."""
    return a + b + c, b - c - d


@helper
def spread_tile(memory, at, row, to, step):
    """Write B^T d B of the 4 x 4 pixels at ``at``, its 16 positions ``step`` apart from ``to``."""
    a0, b0, c0, d0 = _spread_column(memory, at, row)
    a1, b1, c1, d1 = _spread_column(memory, at + LANES, row)
    a2, b2, c2, d2 = _spread_column(memory, at + 2 * LANES, row)
    a3, b3, c3, d3 = _spread_column(memory, at + 3 * LANES, row)
    _store_row(memory, to, step, _spread(a0, a1, a2, a3))
    _store_row(memory, to + 4 * step, step, _spread(b0, b1, b2, b3))
    _store_row(memory, to + 8 * step, step, _spread(c0, c1, c2, c3))
    _store_row(memory, to + 12 * step, step, _spread(d0, d1, d2, d3))


@helper
def _spread_column(memory, at, row):
    return _spread(load(memory, at), load(memory, at + row), load(memory, at + 2 * row), load(memory, at + 3 * row))


@helper
def _store_row(memory, to, step, values):
    store(memory, to, values[0])
    store(memory, to + step, values[1])
    store(memory, to + 2 * step, values[2])
    store(memory, to + 3 * step, values[3])


@helper
def _gathered_column(memory, at, step):
    return _gathered(
        load(memory, at), load(memory, at + 4 * step), load(memory, at + 8 * step), load(memory, at + 12 * step)
    )


@helper
def convolution(
    shape, memory, table, x, x_plane, x_row, inputs, filters, a_row, a_k, turned, y, y_plane, y_row, outputs, height,
    width, bias, zeros, floor, work, strip, tiles_j, x_k,
):  # fmt: skip
    """y = max(3 x 3 convolution of x + bias, floor), (outputs, height, width), both even; x has a halo of 1.

    filters: (16, outputs, inputs) of U, a_row and a_k as in :func:`~minicnn.backend.cpu.tile.tile`; ``turned``: filters
    by 180 degrees, for which U only changes places. work: room for 16 (inputs + outputs) tiles of ``strip`` places;
    tiles_j, x_k: tables of the places of a strip, and of the channels in it.
    """
    across, plane, number = width // 2, strip * LANES, height * width // 4
    into, out_of = inputs * plane, outputs * plane
    made = work + 16 * into
    floors = fill(floor)
    for start in range(0, number, strip):
        here = min(strip, number - start)
        for c in range(inputs):
            for t in range(here):
                i, j = (start + t) // across, (start + t) % across
                at = x + c * x_plane + (2 * i - 1) * x_row + (2 * j - 1) * LANES
                spread_tile(memory, at, x_row, work + c * plane + t * LANES, into)
        for position in range(16):
            p, q = position // 4, position % 4
            if turned:  # the first and the last change places
                p, q = (3 - p if p % 3 == 0 else p), (3 - q if q % 3 == 0 else q)
            products(
                shape, memory, table, made + position * out_of, plane, filters + (4 * p + q) * inputs * outputs, a_row,
                work + position * into, tiles_j, tiles_j, a_k, x_k, inputs, here, outputs, zeros,
                memory.dtype.type(-np.inf),
            )  # fmt: skip
        for o in range(outputs):
            offset = fill(memory[bias + o])
            for t in range(here):
                i, j = (start + t) // across, (start + t) % across
                at, to = made + o * plane + t * LANES, y + o * y_plane + 2 * i * y_row + 2 * j * LANES
                a0, b0 = _gathered_column(memory, at, out_of)
                a1, b1 = _gathered_column(memory, at + out_of, out_of)
                a2, b2 = _gathered_column(memory, at + 2 * out_of, out_of)
                a3, b3 = _gathered_column(memory, at + 3 * out_of, out_of)
                upper, lower = _gathered(a0, a1, a2, a3), _gathered(b0, b1, b2, b3)
                store(memory, to, maximum(upper[0] + offset, floors))
                store(memory, to + LANES, maximum(upper[1] + offset, floors))
                store(memory, to + y_row, maximum(lower[0] + offset, floors))
                store(memory, to + y_row + LANES, maximum(lower[1] + offset, floors))


@helper
def operands(
    memory, x, x_plane, x_row, inputs, gy, g_plane, g_row, outputs, width, start, here, work, seen, made, length
):  # fmt: skip
    """Both factors of the gradient for ``here`` outputs of 2 x 2 from ``start``, in the order of a matrix product.

    B^T d B to seen, (16, length, inputs), A dY A^T to made, (16, outputs, length): places of an image, LANES images a
    place, from those addresses on. work: room for 16 LANES vectors; inputs: a multiple of LANES.
    """
    across, zero = width // 2, fill(0.0)
    for t in range(here):
        i, j = (start + t) // across, (start + t) % across
        at, place = x + (2 * i - 1) * x_row + (2 * j - 1) * LANES, t * LANES
        for c in range(0, inputs, LANES):
            for k in range(LANES):
                spread_tile(memory, at + (c + k) * x_plane, x_row, work + k * LANES, LANES * LANES)
            for position in range(16):
                to = seen + (position * length + place) * inputs + c
                transpose(memory, work + position * LANES * LANES, LANES, memory, to, inputs)
        at = gy + 2 * i * g_row + 2 * j * LANES
        for o in range(outputs):
            a, b = load(memory, at + o * g_plane), load(memory, at + o * g_plane + LANES)
            c, d = load(memory, at + o * g_plane + g_row), load(memory, at + o * g_plane + g_row + LANES)
            to, step = made + o * length + place, outputs * length
            for down, (left, right) in enumerate(((a, b), (a + c, b + d), (a - c, b - d), (zero - c, zero - d))):
                _store_row(memory, to + 4 * down * step, step, (left, left + right, left - right, zero - right))


@helper
def gradient(
    shape, memory, table, x, x_plane, x_row, inputs, gy, g_plane, g_row, outputs, height, width, out, rows, work, strip,
    columns, places, steps, again,
):  # fmt: skip
    """Add, or write if not ``again``, the gradient for U of the filters to out, (16, rows, inputs) with whole tiles.

    columns: table of the vectors of a row; places and steps: tables of a strip's length, by 1 and by ``inputs``.
    """
    length, number = strip * LANES, height * width // 4
    seen = work + 16 * LANES * LANES
    made = seen + 16 * length * inputs
    if not again:
        memory[out : out + 16 * rows * inputs] = 0
    for start in range(0, number, strip):
        here = min(strip, number - start)
        operands(
            memory, x, x_plane, x_row, inputs, gy, g_plane, g_row, outputs, width, start, here, work, seen, made,
            length,
        )  # fmt: skip
        for position in range(16):
            accumulate(
                shape, memory, table, out + position * rows * inputs, inputs, made + position * outputs * length,
                length, seen + position * length * inputs, columns, columns, places, steps, here * LANES,
                inputs // LANES, outputs,
            )  # fmt: skip
