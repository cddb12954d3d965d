"""Convolution in blocks of LANES images: interleave a block, run register tiles over it, take it apart again.

Each thread has a memory of its own for the operands of a block. The results of a block depend on that block alone, and
the gradient of the weight is added up over a fixed partition of the blocks, so that no result depends on the number of
threads.
"""

import numba
import numpy as np

from minicnn.backend.cpu import blocks
from minicnn.backend.cpu.blas import one_thread
from minicnn.backend.cpu.geometry import Window, padded, tile_for, up
from minicnn.backend.cpu.instruction import View
from minicnn.backend.cpu.jit import LANES, contiguous, jit
from minicnn.backend.cpu.threads import get_num_threads
from minicnn.backend.reference import conv as reference
from minicnn.shapes import output_size

# for few images, and for windows that the lanes cannot do
_conv2d = one_thread(reference.conv2d)
_conv2d_grad_input = one_thread(reference.conv2d_grad_input)
_conv2d_grad_weight = one_thread(reference.conv2d_grad_weight)
_PARTS = 16  # at most this many partial sums of the weight's gradient
_PIECE = 1024


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """See :func:`minicnn.backend.reference.conv.conv2d`; fewer than LANES / 2 images are left to it."""
    if x.shape[0] < LANES // 2:
        return _conv2d(x, weight, bias, stride, padding, dilation, groups)
    kernel = weight.shape[2:]
    size = output_size(x.shape[2:], kernel, stride, padding, dilation)
    if bias is None:
        bias = np.zeros(weight.shape[0], dtype=x.dtype)
    return _correlate(x, weight, bias, size, Window(kernel, stride, padding, dilation), groups, (1, 1))


def conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups):
    """See :func:`minicnn.backend.reference.conv.conv2d_grad_input`.

    It is a convolution too: of gy with ``stride - 1`` zeros between its pixels, with the filters rotated by 180 degrees
    and input and output channels exchanged.
    """
    if gy.shape[0] < LANES // 2:
        return _conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups)
    o, c, kh, kw = weight.shape
    rotated = weight[:, :, ::-1, ::-1].reshape(groups, o // groups, c, kh, kw).transpose(0, 2, 1, 3, 4)
    rotated = rotated.reshape(groups * c, o // groups, kh, kw)
    pads = tuple(d * (k - 1) - p for d, k, p in zip(dilation, (kh, kw), padding, strict=True))
    crop = tuple(-min(p, 0) for p in pads)  # a padding beyond the window: the outermost of gy saw zeros only
    if max(crop):
        if max(stride) > 1:
            return _conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups)
        gy = gy[:, :, crop[0] : gy.shape[2] - crop[0], crop[1] : gy.shape[3] - crop[1]]
        pads = tuple(max(p, 0) for p in pads)
    bias = np.zeros(groups * c, dtype=gy.dtype)
    return _correlate(gy, rotated, bias, shape[2:], Window((kh, kw), (1, 1), pads, dilation), groups, stride)


def conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups):
    """See :func:`minicnn.backend.reference.conv.conv2d_grad_weight`."""
    if gy.shape[0] < LANES // 2:
        return _conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups)
    o, c = shape[0] // groups, shape[1]
    window = Window(shape[2:], stride, padding, dilation)
    room = window.room(x.shape[2:], gy.shape[2:])
    choice, rows, columns = tile_for(o)
    taps, pixels = window.tap_offsets(c, *room), window.pixel_offsets(gy.shape[2:], room[1])
    table, starts = padded([np.arange(columns) * LANES, (taps, columns), np.arange(pixels.size) * LANES, pixels])
    parts = min(-(-gy.shape[0] // LANES), _PARTS)
    partial = np.zeros((parts, groups, o, taps.size), dtype=gy.dtype)
    first = padding[0] * room[1] + padding[1] * LANES
    _grad_weight(
        contiguous(gy), contiguous(x), partial, table, starts, taps.size, pixels.size, first, room, choice,
        rows * columns, min(parts, get_num_threads()),
    )  # fmt: skip
    total = partial[0]
    for part in partial[1:]:
        total += part
    return total.reshape(shape)


def conv2d_grad_bias(gy):
    """See :func:`minicnn.backend.reference.conv.conv2d_grad_bias`."""
    n, c, h, w = gy.shape
    return _channel_sums(contiguous(gy).reshape(n, c, h * w)).sum(axis=0).astype(gy.dtype)


def _correlate(x, weight, bias, size, window, groups, spacing):
    """Convolution of x with ``spacing - 1`` zeros between its pixels into ``size``."""
    o, c = weight.shape[0] // groups, weight.shape[1]
    spaced = tuple((n - 1) * s + 1 for n, s in zip(x.shape[2:], spacing, strict=True))
    room = window.room(spaced, size)
    choice, rows, columns = tile_for(o, single=size == (1, 1))
    taps, pixels = window.tap_offsets(c, *room), window.pixel_offsets(size, room[1])
    table, starts = padded([(np.arange(pixels.size) * LANES, columns), (pixels, columns), np.arange(taps.size), taps])
    y = np.empty((x.shape[0], weight.shape[0], *size), dtype=x.dtype)
    first = window.padding[0] * room[1] + window.padding[1] * LANES
    threads = min(-(-x.shape[0] // LANES), get_num_threads())
    _correlate_blocks(
        contiguous(x), contiguous(weight).reshape(-1), contiguous(bias), y, table, starts, taps.size, first, room,
        spacing, groups, choice, up(o, rows), threads,
    )  # fmt: skip
    return y


@jit(parallel=True)
def _correlate_blocks(x, weight, bias, y, table, starts, taps, first, room, spacing, groups, choice, rows, threads):
    n, c = x.shape[0], x.shape[1]
    o, pixels = y.shape[1] // groups, y.shape[2] * y.shape[3]
    plane = pixels * LANES
    weights_at = c * room[0]
    bias_at = weights_at + weight.size + rows * taps  # a tile reads past the last rows
    outputs_at = bias_at + bias.size + rows
    total = outputs_at + (o * (groups - 1) + rows) * plane
    least = x.dtype.type(-np.inf)
    for thread in numba.prange(threads):
        memory = np.zeros(total, dtype=x.dtype)
        memory[weights_at : weights_at + weight.size] = weight
        memory[bias_at : bias_at + bias.size] = bias
        for block in range(thread, (n + LANES - 1) // LANES, threads):
            images = min(LANES, n - block * LANES)
            source, size, at = block * LANES * x[0].size, (c, x.shape[2], x.shape[3]), View(first, room[0], room[1])
            blocks.interleave_images(x.ravel(), source, size, images, memory, at, spacing)
            for group in range(groups):
                blocks.products(
                    choice, memory, table, outputs_at + group * o * plane, plane, weights_at + group * o * taps, taps,
                    group * (c // groups) * room[0], starts[0], starts[1], starts[2], starts[3], taps, pixels, o, 0,
                    bias_at + group * o, least,
                )  # fmt: skip
            made, size = View(outputs_at, plane, y.shape[3] * LANES), (y.shape[1], y.shape[2], y.shape[3])
            blocks.deinterleave_images(memory, made, size, y.ravel(), 0, block * LANES, images)


@jit(parallel=True)
def _grad_weight(gy, x, partial, table, starts, taps, pixels, first, room, choice, tile, threads):
    n, c = x.shape[0], x.shape[1]
    size, gy_size = (c, x.shape[2], x.shape[3]), (gy.shape[1], gy.shape[2], gy.shape[3])
    parts, groups, o = partial.shape[0], partial.shape[1], partial.shape[2]
    plane, row = pixels * LANES, gy.shape[3] * LANES
    gradients_at = c * room[0]
    sums_at = gradients_at + (o * groups + 8) * plane  # a tile reads past the last rows
    zeros_at = sums_at + tile * LANES
    total_at = zeros_at + 8
    for thread in numba.prange(threads):
        memory = np.zeros(total_at + groups * o * taps, dtype=x.dtype)
        for part in range(thread, parts, threads):
            for block in range(part, (n + LANES - 1) // LANES, parts):
                images = min(LANES, n - block * LANES)
                here = View(first, room[0], room[1])
                blocks.interleave_images(x.ravel(), block * LANES * x[0].size, size, images, memory, here, (1, 1))
                here = View(gradients_at, plane, row)
                blocks.interleave_images(gy.ravel(), block * LANES * gy[0].size, gy_size, images, memory, here, (1, 1))
                for group in range(groups):
                    blocks.weight_gradient(
                        choice, memory, table, total_at + group * o * taps, taps, gradients_at + group * o * plane,
                        plane, group * (c // groups) * room[0], sums_at, starts[0], starts[1], starts[2], starts[3],
                        pixels, taps, o, zeros_at, block >= parts,
                    )  # fmt: skip
            partial[part] = memory[total_at:].reshape(groups, o, taps)


@jit(parallel=True, fastmath={"reassoc", "nsz"})
def _channel_sums(x):
    """(N, C, M) -> (N, C), float64: sums of _PIECE pixels in the precision of x, and those in float64."""
    n, c, m = x.shape
    sums = np.empty((n, c), dtype=np.float64)
    for i in numba.prange(n):
        for j in range(c):
            total = np.float64(0)
            for start in range(0, m, _PIECE):
                part = x.dtype.type(0)
                for k in range(start, min(start + _PIECE, m)):
                    part += x[i, j, k]
                total += part
            sums[i, j] = total
    return sums
