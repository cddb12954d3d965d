"""Convolutions and linear layers by the matrix registers of :mod:`minicnn.backend.cpu.amx`, for blocks of images.

Products have pairs of channels as steps (see :mod:`minicnn.backend.cpu.pairs`): a row of a register is one pair of
channels of two pixels that follow each other, of LANES images each, as it lies in the block. The gradient of a weight
has images of pixels as steps, for which both of its factors are written anew, register by register.
"""

from minicnn.backend.cpu.amx import REGISTER, SIDE, STEPS, begin, end, matrix_products
from minicnn.backend.cpu.halves import lower_halves, paired, turn_pairs, upper_halves
from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import element, fill, load, maximum, put, store, transpose

_AT_ONCE = 256
"""Steps of a gradient that are made for all its sums before the next: their factors stay in the cache."""


@instruction(
    "weight:place weight_row:word x:place x_plane:word x_columns:word y_columns:word weight_steps:word x_steps:word "
    "steps:word columns:word rows:word bias:region floor:number direct:word by_rows:word work:place y_row:word "
    "-> y:place"
)
@helper
def amx_products(
    memory, table, weight, weight_row, x, x_plane, x_columns, y_columns, weight_steps, x_steps, steps, columns, rows,
    bias, floor, direct, by_rows, work, y, y_row,
):  # fmt: skip
    """y = max(weight x + bias, floor): ``rows`` x pairs of pixels, of which there are ``columns``.

    weight_row: from 16 rows to the next; x_plane: from a pair of channels to the next; y_columns: where the two pixels
    of each pair are in y, -1 for none; direct: whether sums are results, and both pixels of each pair follow each other
    in y; by_rows: whether all pairs are taken for two registers of rows before the next; work: room for four registers.
    """
    groups = (rows + SIDE - 1) // SIDE
    down, right = (groups + 1) // 2, (columns + 1) // 2
    begin()
    for number in range(down * right):
        i = 2 * (number // right if by_rows else number % down)
        j = 2 * (number % right if by_rows else number // down)
        high, wide = min(2, groups - i), min(2, columns - j)
        out, out_i, out_j, out_row = work, 2 * REGISTER, REGISTER, SIDE
        if direct:
            out, out_row = y + i * SIDE * y_row + table[y_columns + 2 * j], y_row
            out_i, out_j = SIDE * y_row, table[y_columns + 2 * (j + wide - 1)] - table[y_columns + 2 * j]
        matrix_products(
            memory, table, high, wide, False, out, out_i, out_j, out_row, weight + i * weight_row, weight_row,
            weight_steps, x, x_plane, x_columns + j, x_steps, steps,
        )  # fmt: skip
        if not direct:
            _finish(memory, table, work, y, y_row, y_columns + 2 * j, 2 * wide, bias, floor, i * SIDE, rows)
    end()


@helper
def _finish(memory, table, work, y, y_row, y_columns, columns, bias, floor, first, rows):
    """Write the results of two registers of rows, from row ``first`` on, for ``columns`` pixels."""
    least = fill(floor)
    for r in range(min(2 * SIDE, rows - first)):
        offset = fill(element(memory, bias + first + r))
        source = work + r // SIDE * 2 * REGISTER + r % SIDE * SIDE
        for c in range(columns):
            place = table[y_columns + c]
            if place >= 0:
                value = load(memory, source + c // 2 * REGISTER + c % 2 * LANES)
                store(memory, y + (first + r) * y_row + place, maximum(value + offset, least))


@helper
def _columns(memory, at, column, count, first, taps, to):
    """Write ``count`` columns of a row of a weight, each second from ``at`` on: of each tap from ``first`` a vector."""
    if count == LANES and taps - first >= LANES:
        transpose(memory, at + first, 2 * column, memory, to, LANES)
    else:
        for t in range(first, min(first + LANES, taps)):
            for lane in range(LANES):
                inside = lane < count
                memory[to + (t - first) * LANES + lane] = element(memory, at + 2 * lane * column + t) if inside else 0


@instruction("weight:place row:word column:word columns:word rows:word taps:word work:place -> y:place")
@helper
def amx_weight(memory, block, weight, row, column, columns, rows, taps, work, y):
    """y = SIDE rows of a weight in registers, those of 32 columns tap by tap, rounded to bfloat16; 0 behind its ends.

    row, column: how far these are apart in the weight, whose taps lie together.
    """
    zero, others = fill(0.0), work + LANES * LANES
    for c in range(0, (columns + STEPS - 1) // STEPS * STEPS, 2 * LANES):
        to = y + c // STEPS * taps * REGISTER + c % STEPS // 2
        count = max(0, min(2 * LANES, columns - c))
        for i in range(SIDE):
            if i >= rows - block * SIDE or count == 0:
                for t in range(taps):
                    store(memory, to + t * REGISTER + i * SIDE, zero)
                continue
            at, first = weight + i * row + c * column, 0
            while first < taps:
                if first and first + LANES > taps > LANES:
                    first = taps - LANES  # some taps once more: whole vectors
                _columns(memory, at, column, (count + 1) // 2, first, taps, work)
                _columns(memory, at + column, column, count // 2, first, taps, others)
                for t in range(min(LANES, taps - first)):
                    pair = paired(load(memory, work + t * LANES), load(memory, others + t * LANES))
                    store(memory, to + (first + t) * REGISTER + i * SIDE, pair)
                first += LANES


@instruction("gy:view size:size -> y:place")
@helper
def amx_rows(memory, gy, size, y):
    """y = gy in registers: rows are channels, steps the images of four pixels; 0 behind a row's end.

    gy: pairs of channels; size: of what they were made of.
    """
    channels, height, width = size
    across = (width + 3) // 4
    zero = fill(0.0)
    for c in range(0, channels, 2):
        for i in range(height):
            at = gy.at + c // 2 * gy.plane + i * gy.row
            to = y + ((c // SIDE * height + i) * across) * REGISTER + c % SIDE * SIDE
            for j in range(0, width, 4):
                for k in range(0, 4, 2):
                    low = load(memory, at + (j + k) * LANES) if j + k < width else zero
                    high = load(memory, at + (j + k + 1) * LANES) if j + k + 1 < width else zero
                    place = to + j // 4 * REGISTER + k * LANES // 2
                    store(memory, place, lower_halves(low, high))
                    store(memory, place + SIDE, upper_halves(low, high))


@instruction("x:view size:size rows:pair columns:pair phase:word -> y:place")
@helper
def amx_columns(memory, x, size, rows, columns, phase, y):
    """y = x in registers: steps are the images of pixels, columns SIDE channels; 0 around the picture.

    A pixel has LANES / 2 rows, one a pair of images. x: pairs of channels; size: of what they were made of. rows: of y,
    and how many of zeros are before those of x; columns: the stride of the convolution and how many of zeros are before
    those of x; phase: pixels of y of each phase of the stride, one after the other.
    """
    channels, height, width = size
    stride, left = columns
    zero, pixel = fill(0.0), LANES // 2 * SIDE
    for c in range(0, channels, LANES):
        half = c % SIDE
        for i in range(rows[0]):
            to = y + (c // SIDE * rows[0] + i) * stride * phase * pixel + half
            at, line = i - rows[1], x.at + c // 2 * x.plane + (i - rows[1]) * x.row
            for q in range(stride * phase):
                j = q % phase * stride + q // phase - left
                if 0 <= at < height and 0 <= j < width:
                    turn_pairs(memory, line + j * LANES, x.plane, to + q * pixel, SIDE)
                else:
                    for k in range(0, LANES, 2):
                        store(memory, to + q * pixel + k // 2 * SIDE, zero)


@instruction(
    "gy:place gy_row:word x:place x_columns:word gy_steps:word x_steps:word steps:word columns:word groups:word "
    "row:word -> partial:part"
)
@helper
def amx_gradient(
    memory, table, gy, gy_row, x, x_columns, gy_steps, x_steps, steps, columns, groups, partial, row, accumulate
):
    """partial = gy x^T for ``groups`` of SIDE rows and ``columns`` of SIDE channels at a tap each, all side by side."""
    _gradient(
        memory, table, gy, gy_row, x, x_columns, gy_steps, x_steps, steps, columns, groups, partial, row, accumulate
    )


@instruction(
    "gy:place gy_row:word x:place x_columns:word gy_steps:word x_steps:word steps:word columns:word groups:word "
    "at_once:word row:word -> y:place"
)
@helper
def amx_matrix(
    memory, table, block, gy, gy_row, x, x_columns, gy_steps, x_steps, steps, columns, groups, at_once, y, row
):
    """The same for all blocks of images at once, and ``at_once`` of the ``groups``."""
    high = min(at_once, groups - block * at_once)
    _gradient(memory, table, gy, gy_row, x, x_columns, gy_steps, x_steps, steps, columns, high, y, row, False)


@helper
def _gradient(memory, table, gy, gy_row, x, x_columns, gy_steps, x_steps, steps, columns, groups, out, row, is_added):
    begin()
    for start in range(0, steps, _AT_ONCE):
        for j in range(0, columns, 2):
            for i in range(0, groups, 2):
                matrix_products(
                    memory, table, min(2, groups - i), min(2, columns - j), is_added or start > 0,
                    out + i * SIDE * row + j * SIDE, SIDE * row, SIDE, row, gy + i * gy_row, gy_row, gy_steps + start,
                    x, SIDE, x_columns + j, x_steps + start, min(_AT_ONCE, steps - start),
                )  # fmt: skip
    end()


@instruction(
    "sums:place parts:word part:word row:word columns:word rows:word at_once:word taps:word work:place -> y:place"
)
@helper
def amx_gathered(memory, block, sums, parts, part, row, columns, rows, at_once, taps, work, y):
    """y = the sum over ``parts`` of what those made, as filters of ``at_once`` rows: columns, and of each its taps."""
    for i in range(min(at_once, rows - block * at_once)):
        for c in range(0, columns, LANES):
            for t in range(taps):
                at = sums + i * row + (c // SIDE * taps + t) * SIDE + c % SIDE
                total = load(memory, at)
                for p in range(1, parts):
                    total = total + load(memory, at + p * part)
                store(memory, work, total)
                for lane in range(min(LANES, columns - c)):
                    put(memory, y + (i * columns + c + lane) * taps + t, memory[work + lane])
