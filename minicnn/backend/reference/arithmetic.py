"""Elementwise arithmetic and comparisons, linear algebra and shapes."""

import math

import numpy as np

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import broadcast, kernel, like_first
from minicnn.shapes import resolved_shape


@kernel(broadcast)
def add(a, b):
    """a + b, broadcast."""
    return a + b


@kernel(broadcast)
def subtract(a, b):
    """a - b, broadcast."""
    return a - b


@kernel(broadcast)
def multiply(a, b):
    """a * b, broadcast."""
    return a * b


@kernel(broadcast)
def divide(a, b):
    """a / b, broadcast."""
    return a / b


@kernel(like_first)
def negative(a):
    """-a."""
    return -a


@kernel(broadcast, "bool")
def equal(a, b):
    """a == b as booleans, broadcast."""
    return a == b


@kernel(broadcast, "bool")
def not_equal(a, b):
    """a != b as booleans, broadcast."""
    return a != b


@kernel(broadcast, "bool")
def less(a, b):
    """a < b as booleans, broadcast."""
    return a < b


@kernel(broadcast, "bool")
def less_equal(a, b):
    """a <= b as booleans, broadcast."""
    return a <= b


@kernel(broadcast, "bool")
def greater(a, b):
    """a > b as booleans, broadcast."""
    return a > b


@kernel(broadcast, "bool")
def greater_equal(a, b):
    """a >= b as booleans, broadcast."""
    return a >= b


@kernel(like_first)
def exp(a):
    """e^a."""
    return namespace(a).exp(a)


@kernel(like_first)
def log(a):
    """Natural logarithm of a."""
    return namespace(a).log(a)


@kernel(like_first)
def sqrt(a):
    """Square root of a."""
    return namespace(a).sqrt(a)


@kernel(like_first)
def sqrt_grad(gy, y):
    """d sqrt(a) / da = 1 / (2 sqrt(a)), from y = sqrt(a)."""
    return gy * 0.5 / y


@kernel(like_first)
def power(a, exponent):
    """a^exponent for a Python number ``exponent``."""
    return a**exponent


@kernel(like_first)
def power_grad(gy, a, exponent):
    """d a^p / da = p a^(p-1)."""
    if exponent == 0:  # 0 * 0^-1 would be NaN where a is 0
        return namespace(gy).zeros_like(gy)
    return gy * (exponent * a ** (exponent - 1))


@kernel(
    lambda a, b: (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]),
    flop=lambda arguments, outputs: 2 * math.prod(outputs[0].shape) * arguments[0].shape[-1],
)
def matmul(a, b):
    """(..., M, K) @ (..., K, N) -> (..., M, N), leading axes broadcast."""
    return a @ b


@kernel(lambda a, shape: resolved_shape(a.shape, tuple(shape)), view=True)
def reshape(a, shape):
    """The same elements in C order under another shape."""
    return a.reshape(shape)


@kernel(lambda a, axes: tuple(a.shape[i] for i in axes), view=True)
def transpose(a, axes):
    """Axes in the order ``axes``, without a copy."""
    return a.transpose(axes)


@kernel(view=True)
def getitem(a, index):
    """a[index], basic or advanced indexing."""
    return a[index]


@kernel(writes="target")
def setitem(target, index, value):
    """target[index] = value, in place; value: an array or a number."""
    target[index] = value


@kernel(lambda gy, index, shape: shape)
def getitem_grad(gy, index, shape):
    """Zeros of ``shape`` with gy added at ``index``; indices that repeat accumulate."""
    xp = namespace(gy)
    ga = xp.zeros(shape, dtype=gy.dtype)
    xp.add.at(ga, index, gy)
    return ga


@kernel(
    lambda arrays, axis: tuple(
        sum(a.shape[i] for a in arrays) if i == axis else n for i, n in enumerate(arrays[0].shape)
    )
)
def concatenate(arrays, axis):
    """Join along an existing axis."""
    return namespace(arrays[0]).concatenate(arrays, axis=axis)


@kernel(lambda a, shape: shape, view=True)
def broadcast_to(a, shape):
    """A read-only view of a under a larger shape."""
    return namespace(a).broadcast_to(a, shape)


@kernel(like_first)
def copy(a):
    """A new array with the elements of a."""
    return a.copy()


@kernel(like_first, lambda a, dtype: dtype)
def convert(a, dtype):
    """A new array with the elements of a as ``dtype``."""
    return a.astype(dtype)


@kernel(like_first)
def bfloat16(a):
    """a rounded to the nearest bfloat16, 8 bits of significand, of two the even one, as elements of its own dtype.

    NaN stays. A float64 is rounded to float32 first.
    """
    xp, narrow = namespace(a), a.astype(np.float32)
    bits = narrow.view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) & np.uint32(0xFFFF0000)
    return xp.where(a == a, rounded.view(np.float32), narrow).astype(a.dtype)


@kernel(like_first)
def tf32(a):
    """a rounded to the nearest number of 11 bits of significand, of two the one away from 0, as tensor cores take it.

    As elements of its own dtype; NaN stays. A float64 is rounded to float32 first.
    """
    xp, narrow = namespace(a), a.astype(np.float32)
    rounded = (narrow.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return xp.where(a == a, rounded.view(np.float32), narrow).astype(a.dtype)


@kernel(writes="total")
def accumulate(total, value):
    """total += value, in place."""
    total += value


@kernel(writes="target")
def copy_into(target, value):
    """target[...] = value, in place."""
    target[...] = value


@kernel(writes="target")
def lerp_into(target, value, weight):
    """target += weight (value - target), in place: an exponential moving average."""
    target += weight * (value - target)


@kernel(number=True)
def all_finite(a):
    """Whether no element of a is NaN or infinite, as a Python bool."""
    return bool(namespace(a).isfinite(a).all())
