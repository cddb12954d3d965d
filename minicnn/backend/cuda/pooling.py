"""Pooling in CUDA."""

import numpy as np

from minicnn.backend.cuda.launch import cupy, empty, launch
from minicnn.backend.reference import pooling as reference


def max_pool2d(x, kernel_size, stride, padding, dilation, output_size):
    y = empty((*x.shape[:2], *output_size), x)
    taps = cupy.empty(y.shape, dtype=np.uint16)
    geometry = (*x.shape, *kernel_size, *output_size, *stride, *padding, *dilation)
    launch("max_pool2d", x.dtype, y.size, x, y, taps, *geometry)
    return y, taps


def max_pool2d_grad(gy, taps, shape, kernel_size, stride, padding, dilation):
    gx = empty(shape, gy)
    geometry = (*shape, *kernel_size, *gy.shape[2:], *stride, *padding, *dilation)
    launch("max_pool2d_grad", gy.dtype, gx.size, gy, taps, gx, *geometry)
    return gx


def avg_pool2d(x, rows, columns):
    y = empty((*x.shape[:2], len(rows), len(columns)), x)
    launch("avg_pool2d", x.dtype, y.size, x, rows, columns, y, *x.shape[2:], *y.shape[2:], y.size)
    return y


def window_means(like, size, starts, stops, counts):
    # Made on the host: one copy is cheaper than a launch a row.
    return cupy.asarray(reference.window_means(np.empty(0, like.dtype), size, starts, stops, counts))
