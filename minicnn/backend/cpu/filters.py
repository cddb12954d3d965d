"""The transforms of filters to the points of Winograd's methods, and of their gradients back.

The operands may lie anywhere: their addresses are outside of the memory. A block is a row of the result.
"""

from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import element, fill, load, multiply_add, put, store

CHUNK = 64
"""Filters of a row at a time: at each point they lie together."""


@helper
def _put(memory, at, step, vector, count, work):
    """Write the first ``count`` lanes of a vector, ``step`` apart."""
    if step == 1 and count >= LANES:
        store(memory, at, vector)
    else:
        store(memory, work, vector)
        for lane in range(min(count, LANES)):
            put(memory, at + lane * step, memory[work + lane])


@instruction(
    "weight:region row:word column:word columns:word matrix:region points:word taps:word work:place plane:word "
    "-> y:region"
)
@helper
def filter_points(memory, block, weight, row, column, columns, matrix, points, taps, work, plane, y):
    """y[p, i, j] = sum_t matrix[p, t] weight[i, j, t] for row i = ``block``.

    row, column: how far filters are apart in the weight; plane: how far points are in y. work: room for
    taps CHUNK + LANES numbers.
    """
    source, result = weight + block * row, y + block * columns
    for start in range(0, columns, CHUNK):
        count = min(CHUNK, columns - start)
        for j in range(count):
            for t in range(taps):
                memory[work + t * CHUNK + j] = element(memory, source + (start + j) * column + t)
        for p in range(points):
            for j in range(0, count, LANES):
                total = fill(0.0)
                for t in range(taps):
                    factor = fill(element(memory, matrix + p * taps + t))
                    total = multiply_add(factor, load(memory, work + t * CHUNK + j), total)
                _put(memory, result + p * plane + start + j, 1, total, count - j, work + taps * CHUNK)


@instruction(
    "sums:region parts:word part:word plane:word columns:word matrix:region points:word taps:word work:place "
    "-> y:region"
)
@helper
def filter_gradient(memory, block, sums, parts, part, plane, columns, matrix, points, taps, work, y):
    """y[i, j, t] = sum_p matrix[p, t] (the sum of sums[p, i, j] over ``parts``) for row i = ``block``.

    part, plane: how far parts and points are apart in the sums. work: room for points CHUNK + LANES numbers.
    """
    for start in range(0, columns, CHUNK):
        count = min(CHUNK, columns - start)
        for p in range(points):
            at = sums + p * plane + block * columns + start
            for j in range(0, count, LANES):
                total = load(memory, at + j)
                for k in range(1, parts):
                    total = total + load(memory, at + j + k * part)
                store(memory, work + p * CHUNK + j, total)
        for j in range(0, count, LANES):
            for t in range(taps):
                total = fill(0.0)
                for p in range(points):
                    factor = fill(element(memory, matrix + p * taps + t))
                    total = multiply_add(factor, load(memory, work + p * CHUNK + j), total)
                to = y + (block * columns + start + j) * taps + t
                _put(memory, to, taps, total, count - j, work + points * CHUNK)
