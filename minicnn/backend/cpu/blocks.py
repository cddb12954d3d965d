"""Operations on one block of LANES images in the interleaved layout, all inside one float32 ``memory``.

A block of a value is (C, H, W, LANES): channel c begins at ``at + c plane``, its row i at ``+ i row``, pixel j at
``+ j LANES``. ``plane`` and ``row`` may be longer than the pixels need: the halo of zeros around them is what a padded
convolution reads.
"""

import numpy as np

from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import (
    fill,
    load,
    maximum,
    multiply_add,
    store,
    total,
    transpose,
    where_equal,
    where_greater,
)
from minicnn.backend.cpu.tile import TILES, tile


@helper
def interleave(x, first, images, memory, at, plane, row, spacing):
    """Write x[first : first + images], (images, C, H, W), as a block with ``spacing - 1`` gaps; absent images are 0."""
    _, channels, height, width = x.shape
    if plane == height * width * LANES and row == width * LANES and spacing[0] * spacing[1] == 1:
        channels, height, width = 1, 1, channels * height * width  # one long row
    flat, step, right = x.ravel(), x.shape[1] * x.shape[2] * x.shape[3], spacing[1] * LANES
    source = first * step
    for c in range(channels):
        for i in range(height):
            start, j = at + c * plane + i * spacing[0] * row, 0
            if images == LANES:
                while j + LANES <= width:
                    transpose(flat, source + j, step, memory, start + j * right, right)
                    j += LANES
            while j < width:
                for lane in range(images):
                    memory[start + j * right + lane] = flat[source + j + lane * step]
                for lane in range(images, LANES):
                    memory[start + j * right + lane] = 0
                j += 1
            source += width


@helper
def deinterleave(memory, at, plane, row, size, out, to, first, images):
    """Write a block of ``size`` (C, H, W) to out[to:], image by image in C order, the first at place ``first``."""
    channels, height, width = size
    step = channels * height * width
    if plane == height * width * LANES and row == width * LANES:
        channels, height, width = 1, 1, step  # one long row
    target = to + first * step
    for c in range(channels):
        for i in range(height):
            start, j = at + c * plane + i * row, 0
            if images == LANES:
                while j + LANES <= width:
                    transpose(memory, start + j * LANES, LANES, out, target + j, step)
                    j += LANES
            while j < width:
                for lane in range(images):
                    out[target + j + lane * step] = memory[start + j * LANES + lane]
                j += 1
            target += width


@helper
def products(shape, memory, table, out, out_row, a, a_row, x, out_j, x_j, a_k, x_k, steps, columns, rows, bias, floor):
    """``rows`` x ``columns`` of out by tiles of TILES[shape]; see :func:`minicnn.backend.cpu.tile.tile`."""
    if shape == 0:
        high, wide = TILES[0]
    elif shape == 1:
        high, wide = TILES[1]
    else:
        high, wide = TILES[2]
    for i in range(0, rows, high):
        y, w, b = out + i * out_row, a + i * a_row, bias + i
        for j in range(0, columns, wide):
            u, v = out_j + j, x_j + j
            if shape == 0:  # the tile wants a literal
                tile(
                    0, 0, memory, y, out_row, memory, w, a_row, memory, x, table, a_k, u, v, x_k, steps, memory, b,
                    floor,
                )  # fmt: skip
            elif shape == 1:
                tile(
                    1, 0, memory, y, out_row, memory, w, a_row, memory, x, table, a_k, u, v, x_k, steps, memory, b,
                    floor,
                )  # fmt: skip
            else:
                tile(
                    2, 0, memory, y, out_row, memory, w, a_row, memory, x, table, a_k, u, v, x_k, steps, memory, b,
                    floor,
                )  # fmt: skip


@helper
def accumulate(shape, memory, table, out, out_row, a, a_row, x, out_j, x_j, a_k, x_k, steps, columns, rows):
    """Add ``rows`` x ``columns`` products to out, whose rows and columns have room for whole tiles."""
    none = memory.dtype.type(-np.inf)
    if shape == 0:
        high, wide = TILES[0]
    else:
        high, wide = TILES[1]
    for i in range(0, rows, high):
        y, w = out + i * out_row, a + i * a_row
        for j in range(0, columns, wide):
            u, v = out_j + j, x_j + j
            if shape == 0:
                tile(
                    0, 2, memory, y, out_row, memory, w, a_row, memory, x, table, a_k, u, v, x_k, steps, memory, 0, none
                )
            else:
                tile(
                    1, 2, memory, y, out_row, memory, w, a_row, memory, x, table, a_k, u, v, x_k, steps, memory, 0, none
                )


@helper
def weight_gradient(
    shape, memory, table, out, out_row, gy, gy_row, x, sums, sums_j, x_j, a_k, x_k, steps, columns, rows, zeros, again
):
    """out[i, j] = sum over pixels and lanes of gy[i] x[j], for ``rows`` x ``columns``, plus what is there if ``again``.

    sums: room for a tile.
    """
    none = memory.dtype.type(-np.inf)
    if shape == 0:
        high, wide = TILES[0]
    else:
        high, wide = TILES[1]
    row = wide * LANES
    for i in range(0, rows, high):
        g = gy + i * gy_row
        for j in range(0, columns, wide):
            v = x_j + j
            if shape == 0:
                tile(
                    0, 1, memory, sums, row, memory, g, gy_row, memory, x, table, a_k, sums_j, v, x_k, steps, memory,
                    zeros, none,
                )  # fmt: skip
            else:
                tile(
                    1, 1, memory, sums, row, memory, g, gy_row, memory, x, table, a_k, sums_j, v, x_k, steps, memory,
                    zeros, none,
                )  # fmt: skip
            for r in range(min(high, rows - i)):
                place = out + (i + r) * out_row + j
                for c in range(min(wide, columns - j)):
                    before = memory[place + c] if again else memory.dtype.type(0)
                    memory[place + c] = before + total(load(memory, sums + (r * wide + c) * LANES))


