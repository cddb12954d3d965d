"""Batches of pictures."""

import numba
import numpy as np

from minicnn.backend.cpu.jit import jit, plain


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
    for i in numba.prange(n):
        columns = np.empty(w, dtype=np.int64)  # column of the source, -1 where there is none
        for j in range(w):
            column = (w - 1 - j if flip[i] else j) + dx[i]
            if reflect:
                column = w - 1 - abs(w - 1 - abs(column))
            columns[j] = column if 0 <= column < w else -1
        for k in range(h):
            row = k + dy[i]
            if reflect:
                row = h - 1 - abs(h - 1 - abs(row))
            for channel in range(c):
                for j in range(w):
                    value = np.float32(0)
                    if 0 <= row < h and columns[j] >= 0:
                        value = np.float32(images[index[i], channel, row, columns[j]])
                    y[i, channel, k, j] = value * scale[channel] - shift[channel]
