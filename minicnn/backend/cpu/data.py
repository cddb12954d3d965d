"""Batches of pictures."""

import numba
import numpy as np

from minicnn.backend.cpu.jit import LANES, contiguous, helper, jit
from minicnn.backend.cpu.lanes import fill, load_pixels, prefetch, reversed_lanes, store
from minicnn.backend.reference.data import taps, white

_MODES = {"constant": 0, "reflect": 1, "replicate": 2}


def gather_images(images, index, flip, dy, dx, mean, std, mode):
    """See :func:`minicnn.backend.reference.data.gather_images`."""
    y = np.empty((len(index), *images.shape[1:]), dtype=np.float32)
    scale = (1 / (white(images) * std)).astype(np.float32)
    images, index, flip, dy, dx, shift = map(contiguous, (images, index, flip, dy, dx, mean / std))
    _gather(images, index, flip, dy, dx, scale, shift, _MODES[mode], y)
    return y


def warp_images(images, index, matrix, mean, std, mode):
    """See :func:`minicnn.backend.reference.data.warp_images`."""
    y = np.empty((len(index), *images.shape[1:]), dtype=np.float32)
    scale = (1 / (white(images) * std)).astype(np.float32)
    _warp(contiguous(images), contiguous(index), contiguous(matrix), scale, contiguous(mean / std), _MODES[mode], y)
    return y


def crop_images(images, index, boxes, size):
    """See :func:`minicnn.backend.reference.data.crop_images`."""
    y = np.empty((len(index), images.shape[1], *size), dtype=np.float32)
    rows, columns = taps(boxes[:, :2], images.shape[2], size[0], np), taps(boxes[:, 2:], images.shape[3], size[1], np)
    _crop(contiguous(images), contiguous(index), *map(contiguous, (*rows, *columns)), np.float32(white(images)), y)
    return y


@helper
def _place(position, size, mode):
    """As in the reference; -1 for a black pixel."""
    if 0 <= position < size:
        return position
    if mode == 0:
        return -1
    if mode == 2 or size == 1:
        return min(max(position, 0), size - 1)
    position %= 2 * (size - 1)
    return min(position, 2 * (size - 1) - position)


@jit(parallel=True)
def _gather(images, index, flip, dy, dx, scale, shift, mode, y):
    n, c, h, w = y.shape
    pixels, out = images.ravel(), y.ravel()
    for i in numba.prange(n):
        following = index[min(i + 1, n - 1)] * c * h * w  # pictures lie anywhere in the memory
        for start in range(0, c * h * w, 64 // pixels.itemsize):
            prefetch(pixels, following + start)
        move = -dx[i] if flip[i] else dx[i]
        low, high = min(max(0, -move), w), max(min(w, w - move), 0)  # these columns come from the picture itself
        if high - low < LANES:
            low, high = 0, 0
        columns = np.empty(w, dtype=np.int64)  # of the others
        for j in range(w):
            columns[j] = _place((w - 1 - j if flip[i] else j) + dx[i], w, mode)
        for k in range(h):
            row = _place(k + dy[i], h, mode)
            first, last = (low, high) if row >= 0 else (0, 0)
            for channel in range(c):
                factor, offset = scale[channel], shift[channel]
                source, target = ((index[i] * c + channel) * h + row) * w, ((i * c + channel) * h + k) * w
                factors, offsets = fill(factor), fill(offset)
                for start in range(first, last, LANES):
                    j = min(start, last - LANES)  # the last vector may overlap
                    if flip[i]:
                        value = reversed_lanes(load_pixels(pixels, source + w - LANES - j - move))
                    else:
                        value = load_pixels(pixels, source + j + move)
                    store(out, target + j, value * factors - offsets)
                for rest in range(w - (last - first)):
                    j = rest if rest < first else rest + last - first
                    value = np.float32(pixels[source + columns[j]]) if row >= 0 and columns[j] >= 0 else np.float32(0)
                    out[target + j] = value * factor - offset


@jit(parallel=True)
def _warp(images, index, matrix, scale, shift, mode, y):
    n, c, h, w = y.shape
    pixels, out = images.ravel(), y.ravel()
    for i in numba.prange(n):
        xx, xy, x0, yx, yy, y0 = matrix[i].ravel()
        for k in range(h):
            x_row, y_row = xy * np.float32(k) + x0, yy * np.float32(k) + y0
            for j in range(w):
                across, down = xx * np.float32(j) + x_row, yx * np.float32(j) + y_row
                left, top = np.floor(across), np.floor(down)
                a, b = across - left, down - top
                column, row = int(left), int(top)
                inside = 0 <= column < w - 1 and 0 <= row < h - 1
                above, below, near, far = row, row + 1, column, column + 1
                if not inside:
                    above, below = _place(above, h, mode), _place(below, h, mode)
                    near, far = _place(near, w, mode), _place(far, w, mode)
                for channel in range(c):
                    plane = (index[i] * c + channel) * h * w
                    if inside:
                        p = _value(pixels, plane + above * w + near)
                        q = _value(pixels, plane + below * w + near)
                        r = _value(pixels, plane + above * w + far)
                        s = _value(pixels, plane + below * w + far)
                    else:
                        p = _pixel(pixels, plane, above, near, w)
                        q = _pixel(pixels, plane, below, near, w)
                        r = _pixel(pixels, plane, above, far, w)
                        s = _pixel(pixels, plane, below, far, w)
                    p += (r - p) * a
                    q += (s - q) * a
                    out[((i * c + channel) * h + k) * w + j] = (p + (q - p) * b) * scale[channel] - shift[channel]


@jit(parallel=True)
def _crop(images, index, rows, row_weights, columns, column_weights, white, y):
    n, c, h, w = y.shape
    height, width = images.shape[2:]
    pixels = images.ravel()
    for i in numba.prange(n):
        top, bottom = rows[i, 0].min(), rows[i, h - 1].max() + 1
        narrow = np.empty((bottom - top, w), dtype=np.float32)  # rows of the part, resized across
        for channel in range(c):
            plane = (index[i] * c + channel) * height * width
            for row in range(top, bottom):
                line = plane + row * width
                for j in range(w):
                    total = _value(pixels, line + columns[i, j, 0]) * column_weights[i, j, 0]
                    for tap in range(1, columns.shape[2]):
                        total += _value(pixels, line + columns[i, j, tap]) * column_weights[i, j, tap]
                    narrow[row - top, j] = total
            for k in range(h):
                for j in range(w):
                    y[i, channel, k, j] = narrow[rows[i, k, 0] - top, j] * row_weights[i, k, 0]
                for tap in range(1, rows.shape[2]):
                    row, weight = rows[i, k, tap] - top, row_weights[i, k, tap]
                    for j in range(w):
                        y[i, channel, k, j] += narrow[row, j] * weight
                for j in range(w):
                    y[i, channel, k, j] /= white


@helper
def _pixel(pixels, plane, row, column, w):
    return _value(pixels, plane + row * w + column) if row >= 0 and column >= 0 else np.float32(0)


@helper
def _value(pixels, at):
    return np.float32(pixels[np.uintp(at)])  # unsigned: no index counts from the end
