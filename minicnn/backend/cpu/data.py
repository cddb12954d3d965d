"""Batches of pictures."""

import numba
import numpy as np

from minicnn.backend.cpu.jit import LANES, jit, plain
from minicnn.backend.cpu.lanes import fill, load_bytes, store, turned


def gather_images(images, index, flip, dy, dx, mean, std, mode):
    """See :func:`minicnn.backend.reference.gather_images`."""
    y = np.empty((len(index), *images.shape[1:]), dtype=np.float32)
    scale = (1 / (255 * std)).astype(np.float32)
    _gather(
        plain(images), plain(index), plain(flip), plain(dy), plain(dx), scale, plain(mean / std), mode == "reflect", y
    )
    return y


@jit(parallel=True)
def _gather(images, index, flip, dy, dx, scale, shift, reflect, y):
    n, c, h, w = y.shape
    pixels, out = images.ravel(), y.ravel()
    for i in numba.prange(n):
        move = -dx[i] if flip[i] else dx[i]
        low, high = min(max(0, -move), w), max(min(w, w - move), 0)  # these columns come from the picture itself
        for k in range(h):
            row = k + dy[i]
            if reflect:
                row = h - 1 - abs(h - 1 - abs(row))
            for channel in range(c):
                factor, offset = scale[channel], shift[channel]
                source, target = ((index[i] * c + channel) * h + row) * w, ((i * c + channel) * h + k) * w
                there = 0 <= row < h
                first, last = (low, high) if there and high - low >= LANES else (0, 0)
                factors, offsets = fill(factor), fill(offset)
                for start in range(first, last, LANES):
                    j = min(start, last - LANES)  # the last vector may overlap
                    if flip[i]:
                        value = turned(load_bytes(pixels, source + w - LANES - j - move))
                    else:
                        value = load_bytes(pixels, source + j + move)
                    store(out, target + j, value * factors - offsets)
                for rest in range(w - (last - first)):
                    j = rest if rest < first else rest + last - first
                    column = (w - 1 - j if flip[i] else j) + dx[i]
                    if reflect:
                        column = w - 1 - abs(w - 1 - abs(column))
                    value = np.float32(pixels[source + column]) if there and 0 <= column < w else np.float32(0)
                    out[target + j] = value * factor - offset
