"""Pooling in CUDA."""

import numpy as np

from minicnn.backend.cuda.launch import cupy, empty, launch
from minicnn.backend.reference import pooling as reference

_MANY = 16
"""Elements of a window from which a warp makes its mean."""


def max_pool2d(x, kernel_size, stride, padding, dilation, output_size):
    return _max_pool2d(x, False, kernel_size, stride, padding, dilation, output_size)


def max_pool2d_grad(gy, taps, shape, kernel_size, stride, padding, dilation):
    return _max_pool2d_grad(gy, None, taps, shape, kernel_size, stride, padding, dilation)


def relu_max_pool2d(x, kernel_size, stride, padding, dilation, output_size):
    return _max_pool2d(x, True, kernel_size, stride, padding, dilation, output_size)


def relu_max_pool2d_grad(gy, y, taps, shape, kernel_size, stride, padding, dilation):
    return _max_pool2d_grad(gy, y, taps, shape, kernel_size, stride, padding, dilation)


def avg_pool2d(x, rows, columns):
    y = empty((*x.shape[:2], len(rows), len(columns)), x)
    is_many = x.size >= _MANY * y.size
    name, threads = ("avg_pool2d_of_many", 32 * y.size) if is_many else ("avg_pool2d", y.size)
    launch(name, x.dtype, threads, x, *_factors(rows), *_factors(columns), y, *x.shape[2:], *y.shape[2:], y.size)
    return y


def window_means(like, size, starts, stops, counts):
    # Made on the host: one copy is cheaper than a launch a row.
    return cupy.asarray(reference.window_means(np.empty(0, like.dtype), size, starts, stops, counts))


def _max_pool2d(x, relu, kernel_size, stride, padding, dilation, output_size):
    y = empty((*x.shape[:2], *output_size), x)
    taps = cupy.empty(y.shape, dtype=np.uint16)
    geometry = (*x.shape, *kernel_size, *output_size, *stride, *padding, *dilation)
    launch("max_pool2d", x.dtype, y.size, x, y, taps, relu, *geometry)
    return y, taps


def _max_pool2d_grad(gy, y, taps, shape, kernel_size, stride, padding, dilation):
    gx = empty(shape, gy)
    geometry = (*shape, *kernel_size, *gy.shape[2:], *stride, *padding, *dilation)
    launch("max_pool2d_grad", gy.dtype, gx.size, gy, y, taps, gx, *geometry)
    return gx


def _factors(matrix):
    """A matrix in contiguous memory, and how far its rows and its columns are apart; no transposed one is copied."""
    if matrix.T.flags.c_contiguous:
        return matrix.T, 1, len(matrix)
    return matrix, matrix.shape[1], 1