@helper
def max_pool(memory, x, x_plane, x_row, y, y_plane, y_row, size, window, stride, least):
    """y = max(largest of each window, least); the windows lie inside x. size: of y."""
    for c in range(size[0]):
        for i in range(size[1]):
            line, out = x + c * x_plane + i * stride[0] * x_row, y + c * y_plane + i * y_row
            for j in range(size[2]):
                best = fill(least)
                for u in range(window[0]):
                    for v in range(window[1]):
                        best = maximum(best, load(memory, line + u * x_row + (j * stride[1] + v) * LANES))
                store(memory, out + j * LANES, best)


@helper
def max_pool_grad(
    memory, gy, gy_plane, gy_row, x, x_plane, x_row, y, y_plane, y_row, gx, gx_plane, gx_row, size, window, stride,
    x_size, least,
):  # fmt: skip
    """gx = gy at the first pixel of its window that equals y, unless ``least`` won; summed where windows overlap."""
    zero, threshold = fill(0.0), fill(least)
    for c in range(x_size[0]):
        for i in range(x_size[1]):
            for j in range(x_size[2]):
                store(memory, gx + c * gx_plane + i * gx_row + j * LANES, zero)
    for c in range(size[0]):
        for i in range(size[1]):
            line, target = x + c * x_plane + i * stride[0] * x_row, gx + c * gx_plane + i * stride[0] * gx_row
            for j in range(size[2]):
                best = load(memory, y + c * y_plane + i * y_row + j * LANES)
                left = load(memory, gy + c * gy_plane + i * gy_row + j * LANES)
                if least > -np.inf:
                    left = where_greater(best, threshold, left, zero)
                for u in range(window[0]):
                    for v in range(window[1]):
                        value = load(memory, line + u * x_row + (j * stride[1] + v) * LANES)
                        place = target + u * gx_row + (j * stride[1] + v) * LANES
                        store(memory, place, load(memory, place) + where_equal(value, best, left, zero))
                        left = where_equal(value, best, zero, left)


@helper
def avg_pool(memory, x, plane, row, size, rows, columns, y, y_plane):
    """y = the sum of the pixels, each times the factors of its row and its column, where these are not 0: one window.

    size: of x.
    """
    for c in range(size[0]):
        sums = fill(0.0)
        for i in range(size[1]):
            start, line = x + c * plane + i * row, fill(0.0)
            for j in range(size[2]):
                if memory[columns + j] != 0:
                    line = multiply_add(load(memory, start + j * LANES), fill(memory[columns + j]), line)
            if memory[rows + i] != 0:
                sums = multiply_add(line, fill(memory[rows + i]), sums)
        store(memory, y + c * y_plane, sums)


@helper
def avg_pool_grad(memory, gy, gy_plane, gx, plane, row, size, rows, columns):
    """gx = gy times the factors of the row and the column, 0 where one of these is. size: of gx."""
    zero = fill(0.0)
    for c in range(size[0]):
        gradient = load(memory, gy + c * gy_plane)
        for i in range(size[1]):
            start, line = gx + c * plane + i * row, gradient * fill(memory[rows + i])
            for j in range(size[2]):
                inside = memory[rows + i] != 0 and memory[columns + j] != 0
                store(memory, start + j * LANES, line * fill(memory[columns + j]) if inside else zero)


@helper
def cross_entropy(memory, logits, plane, classes, labels, first, images, smoothing, probabilities, step, losses):
    """Losses of ``images`` pictures at losses + first, and their softmax as a block."""
    off = smoothing / np.float32(classes)
    for lane in range(LANES):
        highest = memory[logits + lane]
        for k in range(1, classes):
            highest = max(highest, memory[logits + k * plane + lane])
        total = np.float32(0)
        for k in range(classes):
            e = np.exp(memory[logits + k * plane + lane] - highest)
            memory[probabilities + k * step + lane] = e
            total += e
        if lane < images:
            logarithm, loss = np.log(total), np.float32(0)
            for k in range(classes):
                target = off + (np.float32(1) - smoothing if k == labels[first + lane] else np.float32(0))
                if target != 0:  # the logit may be -infinity
                    loss -= target * (memory[logits + k * plane + lane] - highest - logarithm)
            memory[losses + first + lane] = loss
        for k in range(classes):
            memory[probabilities + k * step + lane] /= total


@helper
def cross_entropy_grad(memory, probabilities, plane, classes, labels, first, images, smoothing, glosses, out, step):
    """The gradient for the logits; absent images have none."""
    off = smoothing / np.float32(classes)
    for k in range(classes):
        for lane in range(images):
            target = off + (np.float32(1) - smoothing if k == labels[first + lane] else np.float32(0))
            value = memory[probabilities + k * plane + lane] - target
            memory[out + k * step + lane] = value * memory[glosses + first + lane]
        for lane in range(images, LANES):
            memory[out + k * step + lane] = 0
