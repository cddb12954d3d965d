"""Layer normalisation, a fixed number of rows a task: its sums over rows are made in one order."""

import math

import numba
import numpy as np

from minicnn.backend.cpu.jit import contiguous, jit
from minicnn.backend.reference import reductions

_ROWS = 64


def layer_norm(x, dims, weight, bias, eps):
    """See :func:`minicnn.backend.reference.normalization.layer_norm`."""
    rows = _rows(x, dims)
    y, mean, inverse_std = np.empty_like(rows), np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    _normalize(rows, *_affine(rows, weight, bias), x.dtype.type(eps), y, mean, inverse_std)
    kept = (*x.shape[: x.ndim - dims], *(1,) * dims)
    return y.reshape(x.shape), mean.reshape(kept), inverse_std.reshape(kept)


def layer_norm_grad(gy, x, dims, mean, inverse_std, weight):
    """See :func:`minicnn.backend.reference.normalization.layer_norm_grad`."""
    rows, inner = _rows(x, dims), x.shape[x.ndim - dims :]
    gx = np.empty_like(rows)
    sums = np.empty((2, -(-len(rows) // _ROWS), rows.shape[1]), dtype=x.dtype)
    scale, _ = _affine(rows, weight, None)
    _gradient(_rows(gy, dims), rows, contiguous(mean).reshape(-1), contiguous(inverse_std).reshape(-1), scale, gx, sums)
    gweight, gbias = reductions.sum(sums, (1,), False)
    return gx.reshape(x.shape), gweight.reshape(inner), gbias.reshape(inner)


def _rows(x, dims):
    """Leading axes and the last ``dims``, as a matrix."""
    return contiguous(x).reshape(-1, math.prod(x.shape[x.ndim - dims :]))


def _affine(rows, weight, bias):
    """Weight and bias of one row; ones and zeros for None."""
    one = np.ones(rows.shape[1], rows.dtype) if weight is None else contiguous(weight).reshape(-1)
    return one, np.zeros_like(one) if bias is None else contiguous(bias).reshape(-1)


@jit(parallel=True, fastmath={"reassoc", "nsz", "contract"})
def _normalize(x, weight, bias, eps, y, mean, inverse_std):
    rows, m = x.shape
    for i in numba.prange(rows):
        total = x.dtype.type(0)
        for k in range(m):
            total += x[i, k]
        centre = x.dtype.type(total / m)
        total = x.dtype.type(0)
        for k in range(m):
            total += (x[i, k] - centre) * (x[i, k] - centre)
        scale = x.dtype.type(1 / np.sqrt(total / m + eps))
        for k in range(m):
            y[i, k] = (x[i, k] - centre) * scale * weight[k] + bias[k]
        mean[i], inverse_std[i] = centre, scale


@jit(parallel=True, fastmath={"reassoc", "nsz", "contract"})
def _gradient(gy, x, mean, inverse_std, weight, gx, sums):
    rows, m = x.shape
    for task in numba.prange(sums.shape[1]):
        gweight, gbias = sums[0, task], sums[1, task]
        gweight[:], gbias[:] = 0, 0
        for i in range(task * _ROWS, min((task + 1) * _ROWS, rows)):
            centre, scale = mean[i], inverse_std[i]
            total, product = x.dtype.type(0), x.dtype.type(0)
            for k in range(m):
                xhat = (x[i, k] - centre) * scale
                g = gy[i, k] * weight[k]
                total += g
                product += g * xhat
                gweight[k] += gy[i, k] * xhat
                gbias[k] += gy[i, k]
            total, product = x.dtype.type(total / m), x.dtype.type(product / m)
            for k in range(m):
                xhat = (x[i, k] - centre) * scale
                gx[i, k] = scale * (gy[i, k] * weight[k] - total - xhat * product)
