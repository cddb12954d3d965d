"""Operations where the lanes are channels: for batches too small to fill the lanes with images.

The whole batch is one block, (N, C / LANES, H, W, LANES), whose first two axes count as one: planes. Of a View of it,
plane p begins at ``at + p plane``; ``row`` and the halo are as in blocks.py, whose instructions on pixels and windows
work here too. Lanes behind the last channel hold anything, and nobody looks at them.
"""

import numpy as np

from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import fill, load, maximum, multiply_add, store
from minicnn.backend.cpu.tile import CHANNEL_TILES, channel_tile
from minicnn.backend.cpu.winograd import APART, gather_tiles, spread_tiles


@helper
def _copy_in(source, at, memory, y, size):
    """Write an image of ``size``, contiguous at source[at:], to the planes from y on."""
    for c in range(size[0]):
        plane = y.at + c // LANES * y.plane + c % LANES
        for i in range(size[1]):
            for j in range(size[2]):
                memory[plane + i * y.row + j * LANES] = source[at]
                at += 1


@instruction("image:word size:size -> y:view")
@helper
def feed_channels(memory, images, image, size, y):
    """Take an image of what the plan was fed."""
    _copy_in(images, image * size[0] * size[1] * size[2], memory, y, size)


@instruction("x:word image:word size:size -> y:view")
@helper
def read_channels(memory, x, image, size, y):
    """Take an image of a contiguous array of all."""
    _copy_in(memory, x + image * size[0] * size[1] * size[2], memory, y, size)


@instruction("x:view image:word size:size -> y:word")
@helper
def write_channels(memory, x, image, size, y):
    """Write an image into a contiguous array of all."""
    to = y + image * size[0] * size[1] * size[2]
    for c in range(size[0]):
        plane = x.at + c // LANES * x.plane + c % LANES
        for i in range(size[1]):
            for j in range(size[2]):
                memory[to] = memory[plane + i * x.row + j * LANES]
                to += 1


@instruction("a:view terms:region groups:word floor:number size:pixels -> y:view(a)")
@helper
def channel_affine(memory, a, terms, groups, floor, size, y):
    """y = max(p a + q, floor), terms p and q: batch norm; groups: planes an image."""
    least = fill(floor)
    for c in range(size[0]):
        place = terms + c % groups * LANES
        p, q = load(memory, place), load(memory, place + groups * LANES)
        for i in range(size[1]):
            u, w = a.at + c * a.plane + i * a.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, maximum(multiply_add(load(memory, u + j), p, q), least))


@helper
def _tiles(
    shape, memory, table, y, y_row, weight, weight_row, x, y_columns, x_columns, weight_steps, x_steps, steps, columns,
    rows, bias, is_sum, floor,
):  # fmt: skip
    """``rows`` x ``columns`` of y by tiles; see :func:`channel_products`."""
    high, wide = CHANNEL_TILES[shape]
    for i in range(0, rows, high):
        for j in range(0, columns, wide):
            channel_tile(
                shape, memory, y + i * y_row, y_row, memory, weight + i * weight_row, weight_row, memory, x, table,
                weight_steps, y_columns + j, x_columns + j, x_steps, steps, bias + i * LANES, is_sum, floor,
            )  # fmt: skip


@instruction(
    "shape:word weight:place weight_row:word x:place y_columns:word x_columns:word weight_steps:word x_steps:word "
    "steps:word columns:word rows:word bias:region is_sum:word floor:number y_row:word points:word weight_point:word "
    "x_point:word y_point:word -> y:place(added)"
)
@helper
def channel_products(
    shape, memory, table, y, y_row, weight, weight_row, x, y_columns, x_columns, weight_steps, x_steps, steps, columns,
    rows, bias, is_sum, floor, points, weight_point, x_point, y_point,
):  # fmt: skip
    """``rows`` x ``columns`` of y, planes x pixels, by tiles of CHANNEL_TILES[shape], whose rows divide ``rows``.

    The same for all ``points`` of a transform, whose operands are so far apart.
    """
    for _ in range(points):
        _tiles(
            shape, memory, table, y, y_row, weight, weight_row, x, y_columns, x_columns, weight_steps, x_steps, steps,
            columns, rows, bias, is_sum, floor,
        )  # fmt: skip
        weight, bias, x, y = weight + weight_point, bias + weight_point, x + x_point, y + y_point


@instruction(
    "edge:word shape:word x:view size:size weight:place weight_point:word weight_row:word bias:region groups:word "
    "columns:word weight_steps:word x_steps:word steps:word is_sum:word floor:number work:place height:word "
    "width:word -> y:view(added)"
)
@helper
def channel_winograd(
    edge, shape, memory, table, x, size, weight, weight_point, weight_row, bias, groups, columns, weight_steps, x_steps,
    steps, is_sum, floor, work, height, width, y,
):  # fmt: skip
    """The convolution by 3 x 3 of some rows of tiles of an image, whose points stay in the cache of one thread.

    size: planes of x, and rows and columns of tiles; groups: planes of y; height, width: of what is left of
    the picture from y on, whose last tiles may stand over it. The weight is packed, with a bias of zeros,
    for each of the points, ``weight_point`` apart. work: room for the points of x and y, and for a tile.
    """
    points, tiles = (edge + 2) * (edge + 2), size[1] * size[2]
    plane, high = tiles * LANES, CHANNEL_TILES[shape][0]
    into, out_of, none = size[0] * plane + APART, groups * plane + APART, memory.dtype.type(-np.inf)
    made, zero = work + points * into, edge - edge  # for a literal 0 Numba would compile anew
    spread_tiles(edge, memory, x, size, into, plane, work)
    for p in range(points):
        w, source, out = weight + p * weight_point, work + p * into, made + p * out_of
        whole, zeros = groups // high * high, w + groups * weight_row
        if whole:
            _tiles(
                shape, memory, table, out, plane, w, weight_row, source, columns, columns, weight_steps, x_steps, steps,
                tiles, whole, zeros, zero, none,
            )  # fmt: skip
        if whole < groups:  # the tile of so many planes
            _tiles(
                high - (groups - whole), memory, table, out + whole * plane, plane, w + whole * weight_row, weight_row,
                source, columns, columns, weight_steps, x_steps, steps, tiles, groups - whole, zeros, zero, none,
            )  # fmt: skip
    made_size, room = (groups, size[1], size[2]), made + points * out_of
    gather_tiles(
        edge, memory, made, made_size, out_of, plane, bias, zero, groups, is_sum, floor, room, height, width, y
    )
