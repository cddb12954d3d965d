"""The transforms of filters to the points of Winograd's methods, and of their gradients back.

A block is some rows of filters, (rows, columns, taps), and in an operand that lies outside of the memory too. Lanes are
filters of a row.
"""

from minicnn.backend.cpu.halves import bfloat16
from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import element, fill, load, multiply_add, put, store
from minicnn.backend.cpu.transforms import gather_filter, spread_filter

WORK = 2 * 36 * LANES
"""Room that both instructions need."""


@helper
def _take(memory, at, column, count, taps, turned, rounded, to):
    """Write the taps of ``count`` filters, ``column`` apart, as vectors."""
    for t in range(taps):
        place = to + (taps - 1 - t if turned else t) * LANES
        for lane in range(count):
            memory[place + lane] = element(memory, at + lane * column + t)
        if rounded:
            store(memory, place, bfloat16(load(memory, place)))


@helper
def _spread(memory, matrix, points, taps, at, to, step):
    """Write the points of the filters whose taps are at ``at``, ``step`` apart."""
    if points == 36:
        spread_filter(4, memory, at, 3 * LANES, to, step)
    elif points == 16:
        spread_filter(2, memory, at, 3 * LANES, to, step)
    else:
        for p in range(points):
            total = fill(0.0)
            for t in range(taps):
                factor = fill(element(memory, matrix + p * taps + t))
                total = multiply_add(factor, load(memory, at + t * LANES), total)
            store(memory, to + p * step, total)


@helper
def _gather(memory, matrix, points, taps, at, step, to):
    """Write the gradients for the taps, as vectors, from those for points that are ``step`` apart."""
    if points == 36:
        gather_filter(4, memory, at, step, to, 3 * LANES)
    elif points == 16:
        gather_filter(2, memory, at, step, to, 3 * LANES)
    else:
        for t in range(taps):
            total = fill(0.0)
            for p in range(points):
                factor = fill(element(memory, matrix + p * taps + t))
                total = multiply_add(factor, load(memory, at + p * step), total)
            store(memory, to + t * LANES, total)


@instruction(
    "weight:place row:word column:word columns:word rows:word at_once:word turned:word rounded:word matrix:region "
    "points:word taps:word work:place plane:word -> y:place"
)
@helper
def filter_points(
    memory, block, weight, row, column, columns, rows, at_once, turned, rounded, matrix, points, taps, work, plane, y
):
    """y[p, i, j] = sum_t matrix[p, t] weight[i, j, t] for ``at_once`` rows i of ``rows``.

    row, column: how far filters are apart in the weight; turned: whether by 180 degrees; rounded: whether to bfloat16;
    plane: how far points are in y. The matrices of 16 and 36 points are those of F(2 x 2) and F(4 x 4) and not read.
    """
    spread = work + taps * LANES
    for j in range(0, columns, LANES):
        count = min(LANES, columns - j)
        for i in range(min(at_once, rows - block * at_once)):
            _take(memory, weight + i * row + j * column, column, count, taps, turned, rounded, work)
            to = y + i * columns + j
            if count == LANES:
                _spread(memory, matrix, points, taps, work, to, plane)
            else:
                _spread(memory, matrix, points, taps, work, spread, LANES)
                for p in range(points):
                    for lane in range(count):
                        put(memory, to + p * plane + lane, memory[spread + p * LANES + lane])


@instruction(
    "sums:place parts:word part:word plane:word columns:word rows:word at_once:word matrix:region points:word "
    "taps:word work:place -> y:place"
)
@helper
def filter_gradient(memory, block, sums, parts, part, plane, columns, rows, at_once, matrix, points, taps, work, y):
    """y[i, j, t] = sum_p matrix[p, t] (the sum of sums[p, i, j] over ``parts``) for ``at_once`` rows i of ``rows``.

    part, plane: how far parts and points are apart in the sums; matrix: as of :func:`filter_points`.
    """
    made = work + points * LANES
    for i in range(min(at_once, rows - block * at_once)):
        for j in range(0, columns, LANES):
            for p in range(points):
                at = sums + p * plane + i * columns + j
                total = load(memory, at)
                for k in range(1, parts):
                    total = total + load(memory, at + k * part)
                store(memory, work + p * LANES, total)
            _gather(memory, matrix, points, taps, work, LANES, made)
            to = y + (i * columns + j) * taps
            for lane in range(min(LANES, columns - j)):
                for t in range(taps):
                    put(memory, to + lane * taps + t, memory[made + t * LANES + lane])
