"""Batch normalisation, one channel a task: its sums are made by one thread, in one order.

Up to _PIECE neighbours are added in the precision of x, and those sums in float64.
"""

import math

import numba
import numpy as np

from minicnn.backend.cpu.jit import contiguous, jit

_PIECE = 1024


def batch_norm_statistics(x):
    """See :func:`minicnn.backend.reference.normalization.batch_norm_statistics`."""
    mean, var = np.empty(x.shape[1], dtype=x.dtype), np.empty(x.shape[1], dtype=x.dtype)
    _statistics(_planes(x), mean, var)
    return mean, var


def batch_norm(x, mean, inverse_std, weight, bias):
    """See :func:`minicnn.backend.reference.normalization.batch_norm`."""
    scale = inverse_std if weight is None else inverse_std * weight
    y = np.empty(x.shape, dtype=x.dtype)
    shift = np.zeros_like(mean) if bias is None else bias
    _normalize(_planes(x), contiguous(mean), contiguous(scale), contiguous(shift), _planes(y))
    return y


def batch_norm_grad(gy, x, mean, inverse_std, weight, training):
    """See :func:`minicnn.backend.reference.normalization.batch_norm_grad`."""
    gx = np.empty(x.shape, dtype=x.dtype)
    gweight, gbias = np.empty(x.shape[1], dtype=x.dtype), np.empty(x.shape[1], dtype=x.dtype)
    scale = inverse_std if weight is None else inverse_std * weight
    _gradient(
        _planes(gy), _planes(x), contiguous(mean), contiguous(inverse_std), contiguous(scale), _planes(gx), gweight,
        gbias, training,
    )  # fmt: skip
    return gx, gweight, gbias


def _planes(x):
    """(N, C, ...) -> (N, C, M)."""
    return contiguous(x).reshape(x.shape[0], x.shape[1], math.prod(x.shape[2:]))


@jit(parallel=True, fastmath={"reassoc", "nsz", "contract"})
def _statistics(x, mean, var):
    n, c, m = x.shape
    for j in numba.prange(c):
        total = np.float64(0)
        for i in range(n):
            for start in range(0, m, _PIECE):
                part = x.dtype.type(0)
                for k in range(start, min(start + _PIECE, m)):
                    part += x[i, j, k]
                total += part
        centre = x.dtype.type(total / (n * m))
        total = np.float64(0)
        for i in range(n):
            for start in range(0, m, _PIECE):
                part = x.dtype.type(0)
                for k in range(start, min(start + _PIECE, m)):
                    part += (x[i, j, k] - centre) * (x[i, j, k] - centre)
                total += part
        mean[j], var[j] = centre, total / (n * m)


@jit(parallel=True)
def _normalize(x, mean, scale, shift, y):
    n, c, m = x.shape
    for i in numba.prange(n):
        for j in range(c):
            for k in range(m):
                y[i, j, k] = (x[i, j, k] - mean[j]) * scale[j] + shift[j]


@jit(parallel=True, fastmath={"reassoc", "nsz", "contract"})
def _gradient(gy, x, mean, inverse_std, scale, gx, gweight, gbias, training):
    n, c, m = x.shape
    for j in numba.prange(c):
        sum_gy, sum_product = np.float64(0), np.float64(0)
        for i in range(n):
            for start in range(0, m, _PIECE):
                part, product = x.dtype.type(0), x.dtype.type(0)
                for k in range(start, min(start + _PIECE, m)):
                    part += gy[i, j, k]
                    product += gy[i, j, k] * (x[i, j, k] - mean[j])
                sum_gy += part
                sum_product += product
        gbias[j], gweight[j] = sum_gy, sum_product * inverse_std[j]
        centre, slope = gbias[j] * 0, gbias[j] * 0
        if training:
            centre = x.dtype.type(sum_gy / (n * m))
            slope = x.dtype.type(sum_product * inverse_std[j] * inverse_std[j] / (n * m))
        for i in range(n):
            for k in range(m):
                gx[i, j, k] = (gy[i, j, k] - centre - (x[i, j, k] - mean[j]) * slope) * scale[j]
