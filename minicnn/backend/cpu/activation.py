"""GELU and softmax in one pass over memory, eight lanes of float32 at a time; float64 is left to the reference."""

import numba
import numpy as np

from minicnn.backend.cpu.exponential import exp, normal
from minicnn.backend.cpu.jit import LANES, contiguous, jit
from minicnn.backend.cpu.lanes import (
    fill,
    load,
    maximum,
    multiply_add,
    store,
)
from minicnn.backend.reference import activation as reference

_PIECE = 1 << 13  # elements of a task


def gelu(x, approximate):
    """See :func:`minicnn.backend.reference.activation.gelu`."""
    if approximate == "tanh" or x.dtype != np.float32 or x.size < LANES:
        return reference.gelu(x, approximate)
    y = np.empty(x.shape, dtype=x.dtype)
    _gelu(contiguous(x).reshape(-1), y.reshape(-1))
    return y


def gelu_grad(gy, x, approximate):
    """See :func:`minicnn.backend.reference.activation.gelu_grad`."""
    if approximate == "tanh" or x.dtype != np.float32 or x.size < LANES:
        return reference.gelu_grad(gy, x, approximate)
    gx = np.empty(x.shape, dtype=x.dtype)
    _gelu_grad(contiguous(gy).reshape(-1), contiguous(x).reshape(-1), gx.reshape(-1))
    return gx


def softmax(x, axis):
    """See :func:`minicnn.backend.reference.activation.softmax`."""
    if axis not in (-1, x.ndim - 1) or x.dtype != np.float32:
        return reference.softmax(x, axis)
    y = np.empty(x.shape, dtype=x.dtype)
    _softmax(_rows(x), _rows(y))
    return y


def softmax_grad(gy, y, axis):
    """See :func:`minicnn.backend.reference.activation.softmax_grad`."""
    if axis not in (-1, y.ndim - 1):
        return reference.softmax_grad(gy, y, axis)
    gx = np.empty(y.shape, dtype=y.dtype)
    _softmax_grad(_rows(gy), _rows(y), _rows(gx))
    return gx


def _rows(x):
    """(..., M) -> (rows, M)."""
    return contiguous(x).reshape(-1, x.shape[-1])


@jit(parallel=True)
def _gelu(x, y):
    for task in numba.prange((x.size + _PIECE - 1) // _PIECE):
        for i in range(task * _PIECE, min((task + 1) * _PIECE, x.size), LANES):
            at = min(i, x.size - LANES)  # the last lanes may be computed twice
            value = load(x, at)
            cdf, _ = normal(value)
            store(y, at, value * cdf)


@jit(parallel=True)
def _gelu_grad(gy, x, gx):
    for task in numba.prange((x.size + _PIECE - 1) // _PIECE):
        for i in range(task * _PIECE, min((task + 1) * _PIECE, x.size), LANES):
            at = min(i, x.size - LANES)
            value = load(x, at)
            cdf, density = normal(value)
            store(gx, at, load(gy, at) * multiply_add(value, density, cdf))


@jit(parallel=True, fastmath={"reassoc", "nsz", "contract"})
def _softmax(x, y):
    rows, m = x.shape
    whole = m // LANES * LANES
    for i in numba.prange(rows):
        source, result = x[i], y[i]
        highest = source[m - 1]
        if whole:
            largest = load(source, 0)
            for k in range(LANES, whole, LANES):
                largest = maximum(largest, load(source, k))
            store(result, 0, largest)
            for k in range(LANES):
                highest = max(highest, result[k])
        for k in range(whole, m):
            highest = max(highest, source[k])
        for k in range(0, whole, LANES):
            store(result, k, exp(load(source, k) - fill(highest)))
        for k in range(whole, m):
            result[k] = np.exp(source[k] - highest)
        total = x.dtype.type(0)
        for k in range(m):
            total += result[k]
        scale = x.dtype.type(1) / total
        for k in range(m):
            result[k] *= scale


@jit(parallel=True, fastmath={"reassoc", "nsz", "contract"})
def _softmax_grad(gy, y, gx):
    rows, m = y.shape
    for i in numba.prange(rows):
        mean = y.dtype.type(0)
        for k in range(m):
            mean += gy[i, k] * y[i, k]
        for k in range(m):
            gx[i, k] = y[i, k] * (gy[i, k] - mean)
