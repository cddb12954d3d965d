"""Operations on one block of LANES images in the interleaved layout, all inside one float32 ``memory``.

A block of a value is (C, H, W, LANES). Of a View of it, channel c begins at ``at + c plane``, its row i at
``+ i row``, pixel j at ``+ j LANES``. ``plane`` and ``row`` may be longer than the pixels need: the halo of zeros
around them is what a padded convolution reads.
"""

import numpy as np

from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import (
    element,
    fill,
    load,
    maximum,
    multiply_add,
    store,
    total,
    transpose,
    where_equal,
    where_greater,
    where_wins,
)
from minicnn.backend.cpu.tile import TILES, tile


@helper
def interleave_images(x, source, size, images, memory, y, spacing):
    """Write images of ``size`` (C, H, W), which lie at x[source:], as a block with ``spacing - 1`` gaps.

    Absent images are 0.
    """
    channels, height, width = size
    step = channels * height * width
    if y.plane == height * width * LANES and y.row == width * LANES and spacing[0] * spacing[1] == 1:
        channels, height, width = 1, 1, step  # one long row
    right = spacing[1] * LANES
    for c in range(channels):
        for i in range(height):
            start, j = y.at + c * y.plane + i * spacing[0] * y.row, 0
            if images == LANES:
                while j + LANES <= width:
                    transpose(x, source + j, step, memory, start + j * right, right)
                    j += LANES
            while j < width:
                for lane in range(images):
                    memory[start + j * right + lane] = x[source + j + lane * step]
                for lane in range(images, LANES):
                    memory[start + j * right + lane] = 0
                j += 1
            source += width


@instruction("size:size -> y:view")
@helper
def feed(memory, images, first, images_in_block, size, y):
    """Interleave what the plan was fed: the images of a block, each of ``size``."""
    source = first * size[0] * size[1] * size[2]
    interleave_images(images, source, size, images_in_block, memory, y, (1, 1))


@instruction("x:word size:size -> y:view")
@helper
def interleave(memory, first, images_in_block, x, size, y):
    """Interleave a contiguous array of images of ``size``."""
    source = x + first * size[0] * size[1] * size[2]
    interleave_images(memory, source, size, images_in_block, memory, y, (1, 1))


@helper
def deinterleave_images(memory, x, size, out, to, first, images):
    """Write a block of ``size`` (C, H, W) to out[to:], image by image in C order, the first at place ``first``."""
    channels, height, width = size
    step = channels * height * width
    if x.plane == height * width * LANES and x.row == width * LANES:
        channels, height, width = 1, 1, step  # one long row
    target = to + first * step
    for c in range(channels):
        for i in range(height):
            start, j = x.at + c * x.plane + i * x.row, 0
            if images == LANES:
                while j + LANES <= width:
                    transpose(memory, start + j * LANES, LANES, out, target + j, step)
                    j += LANES
            while j < width:
                for lane in range(images):
                    out[target + j + lane * step] = memory[start + j * LANES + lane]
                j += 1
            target += width


@instruction("x:view size:size -> y:word")
@helper
def deinterleave(memory, first, images_in_block, x, size, y):
    """Write a block into a contiguous array of all images."""
    deinterleave_images(memory, x, size, memory, y, first, images_in_block)


@instruction(
    "shape:word weight:place weight_row:word x:place y_columns:word x_columns:word weight_steps:word x_steps:word "
    "steps:word columns:word rows:word rows_inside:word bias:region floor:number y_row:word -> y:place"
)
@helper
def products(
    shape, memory, table, y, y_row, weight, weight_row, x, y_columns, x_columns, weight_steps, x_steps, steps, columns,
    rows, rows_inside, bias, floor,
):  # fmt: skip
    """``rows`` x ``columns`` of y by tiles of TILES[shape]; see :func:`minicnn.backend.cpu.tile.tile`.

    rows_inside: not 0 to take all rows for some columns, and then the next columns: x is read once.
    """
    high, wide = TILES[shape]
    outer, inner = (columns, rows) if rows_inside else (rows, columns)
    far, near = (wide, high) if rows_inside else (high, wide)
    for u in range(0, outer, far):
        for v in range(0, inner, near):
            i, j = (v, u) if rows_inside else (u, v)
            tile(
                0, shape, memory, y + i * y_row, y_row, memory, weight + i * weight_row, weight_row, memory, x, table,
                weight_steps, y_columns + j, x_columns + j, x_steps, steps, memory, bias + i, floor,
            )  # fmt: skip


