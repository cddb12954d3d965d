"""3 x 3 convolution of one block with 16 instead of 36 multiplications for 2 x 2 outputs (Lavin and Gray, 2016).

F(2 x 2, 3 x 3): with d the 4 x 4 pixels that 2 x 2 outputs see, and U = G g G^T of the filter g,

    Y = A^T [U * (B^T d B)] A        * element by element, summed over the input channels

so that for each of the 16 positions the sum over channels is a matrix product, done by register tiles. The gradient for
the filter turns it around: G^T [sum over the 2 x 2 outputs of (A dY A^T) * (B^T d B)] G.
"""

import numpy as np

from minicnn.backend.cpu.blocks import add_products, products
from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import element, fill, load, maximum, store, transpose

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


@instruction(
    "shape:word x:view inputs:word weight:region weight_row:word weight_steps:word adjoint:word size:size bias:region "
    "zeros:word floor:number work:place strip:word columns:word steps:word -> y:view"
)
@helper
def winograd(
    shape, memory, table, x, inputs, weight, weight_row, weight_steps, adjoint, size, bias, zeros, floor, work, strip,
    columns, steps, y,
):  # fmt: skip
    """y = max(3 x 3 convolution of x + bias, floor) of ``size``, height and width even; x has a halo of 1.

    weight: (16, outputs, inputs) of U, its rows and steps as in :func:`~minicnn.backend.cpu.tile.tile`; ``adjoint``:
    filters turned by 180 degrees, for which U only changes places. work: room for 16 (inputs + outputs) tiles of
    ``strip`` places; columns, steps: tables of the places of a strip, and of the channels in it.
    """
    outputs, height, width = size
    across, plane, number = width // 2, strip * LANES, height * width // 4
    into, out_of = inputs * plane, outputs * plane
    made = work + 16 * into
    floors = fill(floor)
    for start in range(0, number, strip):
        tiles = min(strip, number - start)
        for c in range(inputs):
            for t in range(tiles):
                i, j = (start + t) // across, (start + t) % across
                at = x.at + c * x.plane + (2 * i - 1) * x.row + (2 * j - 1) * LANES
                spread_tile(memory, at, x.row, work + c * plane + t * LANES, into)
        for position in range(16):
            p, q = position // 4, position % 4
            if adjoint:  # the first and the last change places
                p, q = (3 - p if p % 3 == 0 else p), (3 - q if q % 3 == 0 else q)
            products(
                shape, memory, table, made + position * out_of, plane, weight + (4 * p + q) * inputs * outputs,
                weight_row, work + position * into, columns, columns, weight_steps, steps, inputs, tiles, outputs,
                zeros, memory.dtype.type(-np.inf),
            )  # fmt: skip
        for o in range(outputs):
            offset = fill(element(memory, bias + o))
            for t in range(tiles):
                i, j = (start + t) // across, (start + t) % across
                at, to = made + o * plane + t * LANES, y.at + o * y.plane + 2 * i * y.row + 2 * j * LANES
                a0, b0 = _gathered_column(memory, at, out_of)
                a1, b1 = _gathered_column(memory, at + out_of, out_of)
                a2, b2 = _gathered_column(memory, at + 2 * out_of, out_of)
                a3, b3 = _gathered_column(memory, at + 3 * out_of, out_of)
                upper, lower = _gathered(a0, a1, a2, a3), _gathered(b0, b1, b2, b3)
                store(memory, to, maximum(upper[0] + offset, floors))
                store(memory, to + LANES, maximum(upper[1] + offset, floors))
                store(memory, to + y.row, maximum(lower[0] + offset, floors))
                store(memory, to + y.row + LANES, maximum(lower[1] + offset, floors))


@helper
def _operands(memory, x, inputs, gy, outputs, width, start, tiles, work, x_points, gy_points, length):
    """Both factors of the gradient for ``tiles`` outputs of 2 x 2 from ``start``, in the order of a matrix product.

    B^T d B to x_points, (16, length, inputs), A dY A^T to gy_points, (16, outputs, length): places of an image, LANES
    images a place, from those addresses on. work: room for 16 LANES vectors; inputs: a multiple of LANES.
    """
    across, zero = width // 2, fill(0.0)
    for t in range(tiles):
        i, j = (start + t) // across, (start + t) % across
        at, place = x.at + (2 * i - 1) * x.row + (2 * j - 1) * LANES, t * LANES
        for c in range(0, inputs, LANES):
            for k in range(LANES):
                spread_tile(memory, at + (c + k) * x.plane, x.row, work + k * LANES, LANES * LANES)
            for position in range(16):
                to = x_points + (position * length + place) * inputs + c
                transpose(memory, work + position * LANES * LANES, LANES, memory, to, inputs)
        at = gy.at + 2 * i * gy.row + 2 * j * LANES
        for o in range(outputs):
            a, b = load(memory, at + o * gy.plane), load(memory, at + o * gy.plane + LANES)
            c, d = load(memory, at + o * gy.plane + gy.row), load(memory, at + o * gy.plane + gy.row + LANES)
            to, step = gy_points + o * length + place, outputs * length
            for down, (left, right) in enumerate(((a, b), (a + c, b + d), (a - c, b - d), (zero - c, zero - d))):
                _store_row(memory, to + 4 * down * step, step, (left, left + right, left - right, zero - right))


@instruction(
    "x:view inputs:word gy:view outputs:word width:word tiles:word work:place length:word "
    "-> x_points:word gy_points:word"
)
@helper
def winograd_operands(memory, first, x, inputs, gy, outputs, width, tiles, work, length, x_points, gy_points):
    """Both factors for all ``tiles`` outputs of a block, where the products of all blocks are made at once."""
    place, start = first * tiles, first - first  # for a literal 0 Numba would compile anew
    _operands(
        memory, x, inputs, gy, outputs, width, start, tiles, work, x_points + place * inputs, gy_points + place, length
    )  # fmt: skip


@instruction(
    "shape:word x:view inputs:word gy:view size:size rows:word work:place strip:word columns:word gy_steps:word "
    "x_steps:word -> partial:part"
)
@helper
def winograd_gradient(
    shape, memory, table, x, inputs, gy, size, partial, rows, work, strip, columns, gy_steps, x_steps, accumulate
):
    """The gradient for U of the filters as a partial sum, (16, rows, inputs) with whole tiles. size: of gy.

    columns: table of the vectors of a row; gy_steps and x_steps: tables of a strip's length, by 1 and by ``inputs``.
    """
    outputs, height, width = size
    length, number = strip * LANES, height * width // 4
    x_points = work + 16 * LANES * LANES
    gy_points = x_points + 16 * length * inputs
    if not accumulate:
        memory[partial : partial + 16 * rows * inputs] = 0
    for start in range(0, number, strip):
        tiles = min(strip, number - start)
        _operands(memory, x, inputs, gy, outputs, width, start, tiles, work, x_points, gy_points, length)
        for position in range(16):
            add_products(
                shape, memory, table, partial + position * rows * inputs, inputs,
                gy_points + position * outputs * length, length, x_points + position * length * inputs, columns,
                columns, gy_steps, x_steps, tiles * LANES, inputs // LANES, outputs,
            )  # fmt: skip
