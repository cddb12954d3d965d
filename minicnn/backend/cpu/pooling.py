"""Pooling, one plane of one image at a time."""

import numba
import numpy as np

from minicnn.backend.cpu.jit import contiguous, helper, jit


def max_pool2d(x, kernel_size, stride, padding, dilation, output_size):
    """See :func:`minicnn.backend.reference.pooling.max_pool2d`."""
    n, c, h, w = x.shape
    y = np.empty((n, c, *output_size), dtype=x.dtype)
    taps = np.empty(y.shape, dtype=np.uint16)
    planes = (n * c, *output_size)
    _max_pool(
        contiguous(x).reshape(n * c, h, w), y.reshape(planes), taps.reshape(planes), kernel_size, stride, padding,
        dilation,
    )  # fmt: skip
    return y, taps


def max_pool2d_grad(gy, taps, shape, kernel_size, stride, padding, dilation):
    """See :func:`minicnn.backend.reference.pooling.max_pool2d_grad`."""
    n, c, h, w = shape
    gx = np.zeros(shape, dtype=gy.dtype)
    gy, taps = (contiguous(a).reshape(n * c, *gy.shape[2:]) for a in (gy, taps))
    _max_pool_grad(gy, taps, gx.reshape(n * c, h, w), kernel_size[1], stride, padding, dilation)
    return gx


def avg_pool2d(x, rows, columns):
    """See :func:`minicnn.backend.reference.pooling.avg_pool2d`."""
    n, c, h, w = x.shape
    y = np.empty((n, c, len(rows), len(columns)), dtype=x.dtype)
    _avg_pool(contiguous(x).reshape(n * c, h, w), contiguous(rows), contiguous(columns), y.reshape(n * c, *y.shape[2:]))
    return y


@jit(parallel=True)
def _max_pool(x, y, taps, kernel_size, stride, padding, dilation):
    planes, h, w = x.shape
    oh, ow = y.shape[1:]
    for plane in numba.prange(planes):
        for i in range(oh):
            top = i * stride[0] - padding[0]
            u_first, u_last = _inside(top, dilation[0], h, kernel_size[0])
            for j in range(ow):
                left = j * stride[1] - padding[1]
                v_first, v_last = 0, kernel_size[1]
                if left < 0 or left + (v_last - 1) * dilation[1] >= w:
                    v_first, v_last = _inside(left, dilation[1], w, kernel_size[1])
                winner = u_first * kernel_size[1] + v_first
                best = x[plane, top + u_first * dilation[0], left + v_first * dilation[1]]
                for u in range(u_first, u_last):
                    for v in range(v_first, v_last):
                        value = x[plane, top + u * dilation[0], left + v * dilation[1]]
                        # not (value <= best) is true for a NaN, and a NaN that won stays; no branch, as it is random
                        wins = (not (value <= best)) & (best == best)
                        best = value if wins else best
                        winner = u * kernel_size[1] + v if wins else winner
                y[plane, i, j] = best
                taps[plane, i, j] = winner


@helper
def _inside(start, step, size, count):
    """The taps, from and to, of a window that begins at ``start`` which lie on an axis of ``size``."""
    first = 0 if start >= 0 else (step - 1 - start) // step
    return first, min(count, (size - 1 - start) // step + 1)


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


@jit(parallel=True)
def _avg_pool(x, rows, columns, y):
    planes, h, w = x.shape
    oh, ow = y.shape[1:]
    for plane in numba.prange(planes):
        line = np.empty(w, dtype=x.dtype)
        for i in range(oh):
            line[:] = 0
            first, last = _run(rows[i])
            for u in range(first, last):
                for v in range(w):
                    line[v] += rows[i, u] * x[plane, u, v]
            for j in range(ow):
                first, last = _run(columns[j])
                total = x.dtype.type(0)
                for v in range(first, last):
                    total += columns[j, v] * line[v]
                y[plane, i, j] = total


@helper
def _run(factors):
    """From where to where the factors of a window are not 0."""
    first, last = 0, factors.size
    while first < last and factors[first] == 0:
        first += 1
    while first < last and factors[last - 1] == 0:
        last -= 1
    return first, last