@helper
def add_products(shape, memory, table, out, out_row, a, a_row, x, out_j, x_j, a_k, x_k, steps, columns, rows):
    """Add ``rows`` x ``columns`` products to out, whose rows and columns have room for whole tiles."""
    none = memory.dtype.type(-np.inf)
    high, wide = TILES[shape]
    for i in range(0, rows, high):
        for j in range(0, columns, wide):
            tile(
                2, shape, memory, out + i * out_row, out_row, memory, a + i * a_row, a_row, memory, x, table, a_k,
                out_j + j, x_j + j, x_k, steps, memory, 0, none,
            )  # fmt: skip


@instruction(
    "shape:word gy:place gy_row:word x:place work:place work_columns:word x_columns:word gy_steps:word x_steps:word "
    "steps:word columns:word rows:word zeros:word partial_row:word -> partial:part"
)
@helper
def weight_gradient(
    shape, memory, table, partial, partial_row, gy, gy_row, x, work, work_columns, x_columns, gy_steps, x_steps, steps,
    columns, rows, zeros, accumulate,
):  # fmt: skip
    """partial[i, j] = sum over pixels and lanes of gy[i] x[j], for ``rows`` x ``columns``.

    accumulate: whether it is added to what is there; work: room for a tile.
    """
    none = memory.dtype.type(-np.inf)
    high, wide = TILES[shape]
    row = wide * LANES
    for i in range(0, rows, high):
        for j in range(0, columns, wide):
            tile(
                1, shape, memory, work, row, memory, gy + i * gy_row, gy_row, memory, x, table, gy_steps, work_columns,
                x_columns + j, x_steps, steps, memory, zeros, none,
            )  # fmt: skip
            for r in range(min(high, rows - i)):
                place = partial + (i + r) * partial_row + j
                for c in range(min(wide, columns - j)):
                    before = memory[place + c] if accumulate else memory.dtype.type(0)
                    memory[place + c] = before + total(load(memory, work + (r * wide + c) * LANES))


@instruction("x:view size:size window:pair stride:pair floor:number -> y:view")
@helper
def max_pool(memory, x, size, window, stride, floor, y):
    """y = max(largest of each window, floor); the windows lie inside x. size: of y."""
    if window[0] == window[1] == stride[0] == stride[1] == 2:  # known to the compiler, which unrolls the loops
        _max_pool(memory, x, size, (2, 2), (2, 2), floor, y)
    else:
        _max_pool(memory, x, size, window, stride, floor, y)


@helper
def _max_pool(memory, x, size, window, stride, floor, y):
    for c in range(size[0]):
        for i in range(size[1]):
            line, out = x.at + c * x.plane + i * stride[0] * x.row, y.at + c * y.plane + i * y.row
            for j in range(size[2]):
                best = fill(floor)
                for u in range(window[0]):
                    for v in range(window[1]):
                        best = maximum(best, load(memory, line + u * x.row + (j * stride[1] + v) * LANES))
                store(memory, out + j * LANES, best)


@instruction("x:view size:size window:pair stride:pair floor:number -> y:view taps:view")
@helper
def max_pool_and_taps(memory, x, size, window, stride, floor, y, taps):
    """y as of ``max_pool``, and which pixel of its window that is, counted row by row from 0.

    The first of equal ones, or the first NaN; with a floor, -1 where the maximum is not above it, or is NaN.
    """
    if window[0] == window[1] == stride[0] == stride[1] == 2:  # known to the compiler, which unrolls the loops
        _max_pool_and_taps(memory, x, size, (2, 2), (2, 2), floor, y, taps)
    else:
        _max_pool_and_taps(memory, x, size, window, stride, floor, y, taps)


@helper
def _max_pool_and_taps(memory, x, size, window, stride, floor, y, taps):
    for c in range(size[0]):
        for i in range(size[1]):
            line, out = x.at + c * x.plane + i * stride[0] * x.row, y.at + c * y.plane + i * y.row
            to = taps.at + c * taps.plane + i * taps.row
            for j in range(size[2]):
                start = line + j * stride[1] * LANES
                best, tap = load(memory, start), fill(0.0)
                for u in range(window[0]):
                    for v in range(window[1]):
                        value = load(memory, start + u * x.row + v * LANES)
                        tap = where_wins(value, best, fill(u * window[1] + v), tap)
                        best = where_wins(value, best, value, best)
                if floor > -np.inf:
                    tap = where_greater(best, fill(floor), tap, fill(-1.0))
                    best = maximum(best, fill(floor))
                store(memory, out + j * LANES, best)
                store(memory, to + j * LANES, tap)


