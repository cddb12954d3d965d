"""Max-pooling, one plane of one image at a time."""

import numba
import numpy as np

from minicnn.backend.cpu.jit import jit, plain


def max_pool2d(x, kernel_size, stride, padding, dilation, output_size):
    """See :func:`minicnn.backend.reference.max_pool2d`."""
    n, c, h, w = x.shape
    y = np.empty((n, c, *output_size), dtype=x.dtype)
    taps = np.empty(y.shape, dtype=np.uint16)
    planes = (n * c, *output_size)
    _max_pool(
        plain(x).reshape(n * c, h, w), y.reshape(planes), taps.reshape(planes), kernel_size, stride, padding, dilation
    )
    return y, taps


def max_pool2d_grad(gy, taps, shape, kernel_size, stride, padding, dilation):
    """See :func:`minicnn.backend.reference.max_pool2d_grad`."""
    n, c, h, w = shape
    gx = np.zeros(shape, dtype=gy.dtype)
    gy, taps = (plain(a).reshape(n * c, *gy.shape[2:]) for a in (gy, taps))
    _max_pool_grad(gy, taps, gx.reshape(n * c, h, w), kernel_size[1], stride, padding, dilation)
    return gx


@jit(parallel=True)
def _max_pool(x, y, taps, kernel_size, stride, padding, dilation):
    planes, h, w = x.shape
    oh, ow = y.shape[1:]
    for plane in numba.prange(planes):
        for i in range(oh):
            top = i * stride[0] - padding[0]
            for j in range(ow):
                left = j * stride[1] - padding[1]
                best, winner = x[plane, 0, 0], -1
                for u in range(kernel_size[0]):
                    row = top + u * dilation[0]
                    if row < 0 or row >= h:
                        continue
                    for v in range(kernel_size[1]):
                        column = left + v * dilation[1]
                        if column < 0 or column >= w:
                            continue
                        value = x[plane, row, column]
                        # not (value <= best) is true for a NaN; a NaN that won stays
                        if winner < 0 or (not (value <= best) and best == best):
                            best, winner = value, u * kernel_size[1] + v
                y[plane, i, j] = best
                taps[plane, i, j] = winner


@jit(parallel=True)
def _max_pool_grad(gy, taps, gx, width, stride, padding, dilation):
    planes, oh, ow = gy.shape
    for plane in numba.prange(planes):
        for i in range(oh):
            for j in range(ow):
                tap = np.int64(taps[plane, i, j])
                row = i * stride[0] - padding[0] + tap // width * dilation[0]
                column = j * stride[1] - padding[1] + tap % width * dilation[1]
                gx[plane, row, column] += gy[plane, i, j]
