"""Convolution in blocks of LANES images: interleave a block, run register tiles over it, take it apart again.

The results of a block depend on that block alone, and the gradient of the weight is added up over a fixed partition of
the blocks, so that no result depends on the number of threads.
"""

import numba
import numpy as np

from minicnn.backend import reference
from minicnn.backend.cpu.jit import LANES, get_num_threads, jit, plain
from minicnn.backend.cpu.tile import TILES, convolve_tile, weight_tile

_PARTS = 16  # at most this many partial sums of the weight's gradient


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """See :func:`minicnn.backend.reference.conv2d`; fewer than LANES / 2 images are left to it."""
    n, _, h, w = x.shape
    if n < LANES // 2:
        return reference.conv2d(x, weight, bias, stride, padding, dilation, groups)
    oh = (h + 2 * padding[0] - dilation[0] * (weight.shape[2] - 1) - 1) // stride[0] + 1
    ow = (w + 2 * padding[1] - dilation[1] * (weight.shape[3] - 1) - 1) // stride[1] + 1
    if bias is None:
        bias = np.zeros(weight.shape[0], dtype=x.dtype)
    return _correlate(x, weight, bias, (oh, ow), stride, padding, dilation, groups, (1, 1))


def conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups):
    """See :func:`minicnn.backend.reference.conv2d_grad_input`.

    It is a convolution too: of gy with ``stride - 1`` zeros between its pixels, with the filters turned by 180 degrees
    and input and output channels exchanged.
    """
    if gy.shape[0] < LANES // 2:
        return reference.conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups)
    o, c, kh, kw = weight.shape
    turned = weight[:, :, ::-1, ::-1].reshape(groups, o // groups, c, kh, kw).transpose(0, 2, 1, 3, 4)
    turned = turned.reshape(groups * c, o // groups, kh, kw)
    pads = (dilation[0] * (kh - 1) - padding[0], dilation[1] * (kw - 1) - padding[1])
    bias = np.zeros(groups * c, dtype=gy.dtype)
    return _correlate(gy, turned, bias, shape[2:], (1, 1), pads, dilation, groups, stride)


def conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups):
    """See :func:`minicnn.backend.reference.conv2d_grad_weight`."""
    if gy.shape[0] < LANES // 2:
        return reference.conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups)
    o, c, kh, kw = shape
    oh, ow = gy.shape[2:]
    choice, rows, columns = _tile_for(o // groups)
    size = _padded_size((oh, ow), (kh, kw), stride, dilation)
    taps = _padded(_taps(c, kh, kw, dilation, size), columns)
    pixels = _pixels(oh, ow, stride, size)
    blocks = -(-gy.shape[0] // LANES)
    parts = min(blocks, _PARTS)
    partial = np.zeros((parts, groups, _up(o // groups, rows), len(taps)), dtype=gy.dtype)
    _grad_weight(plain(gy), plain(x), partial, taps, pixels, padding, size, choice, min(parts, get_num_threads()))
    total = partial[0]
    for part in partial[1:]:
        total += part
    return np.ascontiguousarray(total[:, : o // groups, : c * kh * kw]).reshape(shape)


def conv2d_grad_bias(gy):
    """See :func:`minicnn.backend.reference.conv2d_grad_bias`."""
    gy = plain(gy)
    return _channel_sums(gy.reshape(*gy.shape[:2], -1)).sum(axis=0)


def _correlate(x, weight, bias, output_size, stride, padding, dilation, groups, spacing):
    """Convolution of x with ``spacing - 1`` zeros between its pixels; ``padding`` may be negative."""
    o, c, kh, kw = weight.shape
    oh, ow = output_size
    choice, rows, columns = _tile_for(o // groups)
    size = _padded_size(output_size, (kh, kw), stride, dilation)
    taps = _taps(c, kh, kw, dilation, size)
    pixels = _padded(_pixels(oh, ow, stride, size), columns)
    packed = np.zeros((groups, _up(o // groups, rows), len(taps)), dtype=x.dtype)
    packed[:, : o // groups] = weight.reshape(groups, o // groups, -1)
    packed = np.ascontiguousarray(packed.reshape(groups, -1, rows, len(taps)).transpose(0, 1, 3, 2))
    y = np.empty((x.shape[0], o, oh, ow), dtype=x.dtype)
    threads = min(-(-x.shape[0] // LANES), get_num_threads())
    _correlate_blocks(plain(x), packed, plain(bias), y, taps, pixels, padding, spacing, size, choice, threads)
    return y


def _tile_for(outputs):
    """The tile that wastes the fewest rows on ``outputs`` channels: its index in TILES, rows and columns."""
    choice = min(range(len(TILES)), key=lambda i: (_up(outputs, TILES[i][0]), -TILES[i][0]))
    return choice, *TILES[choice]


def _up(value, multiple):
    return -(-value // multiple) * multiple


def _padded_size(output_size, kernel_size, stride, dilation):
    """Height and width of the part of the picture that the windows see."""
    return tuple((output_size[i] - 1) * stride[i] + dilation[i] * (kernel_size[i] - 1) + 1 for i in range(2))


def _taps(c, kh, kw, dilation, size):
    """Offset of every tap (c, u, v) in an interleaved picture of ``size``."""
    u, v = np.arange(kh)[:, None] * dilation[0] * size[1], np.arange(kw) * dilation[1]
    return ((np.arange(c)[:, None, None] * size[0] * size[1] + u + v) * LANES).ravel()


def _pixels(oh, ow, stride, size):
    """Offset of the first tap of every window."""
    return ((np.arange(oh)[:, None] * stride[0] * size[1] + np.arange(ow) * stride[1]) * LANES).ravel()


def _padded(offsets, multiple):
    """``offsets`` with the last repeated up to a multiple: what the tile computes there is thrown away."""
    return np.pad(offsets, (0, _up(len(offsets), multiple) - len(offsets)), mode="edge")


@jit(parallel=True)
def _correlate_blocks(x, packed, bias, y, taps, pixels, padding, spacing, size, choice, threads):
    n, c = x.shape[0], x.shape[1]
    o, oh, ow = y.shape[1], y.shape[2], y.shape[3]
    groups, chunks, count, rows = packed.shape
    columns = TILES[0][1] if choice == 0 else TILES[1][1]
    weights = packed.ravel()
    plane = pixels.size * LANES
    group_outputs, group_inputs = o // groups, c // groups * size[0] * size[1] * LANES
    for thread in numba.prange(threads):
        inputs = np.zeros(c * size[0] * size[1] * LANES, dtype=x.dtype)
        outputs = np.empty(groups * chunks * rows * plane, dtype=x.dtype)
        for block in range(thread, (n + LANES - 1) // LANES, threads):
            first = block * LANES
            images = min(LANES, n - first)
            _interleave(x, first, images, inputs, padding, spacing, size)
            for group in range(groups):
                for chunk in range(chunks):
                    index = group * chunks + chunk
                    for p in range(0, pixels.size, columns):
                        at = index * rows * plane + p * LANES
                        w = index * count * rows
                        group_x = inputs[group * group_inputs :]
                        convolve_tile(choice, outputs, at, plane, weights, w, rows, group_x, pixels, p, taps)
            for channel in range(o):
                group = channel // group_outputs
                at = (group * chunks * rows + channel - group * group_outputs) * plane
                for lane in range(images):
                    target = y[first + lane, channel]
                    for i in range(oh):
                        for j in range(ow):
                            target[i, j] = outputs[at + (i * ow + j) * LANES + lane] + bias[channel]


@jit(parallel=True)
def _grad_weight(gy, x, partial, taps, pixels, padding, size, choice, threads):
    n, o = gy.shape[0], gy.shape[1]
    c = x.shape[1]
    parts, groups, outputs = partial.shape[0], partial.shape[1], partial.shape[2]
    rows = TILES[0][0] if choice == 0 else TILES[1][0]
    columns = TILES[0][1] if choice == 0 else TILES[1][1]
    blocks = (n + LANES - 1) // LANES
    plane = pixels.size * LANES
    group_outputs, group_inputs = o // groups, c // groups * size[0] * size[1] * LANES
    for thread in numba.prange(threads):
        inputs = np.zeros(c * size[0] * size[1] * LANES, dtype=x.dtype)
        gradients = np.zeros((o + rows) * plane, dtype=x.dtype)  # the last tile of a group reads past its rows
        sums = np.empty(rows * columns * LANES, dtype=x.dtype)
        for part in range(thread, parts, threads):
            for block in range(part, blocks, parts):
                first = block * LANES
                images = min(LANES, n - first)
                _interleave(x, first, images, inputs, padding, (1, 1), size)
                _interleave(gy, first, images, gradients, (0, 0), (1, 1), (gy.shape[2], gy.shape[3]))
                for group in range(groups):
                    group_x = inputs[group * group_inputs :]
                    for r in range(0, outputs, rows):
                        at = (group * group_outputs + r) * plane
                        for t in range(0, taps.size, columns):
                            weight_tile(choice, sums, columns, gradients, at, plane, group_x, taps, t, pixels)
                            for i in range(rows):
                                for j in range(columns):
                                    total = sums[0] * 0
                                    for lane in range(LANES):
                                        total += sums[(i * columns + j) * LANES + lane]
                                    partial[part, group, r + i, t + j] += total


@jit()
def _interleave(x, first, images, out, padding, spacing, size):
    """Write x[first : first + images] as (C, *size, LANES): shifted by the padding, spaced, absent images zero.

    ``out`` starts as zeros, and what lies between and around the pixels is never written.
    """
    height, width = x.shape[2], x.shape[3]
    for c in range(x.shape[1]):
        for i in range(height):
            row = i * spacing[0] + padding[0]
            if row < 0 or row >= size[0]:
                continue
            at = (c * size[0] + row) * size[1]
            for j in range(width):
                column = j * spacing[1] + padding[1]
                if column < 0 or column >= size[1]:
                    continue
                for lane in range(images):
                    out[(at + column) * LANES + lane] = x[first + lane, c, i, j]
                for lane in range(images, LANES):
                    out[(at + column) * LANES + lane] = 0


@jit(parallel=True, fastmath={"reassoc", "nsz"})
def _channel_sums(x):
    """(N, C, M) -> (N, C)."""
    n, c, m = x.shape
    sums = np.empty((n, c), dtype=x.dtype)
    for i in numba.prange(n):
        for j in range(c):
            total = x[i, j, 0] * 0
            for k in range(m):
                total += x[i, j, k]
            sums[i, j] = total
    return sums