@instruction("gy:view taps:view size:size x_size:size window:pair stride:pair -> gx:view")
@helper
def max_pool_grad(memory, gy, taps, size, x_size, window, stride, gx):
    """gx = gy at the pixel of its window that ``taps`` say, summed where windows overlap. size: of gy."""
    zero = fill(0.0)
    is_sum = window[0] != stride[0] or window[1] != stride[1]
    rows, columns = (0, 0) if is_sum else (size[1] * stride[0], size[2] * stride[1])  # what the windows write whole
    for c in range(x_size[0]):
        for i in range(x_size[1]):
            for j in range(columns if i < rows else 0, x_size[2]):
                store(memory, gx.at + c * gx.plane + i * gx.row + j * LANES, zero)
    if window[0] == window[1] == stride[0] == stride[1] == 2:  # known to the compiler, which unrolls the loops
        _max_pool_grad(memory, gy, taps, size, (2, 2), (2, 2), False, gx)
    else:
        _max_pool_grad(memory, gy, taps, size, window, stride, is_sum, gx)


@helper
def _max_pool_grad(memory, gy, taps, size, window, stride, is_sum, gx):
    zero = fill(0.0)
    for c in range(size[0]):
        for i in range(size[1]):
            target = gx.at + c * gx.plane + i * stride[0] * gx.row
            for j in range(size[2]):
                tap = load(memory, taps.at + c * taps.plane + i * taps.row + j * LANES)
                gradient = load(memory, gy.at + c * gy.plane + i * gy.row + j * LANES)
                for u in range(window[0]):
                    for v in range(window[1]):
                        place = target + u * gx.row + (j * stride[1] + v) * LANES
                        share = where_equal(tap, fill(u * window[1] + v), gradient, zero)
                        store(memory, place, load(memory, place) + share if is_sum else share)


@instruction("x:view size:size rows:region columns:region -> y:view")
@helper
def avg_pool(memory, x, size, rows, columns, y):
    """y = the sum of the pixels, each times the factors of its row and its column, where these are not 0: one window.

    size: of x.
    """
    for c in range(size[0]):
        sums = fill(0.0)
        for i in range(size[1]):
            start, line = x.at + c * x.plane + i * x.row, fill(0.0)
            for j in range(size[2]):
                if element(memory, columns + j) != 0:
                    line = multiply_add(load(memory, start + j * LANES), fill(element(memory, columns + j)), line)
            if element(memory, rows + i) != 0:
                sums = multiply_add(line, fill(element(memory, rows + i)), sums)
        store(memory, y.at + c * y.plane, sums)


@instruction("gy:view size:size rows:region columns:region -> gx:view")
@helper
def avg_pool_grad(memory, gy, size, rows, columns, gx):
    """gx = gy times the factors of the row and the column, 0 where one of these is. size: of gx."""
    zero = fill(0.0)
    for c in range(size[0]):
        gradient = load(memory, gy.at + c * gy.plane)
        for i in range(size[1]):
            start, line = gx.at + c * gx.plane + i * gx.row, gradient * fill(element(memory, rows + i))
            for j in range(size[2]):
                inside = element(memory, rows + i) != 0 and element(memory, columns + j) != 0
                store(memory, start + j * LANES, line * fill(element(memory, columns + j)) if inside else zero)


@instruction("x:view classes:word smoothing:number -> y:view losses:word")
@helper
def cross_entropy(memory, labels, first, images_in_block, x, classes, smoothing, y, losses):
    """The losses of a block's images, and their softmax y as a block. x: logits."""
    off = smoothing / np.float32(classes)
    for lane in range(LANES):
        highest = memory[x.at + lane]
        for k in range(1, classes):
            highest = max(highest, memory[x.at + k * x.plane + lane])
        total = np.float32(0)
        for k in range(classes):
            e = np.exp(memory[x.at + k * x.plane + lane] - highest)
            memory[y.at + k * y.plane + lane] = e
            total += e
        if lane < images_in_block:
            logarithm, loss = np.log(total), np.float32(0)
            for k in range(classes):
                target = off + (np.float32(1) - smoothing if k == labels[first + lane] else np.float32(0))
                if target != 0:  # the logit may be -infinity
                    loss -= target * (memory[x.at + k * x.plane + lane] - highest - logarithm)
            memory[losses + first + lane] = loss
        for k in range(classes):
            memory[y.at + k * y.plane + lane] /= total


@instruction("x:view classes:word smoothing:number glosses:region -> y:view")
@helper
def cross_entropy_grad(memory, labels, first, images_in_block, x, classes, smoothing, glosses, y):
    """y = the gradient for the logits, whose softmax is x; absent images have none."""
    off = smoothing / np.float32(classes)
    for k in range(classes):
        for lane in range(images_in_block):
            target = off + (np.float32(1) - smoothing if k == labels[first + lane] else np.float32(0))
            value = memory[x.at + k * x.plane + lane] - target
            memory[y.at + k * y.plane + lane] = value * element(memory, glosses + first + lane)
        for lane in range(images_in_block, LANES):
            memory[y.at + k * y.plane + lane] = 0
