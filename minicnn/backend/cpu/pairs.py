"""Products of bfloat16, two at a time in each lane of float32 (AVX512_BF16): half the steps of float32.

Such a block holds in a word the bfloat16 of two channels that follow each other, the first in the lower half; so it has
half as many channels. The weights have pairs of input channels alike. Here are products of pairs, and what makes them.
"""

from minicnn.backend.cpu.halves import halves_where_equal, paired
from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import fill, load, load_wide, multiply_add, store
from minicnn.backend.cpu.lanes import first as lanes_of
from minicnn.backend.cpu.pointwise import gelu_of, norm_grad_terms, norm_terms
from minicnn.backend.cpu.tile import TILES, tile


@instruction("x:view size:size planes:word -> y:view")
@helper
def pair(memory, x, size, planes, y):
    """y = x rounded to bfloat16, two channels in each of ``planes``; 0 behind the last. size: of x."""
    zero, channels = fill(0.0), size[0]
    for c in range(planes):
        for i in range(size[1]):
            low, w = x.at + 2 * c * x.plane + i * x.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                first = load(memory, low + j) if 2 * c < channels else zero
                second = load(memory, low + x.plane + j) if 2 * c + 1 < channels else zero
                store(memory, w + j, paired(first, second))


# What some instructions make, in pairs at once: of an even number of channels, in the first of ``planes``


@helper
def _zeros_behind(memory, y, size, planes):
    for c in range(size[0] // 2, planes):
        for i in range(size[1]):
            for j in range(0, size[2] * LANES, LANES):
                store(memory, y.at + c * y.plane + i * y.row + j, fill(0.0))


@instruction("a:view b:view terms:region size:size planes:word -> y:view")
@helper
def norm_grad_and_pair(memory, images_in_block, a, b, terms, size, planes, y):
    """y as of :func:`minicnn.backend.cpu.pointwise.norm_grad`. size: of a."""
    channels, present = size[0], lanes_of(images_in_block)
    for c in range(0, channels, 2):
        p, q, r = norm_grad_terms(memory, terms, c, channels, present)
        p2, q2, r2 = norm_grad_terms(memory, terms, c + 1, channels, present)
        for i in range(size[1]):
            u, v, w = (
                a.at + c * a.plane + i * a.row,
                b.at + c * b.plane + i * b.row,
                y.at + c // 2 * y.plane + i * y.row,
            )
            for j in range(0, size[2] * LANES, LANES):
                low = multiply_add(load(memory, u + j), p, multiply_add(load(memory, v + j), q, r))
                high = multiply_add(load(memory, v + b.plane + j), q2, r2)
                store(memory, w + j, paired(low, multiply_add(load(memory, u + a.plane + j), p2, high)))
    _zeros_behind(memory, y, size, planes)


@instruction("gy:view taps:view size:size x_size:size window:pair stride:pair planes:word -> gx:view")
@helper
def max_pool_grad_and_pair(memory, gy, taps, size, x_size, window, stride, planes, gx):
    """gx as of :func:`minicnn.backend.cpu.blocks.max_pool_grad`, of windows that touch and do not overlap."""
    if window[0] == window[1] == 2:  # known to the compiler, which unrolls the loops
        _max_pool_grad_and_pair(memory, gy, taps, size, (2, 2), gx)
    else:
        _max_pool_grad_and_pair(memory, gy, taps, size, window, gx)
    rows, columns = size[1] * window[0], size[2] * window[1]
    for c in range(size[0] // 2):
        for i in range(x_size[1]):
            for j in range(columns if i < rows else 0, x_size[2]):
                store(memory, gx.at + c * gx.plane + i * gx.row + j * LANES, fill(0.0))
    _zeros_behind(memory, gx, x_size, planes)


@helper
def _max_pool_grad_and_pair(memory, gy, taps, size, window, gx):
    for c in range(0, size[0], 2):
        for i in range(size[1]):
            u, t = gy.at + c * gy.plane + i * gy.row, taps.at + c * taps.plane + i * taps.row
            to = gx.at + c // 2 * gx.plane + i * window[0] * gx.row
            for j in range(size[2]):
                tap, tap2 = load(memory, t + j * LANES), load(memory, t + taps.plane + j * LANES)
                both = paired(load(memory, u + j * LANES), load(memory, u + gy.plane + j * LANES))
                for m in range(window[0]):
                    for n in range(window[1]):
                        number = fill(m * window[1] + n)
                        store(
                            memory,
                            to + m * gx.row + (j * window[1] + n) * LANES,
                            halves_where_equal(tap, tap2, number, both),
                        )


@instruction("a:view terms:region size:size planes:word -> y:view slope:view(a)")
@helper
def gelu_and_slope_and_pair(memory, a, terms, size, planes, y, slope):
    """y and slope as of :func:`minicnn.backend.cpu.pointwise.gelu_and_slope`; size: of a."""
    end = size[2] * LANES
    wide = end - end % (2 * LANES)
    for c in range(0, size[0], 2):
        p, q = norm_terms(memory, terms, c, size[0])
        p2, q2 = norm_terms(memory, terms, c + 1, size[0])
        for i in range(size[1]):
            u, v = a.at + c * a.plane + i * a.row, slope.at + c * slope.plane + i * slope.row
            w = y.at + c // 2 * y.plane + i * y.row
            for j in range(0, wide, 2 * LANES):
                low, derivative = gelu_of(load_wide(memory, u + j), p, q)
                high, derivative2 = gelu_of(load_wide(memory, u + a.plane + j), p2, q2)
                store(memory, v + j, derivative)
                store(memory, v + slope.plane + j, derivative2)
                store(memory, w + j, paired(low, high))
            for j in range(wide, end, LANES):
                low, derivative = gelu_of(load(memory, u + j), p, q)
                high, derivative2 = gelu_of(load(memory, u + a.plane + j), p2, q2)
                store(memory, v + j, derivative)
                store(memory, v + slope.plane + j, derivative2)
                store(memory, w + j, paired(low, high))
    _zeros_behind(memory, y, size, planes)


@instruction(
    "shape:word weight:place weight_row:word x:place y_columns:word x_columns:word weight_steps:word x_steps:word "
    "steps:word columns:word rows:word bias:region floor:number y_row:word -> y:place"
)
@helper
def pair_products(
    shape, memory, table, y, y_row, weight, weight_row, x, y_columns, x_columns, weight_steps, x_steps, steps, columns,
    rows, bias, floor,
):  # fmt: skip
    """As :func:`minicnn.backend.cpu.blocks.products`, of pairs."""
    high, wide = TILES[shape]
    for i in range(0, rows, high):
        for j in range(0, columns, wide):
            tile(
                3, shape, memory, y + i * y_row, y_row, memory, weight + i * weight_row, weight_row, memory, x, table,
                weight_steps, y_columns + j, x_columns + j, x_steps, steps, memory, bias + i, floor,
            )  # fmt: skip
