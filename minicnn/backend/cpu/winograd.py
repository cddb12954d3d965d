"""3 x 3 convolution of one block with fewer multiplications: 16 for 2 x 2 outputs, or 36 for 4 x 4, instead of 9 each.

F(m x m, 3 x 3) (Lavin and Gray, 2016): with d the pixels that m x m outputs see, and U = G g G^T of the filter g,

    Y = A^T [U * (B^T d B)] A        * element by element, summed over the input channels

so that for each of the (m + 2)^2 positions the sum over channels is a matrix product, done by register tiles. The
gradient for the filter turns it around: G^T [sum over the tiles of (A dY A^T) * (B^T d B)] G. Tiles cover a picture of
any size: the last ones may stand over it, where they read zeros and write nothing. The matrices are those of
:mod:`minicnn.backend.cpu.transforms`; an edge is m, 2 or 4. F(4 x 4) rounds more: the tests allow 4e-6 of the largest
result.
"""

import numpy as np

from minicnn.backend.cpu.blocks import add_products, products
from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import element, fill, load, maximum, store, transpose
from minicnn.backend.cpu.transforms import FILTERS, gather_tile, spread_gradient, spread_tile

__all__ = ["APART", "FILTERS", "winograd", "winograd_gradient", "winograd_operands"]

APART = 16
"""Floats between the positions of a strip: at a distance of a power of two all would take the same place in caches."""


@helper
def _spread(edge, memory, at, row, to, step):
    """Write B^T d B of the pixels at ``at``, its positions ``step`` apart from ``to``."""
    if edge == 2:  # the transforms want a literal
        spread_tile(2, memory, at, row, to, step)
    else:
        spread_tile(4, memory, at, row, to, step)


@helper
def _gather(edge, memory, at, step, to, row, offset, floors):
    """Write max(A^T M A + offset, floors) to the outputs at ``to``, of positions ``step`` apart from ``at``."""
    if edge == 2:
        gather_tile(2, memory, at, step, to, row, offset, floors)
    else:
        gather_tile(4, memory, at, step, to, row, offset, floors)


@helper
def _gather_inside(edge, memory, at, step, to, row, offset, floors, height, width, work):
    """The same where only ``height`` x ``width`` outputs from ``to`` are in the picture; work: room for a tile."""
    if (height >= edge) & (width >= edge):
        _gather(edge, memory, at, step, to, row, offset, floors)
        return
    _gather(edge, memory, at, step, work, edge * LANES, offset, floors)
    for u in range(min(height, edge)):
        for v in range(0, min(width, edge) * LANES, LANES):
            store(memory, to + u * row + v, load(memory, work + u * edge * LANES + v))


