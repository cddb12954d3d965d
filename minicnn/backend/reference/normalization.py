"""Batch and layer normalisation, and dropout.

Channels are axis 1 of x (N, C, ...). ``inverse_std`` is 1 / sqrt(variance + eps).
"""

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import kernel, like_first
from minicnn.backend.reference.reductions import sum


@kernel(lambda x: [x.shape[1:2]] * 2)
def batch_norm_statistics(x):
    """Mean and biased variance of each channel: x (N, C, ...) -> (C,), (C,)."""
    axes = (0, *range(2, x.ndim))
    values = x.size // x.shape[1]
    mean = sum(x, axes, False) / values
    centred = x - _channels(mean, x.ndim)
    return mean, sum(centred * centred, axes, False) / values


@kernel(like_first)
def batch_norm(x, mean, inverse_std, weight, bias):
    """(x - mean) inverse_std weight + bias per channel; all (C,), weight and bias may be None."""
    y = (x - _channels(mean, x.ndim)) * _channels(inverse_std, x.ndim)
    if weight is not None:
        y *= _channels(weight, x.ndim)
    if bias is not None:
        y += _channels(bias, x.ndim)
    return y


@kernel(lambda gy, x, *_: [x.shape, x.shape[1:2], x.shape[1:2]])
def batch_norm_grad(gy, x, mean, inverse_std, weight, training):
    """Gradients for x, weight and bias (Ioffe and Szegedy, 2015).

    With xhat = (x - mean) inverse_std: gbias = sum gy, gweight = sum gy xhat, and in training, where mean and variance
    depend on x too, gx = weight inverse_std (gy - gbias/M - xhat gweight/M) for M values a channel.
    -> gx as x, gweight (C,), gbias (C,).
    """
    axes = (0, *range(2, x.ndim))
    xhat = (x - _channels(mean, x.ndim)) * _channels(inverse_std, x.ndim)
    gweight, gbias = sum(gy * xhat, axes, False), sum(gy, axes, False)
    gx = gy
    if training:
        values = x.size // x.shape[1]
        gx = gy - _channels(gbias / values, x.ndim) - xhat * _channels(gweight / values, x.ndim)
    scale = inverse_std if weight is None else inverse_std * weight
    return gx * _channels(scale, x.ndim), gweight, gbias


@kernel(lambda x, dims, *_: [x.shape, *[(*x.shape[:-dims], *(1,) * dims)] * 2])
def layer_norm(x, dims, weight, bias, eps):
    """(x - mean) / sqrt(variance + eps) weight + bias over the last ``dims`` axes (Ba et al., 2016).

    weight, bias: the shape of those axes, or None -> y as x, and mean and inverse_std with those axes kept as 1.
    """
    xp = namespace(x)
    axes = tuple(range(x.ndim - dims, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    inverse_std = 1 / xp.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
    y = centred * inverse_std
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y, mean, inverse_std


@kernel(lambda gy, x, dims, *_: [x.shape, *[x.shape[-dims:]] * 2])
def layer_norm_grad(gy, x, dims, mean, inverse_std, weight):
    """Gradients for x, weight and bias: gx = inverse_std (g - mean(g) - xhat mean(g xhat)), g = gy weight."""
    inner = tuple(range(x.ndim - dims, x.ndim))
    outer = tuple(range(x.ndim - dims))
    xhat = (x - mean) * inverse_std
    g = gy if weight is None else gy * weight
    gx = inverse_std * (g - g.mean(axis=inner, keepdims=True) - xhat * (g * xhat).mean(axis=inner, keepdims=True))
    return gx, sum(gy * xhat, outer, False), sum(gy, outer, False)


@kernel(like_first)
def dropout(x, key, p):
    """x / (1 - p) where a random bit of probability 1 - p is set, else 0; linear, so also its own gradient.

    The bit of element i (in C order) depends on ``key`` and i alone: SplitMix64 (Steele et al., 2014) at position i of
    the stream ``key`` (an int in [0, 2^64)), its upper 24 bits compared with p. Every backend draws the same mask.
    """
    xp = namespace(x)
    counter = xp.arange(1, x.size + 1, dtype=xp.uint64)
    z = xp.uint64(key) + counter * xp.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> xp.uint64(30))) * xp.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> xp.uint64(27))) * xp.uint64(0x94D049BB133111EB)
    z = z ^ (z >> xp.uint64(31))
    keep = ((z >> xp.uint64(40)) >= xp.uint64(round(p * 2**24))).reshape(x.shape)
    return xp.where(keep, x * (1 / (1 - p)), xp.zeros((), dtype=x.dtype))


def _channels(values, ndim):
    """(C,) -> (C, 1, ...), to broadcast along axis 1 of an array of ``ndim`` axes."""
    return values.reshape(-1, *(1,) * (ndim - 2))
