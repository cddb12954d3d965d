"""Batch and layer normalisation, and dropout, in CUDA. Statistics are summed in float64."""

import math

import numpy as np

from minicnn.backend.cuda.launch import channel_sums, elementwise, empty, launch
from minicnn.backend.cuda.live import live

_BATCH_NORM_GRAD = """
    T xhat = (x - mean) * inverse_std;
    T g = training ? gy - gbias / values - xhat * (gweight / values) : gy;
    gx = g * (inverse_std * weight)
"""
# SplitMix64 at position i + 1 of the stream `key`.
_DROPOUT = """
    unsigned long long z = key + (i + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z = z ^ (z >> 31);
    y = (z >> 40) >= threshold ? x * scale : T(0)
"""


def batch_norm_statistics(x):
    n, c, p = _channels(x)
    return channel_sums("batch_norm_sums", (n, c, p), x, finish="batch_norm_moments", extra=(x, p, n * p))


def batch_norm(x, mean, inverse_std, weight, bias):
    inputs, operation = "T x, T mean, T inverse_std, T weight, T bias", "y = (x - mean) * inverse_std * weight + bias"
    weight, bias = 1 if weight is None else weight, 0 if bias is None else bias
    return elementwise("batch_norm", inputs, "T y", operation, x, *_along(x, mean, inverse_std, weight, bias))


def batch_norm_grad(gy, x, mean, inverse_std, weight, training):
    n, c, p = _channels(x)
    gweight, gbias = channel_sums("batch_norm_grad_sums", (n, c, p), gy, x, mean, inverse_std)
    inputs = "T gy, T x, T mean, T inverse_std, T weight, T gweight, T gbias, T values, bool training"
    per_channel = _along(x, mean, inverse_std, 1 if weight is None else weight, gweight, gbias)
    operands = (gy, x, *per_channel, n * p, training)
    return elementwise("batch_norm_grad", inputs, "T gx", _BATCH_NORM_GRAD, *operands), gweight, gbias


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


@live(lambda x, key, p: (np.uint64(key),))
def dropout(numbers, x, key, p):
    inputs, threshold = "T x, uint64 key, uint64 threshold, T scale", np.uint64(round(p * 2**24))
    return elementwise("dropout", inputs, "T y", _DROPOUT, x, *numbers, threshold, 1 / (1 - p))


def _channels(x):
    """(N, C, P) of x: (N, C, ...)."""
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _along(x, *values):
    """Values (C,), numbers left as they are, to be broadcast along the channels of x: (N, C, ...)."""
    return (value if isinstance(value, int) else value.reshape(-1, *(1,) * (x.ndim - 2)) for value in values)
