"""Activation functions. A gradient kernel takes what backward needs least: the output where that is enough."""

import math

from minicnn.backend.arrays import namespace, special_functions
from minicnn.backend.kernel import kernel, like_first


@kernel(like_first)
def relu(x):
    """max(x, 0); NaN stays NaN."""
    return namespace(x).maximum(x, 0)


@kernel(like_first)
def relu_grad(gy, y):
    """gy where y > 0, 0 elsewhere, whatever gy is there."""
    return namespace(gy).where(y > 0, gy, gy.dtype.type(0))


@kernel(like_first)
def leaky_relu(x, negative_slope):
    """x where x > 0, negative_slope * x elsewhere."""
    return namespace(x).where(x > 0, x, x * negative_slope)


@kernel(like_first)
def leaky_relu_grad(gy, x, negative_slope):
    """gy where x > 0, negative_slope * gy elsewhere."""
    return namespace(x).where(x > 0, gy, gy * negative_slope)


@kernel(like_first)
def elu(x, alpha):
    """x where x > 0, alpha (e^x - 1) elsewhere (Clevert et al., 2016)."""
    xp = namespace(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


@kernel(like_first)
def elu_grad(gy, x, alpha):
    """gy where x > 0, gy alpha e^x elsewhere."""
    xp = namespace(x)
    return xp.where(x > 0, gy, gy * (alpha * xp.exp(xp.minimum(x, 0))))


@kernel(like_first)
def gelu(x, approximate):
    """x Phi(x) (Hendrycks and Gimpel, 2016); ``approximate``: "none", or "tanh" for its tanh form."""
    if approximate == "tanh":
        return 0.5 * x * (1 + namespace(x).tanh(_gelu_argument(x)))
    return x * _normal_cdf(x)


@kernel(like_first)
def gelu_grad(gy, x, approximate):
    """gy (Phi(x) + x phi(x)), or the derivative of the tanh form."""
    xp = namespace(x)
    if approximate == "tanh":
        t = xp.tanh(_gelu_argument(x))
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return gy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)
    return gy * (_normal_cdf(x) + x * xp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)))


def _gelu_argument(x):
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _normal_cdf(x):
    return 0.5 * special_functions(x).erfc(-math.sqrt(0.5) * x)


@kernel(like_first)
def sigmoid(x):
    """1 / (1 + e^-x), without overflow."""
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1 / (1 + e), e / (1 + e))


@kernel(like_first)
def sigmoid_grad(gy, y):
    """gy y (1 - y)."""
    return gy * (y * (1 - y))


@kernel(like_first)
def tanh(x):
    """Hyperbolic tangent."""
    return namespace(x).tanh(x)


@kernel(like_first)
def tanh_grad(gy, y):
    """gy (1 - y^2)."""
    return gy * (1 - y * y)


@kernel(like_first)
def softmax(x, axis):
    """e^x / sum e^x along ``axis``, shifted by the maximum so that it never overflows."""
    e = namespace(x).exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@kernel(like_first)
def softmax_grad(gy, y, axis):
    """y (gy - sum(gy y))."""
    return y * (gy - (gy * y).sum(axis=axis, keepdims=True))


@kernel(like_first)
def log_softmax(x, axis):
    """x - log sum e^x along ``axis``."""
    xp = namespace(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))


@kernel(like_first)
def log_softmax_grad(gy, y, axis):
    """gy - e^y sum(gy)."""
    return gy - namespace(y).exp(y) * gy.sum(axis=axis, keepdims=True)
