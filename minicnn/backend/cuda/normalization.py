"""Batch and layer normalisation, and dropout, in CUDA. Statistics are summed in float64."""

import math

import numpy as np

from minicnn.backend.cuda.launch import channel_sums, elementwise, empty, launch


def batch_norm_statistics(x):
    n, c, p = _channels(x)
    return channel_sums("batch_norm_sums", (n, c, p), x, finish="batch_norm_moments", extra=(x, p, n * p))


def batch_norm(x, mean, inverse_std, weight, bias):
    _, c, p = _channels(x)
    y = empty(x.shape, x)
    launch("batch_norm", x.dtype, x.size, x, mean, inverse_std, weight, bias, y, c, p, x.size)
    return y


def batch_norm_grad(gy, x, mean, inverse_std, weight, training):
    n, c, p = _channels(x)
    gweight, gbias = channel_sums("batch_norm_grad_sums", (n, c, p), gy, x, mean, inverse_std)
    gx = empty(x.shape, x)
    operands = (gy, x, mean, inverse_std, weight, gweight, gbias)
    launch("batch_norm_grad", x.dtype, x.size, *operands, gx, c, p, n * p if training else 0, x.size)
    return gx, gweight, gbias


def layer_norm(x, dims, weight, bias, eps):
    outer, inner = x.shape[: x.ndim - dims], x.shape[x.ndim - dims :]
    rows = math.prod(outer)
    y = empty(x.shape, x)
    mean, inverse_std = empty((*outer, *(1,) * dims), x), empty((*outer, *(1,) * dims), x)
    launch("layer_norm", x.dtype, 32 * rows, x, weight, bias, float(eps), y, mean, inverse_std, rows, math.prod(inner))
    return y, mean, inverse_std


def layer_norm_grad(gy, x, dims, mean, inverse_std, weight):
    inner = x.shape[x.ndim - dims :]
    rows, k = math.prod(x.shape[: x.ndim - dims]), math.prod(inner)
    gx = empty(x.shape, x)
    launch("layer_norm_grad", x.dtype, 32 * rows, gy, x, mean, inverse_std, weight, gx, rows, k)
    gweight, gbias = channel_sums("layer_norm_grad_sums", (rows, k, 1), gy, x, mean, inverse_std)
    return gx, gweight.reshape(inner), gbias.reshape(inner)


def dropout(x, key, p):
    return elementwise("dropout", x, np.uint64(key), np.uint64(round(p * 2**24)), 1 / (1 - p))


def _channels(x):
    """(N, C, P) of x: (N, C, ...)."""
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])