@instruction(
    "edge:word shape:word x:view inputs:word weight:region size:size bias:region zeros:word floor:number work:place "
    "strip:word columns:word steps:word x_steps:word -> y:view"
)
@helper
def winograd(
    edge, shape, memory, table, x, inputs, weight, size, bias, zeros, floor, work, strip, columns, steps, x_steps, y,
):  # fmt: skip
    """y = max(3 x 3 convolution of x + bias, floor) of ``size``; x has zeros around it for all that its tiles read.

    shape: 0; weight: (points, outputs, inputs) of U; work: room for the points of inputs and outputs of ``strip``
    tiles, with gaps between them, and for a tile; columns, steps, x_steps: tables of the places of a strip, of the
    inputs, and of those in a strip.
    """
    outputs, height, width = size
    across, plane, points = -(-width // edge), strip * LANES, (edge + 2) * (edge + 2)
    number = -(-height // edge) * across
    into, out_of = inputs * plane + APART, outputs * plane + APART
    made, rows_inside = work + points * into, edge - edge  # for a literal 0 Numba would compile anew
    floors = fill(floor)
    for start in range(0, number, strip):
        tiles = min(strip, number - start)
        for c in range(inputs):
            for t in range(tiles):
                i, j = (start + t) // across * edge, (start + t) % across * edge
                at = x.at + c * x.plane + (i - 1) * x.row + (j - 1) * LANES
                _spread(edge, memory, at, x.row, work + c * plane + t * LANES, into)
        for position in range(points):
            source = work + position * into
            products(
                shape, memory, table, made + position * out_of, plane, weight + position * outputs * inputs, inputs,
                source, columns, columns, steps, x_steps, inputs, tiles, outputs, rows_inside, zeros,
                memory.dtype.type(-np.inf),
            )  # fmt: skip
        for o in range(outputs):
            offset = fill(element(memory, bias + o))
            for t in range(tiles):
                i, j = (start + t) // across * edge, (start + t) % across * edge
                at, to = made + o * plane + t * LANES, y.at + o * y.plane + i * y.row + j * LANES
                _gather_inside(
                    edge, memory, at, out_of, to, y.row, offset, floors, height - i, width - j, made + points * out_of
                )


@helper
def _operands(
    edge, memory, x, inputs, gy, outputs, width, start, tiles, work, x_points, x_step, gy_points, gy_step, length
):
    """Both factors of the gradient for ``tiles`` tiles from ``start``, in the order of a matrix product.

    B^T d B to x_points, (inputs / LANES, length, LANES) a point, A dY A^T to gy_points, (outputs, length) a point:
    places of an image, LANES images a place, from those addresses on; points are ``x_step`` and ``gy_step`` apart.
    work: room for ``points`` LANES vectors; inputs: a multiple of LANES. Both have zeros where tiles stand over them.
    """
    across, points = -(-width // edge), (edge + 2) * (edge + 2)
    for t in range(tiles):
        i, j, place = (start + t) // across * edge, (start + t) % across * edge, t * LANES
        at = x.at + (i - 1) * x.row + (j - 1) * LANES
        for c in range(0, inputs, LANES):
            for k in range(LANES):
                _spread(edge, memory, at + (c + k) * x.plane, x.row, work + k * LANES, LANES * LANES)
            for position in range(points):
                to = x_points + position * x_step + c * length + place * LANES
                transpose(memory, work + position * LANES * LANES, LANES, memory, to, LANES)
        at = gy.at + i * gy.row + j * LANES
        for o in range(outputs):
            to = gy_points + o * length + place
            if edge == 2:
                spread_gradient(2, memory, at + o * gy.plane, gy.row, to, gy_step)
            else:
                spread_gradient(4, memory, at + o * gy.plane, gy.row, to, gy_step)


@instruction(
    "edge:word x:view inputs:word gy:view outputs:word width:word tiles:word work:place length:word "
    "x_step:word gy_step:word -> x_points:word gy_points:word"
)
@helper
def winograd_operands(
    edge, memory, first, x, inputs, gy, outputs, width, tiles, work, length, x_step, gy_step, x_points, gy_points
):
    """Both factors for all ``tiles`` tiles of a block, where the products of all blocks are made at once."""
    place, start = first * tiles, first - first  # for a literal 0 Numba would compile anew
    _operands(
        edge, memory, x, inputs, gy, outputs, width, start, tiles, work, x_points + place * LANES, x_step,
        gy_points + place, gy_step, length,
    )  # fmt: skip


@instruction(
    "edge:word shape:word x:view inputs:word gy:view size:size rows:word work:place strip:word columns:word "
    "x_columns:word gy_steps:word x_steps:word -> partial:part"
)
@helper
def winograd_gradient(
    edge, shape, memory, table, x, inputs, gy, size, partial, rows, work, strip, columns, x_columns, gy_steps, x_steps,
    accumulate,
):  # fmt: skip
    """The gradient for U of the filters as a partial sum, (points, rows, inputs) with whole tiles. size: of gy.

    columns, x_columns: tables of the vectors of a row, and of where their points are; gy_steps and x_steps: tables of a
    strip's length, by 1 and by LANES.
    """
    outputs, height, width = size
    length, number, points = strip * LANES, -(-height // edge) * -(-width // edge), (edge + 2) * (edge + 2)
    x_points, x_step, gy_step = work + points * LANES * LANES, length * inputs + APART, outputs * length + APART
    gy_points = x_points + points * x_step
    if not accumulate:
        memory[partial : partial + points * rows * inputs] = 0
    for start in range(0, number, strip):
        tiles = min(strip, number - start)
        _operands(
            edge, memory, x, inputs, gy, outputs, width, start, tiles, work, x_points, x_step, gy_points, gy_step,
            length,
        )  # fmt: skip
        for position in range(points):
            add_products(
                shape, memory, table, partial + position * rows * inputs, inputs,
                gy_points + position * gy_step, length, x_points + position * x_step, columns,
                x_columns, gy_steps, x_steps, tiles * LANES, inputs // LANES, outputs,
            )  # fmt: skip


@instruction("edge:word x:view size:size step:word plane:word -> y:place")
@helper
def spread_tiles(edge, memory, x, size, step, plane, y):
    """Write the points of tiles, those of a tile ``step`` apart, where the products of all blocks are made at once.

    x has zeros around it for all that they read. size: planes, and rows and columns of tiles, which lie one after the
    other in y; plane: how far the planes there are apart.
    """
    for c in range(size[0]):
        for i in range(size[1]):
            for j in range(size[2]):
                at = x.at + c * x.plane + (i * edge - 1) * x.row + (j * edge - 1) * LANES
                _spread(edge, memory, at, x.row, y + c * plane + (i * size[2] + j) * LANES, step)


@instruction(
    "edge:word x:place size:size step:word plane:word bias:region first:word groups:word is_sum:word floor:number "
    "work:place height:word width:word -> y:view(added)"
)
@helper
def gather_tiles(edge, memory, x, size, step, plane, bias, first, groups, is_sum, floor, work, height, width, y):
    """y = max(results of the tiles + bias, floor), plus y as it was where ``is_sum`` is not 0.

    size, step, plane: as of :func:`spread_tiles`; first: the number of the first plane; groups: planes an image, which
    have a vector of the bias each, or 0, where they have a number; work: room for a tile; height, width: of what is
    left of the picture from y on.
    """
    least, none = fill(floor), fill(-np.inf)
    for c in range(size[0]):
        if groups:
            offset = load(memory, bias + (first + c) % groups * LANES)
        else:
            offset = fill(element(memory, bias + first + c))
        for i in range(size[1]):
            for j in range(size[2]):
                at = x + c * plane + (i * size[2] + j) * LANES
                to = y.at + c * y.plane + i * edge * y.row + j * edge * LANES
                if is_sum:
                    _gather(edge, memory, at, step, work, edge * LANES, offset, none)
                    for u in range(min(edge, height - i * edge)):
                        for v in range(0, min(edge, width - j * edge) * LANES, LANES):
                            value = load(memory, to + u * y.row + v) + load(memory, work + u * edge * LANES + v)
                            store(memory, to + u * y.row + v, maximum(value, least))
                else:
                    _gather_inside(
                        edge, memory, at, step, to, y.row, offset, least, height - i * edge, width - j * edge, work
                    )
