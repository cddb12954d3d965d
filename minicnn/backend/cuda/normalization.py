"""Batch and layer normalisation, and dropout, in CUDA. Statistics are summed in float64."""

import math

import numpy as np

from minicnn.backend.cuda.launch import (
    BLOCK,
    apply,
    channel_slices,
    channel_sums,
    contiguous,
    cupy,
    elementwise,
    empty,
    launch,
)
from minicnn.backend.cuda.live import live

_BATCH_NORM_GRAD = "gx = gy * (inverse_std * weight)"  # outside of training
_ACTIVATIONS = {None: 0, ("relu",): 1, ("gelu", "none"): 2, ("gelu", "tanh"): 3}
"""Numbers in normalization.cu."""
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
    weight, bias = 1 if weight is None else weight, 0 if bias is None else bias
    return apply("batch_norm", x, *_along(x, mean, inverse_std, weight, bias))


def batch_norm_grad(gy, x, mean, inverse_std, weight, training):
    if training:
        return _gradients(gy, x, mean, inverse_std, weight, None, None)
    gweight, gbias = channel_sums("batch_norm_grad_sums", _channels(x), gy, x, mean, inverse_std, None, None, 0)
    per_channel = _along(x, inverse_std, 1 if weight is None else weight)
    gx = elementwise("batch_norm_grad", "T gy, T inverse_std, T weight", "T gx", _BATCH_NORM_GRAD, gy, *per_channel)
    return gx, gweight, gbias


def _share(x, running_mean, running_var, share, correction, weight, bias, eps, residual, activation):
    return (share,)


@live(_share)
def batch_norm_train(numbers, x, running_mean, running_var, share, correction, weight, bias, eps, residual, activation):
    shape, x = _channels(x), cupy.ascontiguousarray(x)
    partials, slices = channel_slices("batch_norm_sums", shape, x)
    y, mean, inverse_std = empty(x.shape, x), empty(x.shape[1:2], x), empty(x.shape[1:2], x)
    there, here = (numbers[0], 0.0) if isinstance(numbers[0], cupy.ndarray) else (None, float(numbers[0]))
    with contiguous(running_mean, running_var) as running:
        operands = (partials, x, *running, there, here, float(correction), weight, bias, float(eps), residual)
        results = (_ACTIVATIONS[activation], y, mean, inverse_std)
        _launch_parts("batch_norm_train", shape, slices, x.dtype, *operands, *results)
    return y, mean, inverse_std


def batch_norm_train_grad(gy, x, mean, inverse_std, weight, bias, activation):
    return _gradients(gy, x, mean, inverse_std, weight, bias, activation)


def _gradients(gy, x, mean, inverse_std, weight, bias, activation):
    gy, x = cupy.ascontiguousarray(gy), cupy.ascontiguousarray(x)
    shape, operands = _channels(x), (gy, x, mean, inverse_std, weight, bias, _ACTIVATIONS[activation])
    partials, slices = channel_slices("batch_norm_grad_sums", shape, *operands)
    gx, gweight, gbias = empty(x.shape, x), empty(x.shape[1:2], x), empty(x.shape[1:2], x)
    _launch_parts("batch_norm_train_grad", shape, slices, x.dtype, partials, *operands, gx, gweight, gbias)
    return gx, gweight, gbias


def _launch_parts(name, shape, slices, dtype, *operands):
    """Launch what makes results of the sums of slices: as many blocks a channel as have 8 elements a thread."""
    n, c, p = shape
    parts = -(-n * p // (8 * BLOCK))
    launch(name, dtype, c * parts * BLOCK, *operands, n, c, p, slices, parts)


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
    gweight, gbias, slices = empty((k,), x), empty((k,), x), min(64, rows // 64 + 1)
    partials = cupy.empty((k, slices, 2), dtype=np.float64)
    threads = -(-k // 32) * slices * BLOCK
    launch("layer_norm_grad_sums", x.dtype, threads, gy, x, mean, inverse_std, partials, rows, k, slices)
    launch("channel_totals", x.dtype, k, partials, gweight, gbias, k, slices)
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
