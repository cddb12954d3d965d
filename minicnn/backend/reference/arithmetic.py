"""Elementwise arithmetic and comparisons, linear algebra and shapes."""

from minicnn.backend.arrays import namespace


def add(a, b):
    """a + b, broadcast."""
    return a + b


def subtract(a, b):
    """a - b, broadcast."""
    return a - b


def multiply(a, b):
    """a * b, broadcast."""
    return a * b


def divide(a, b):
    """a / b, broadcast."""
    return a / b


def negative(a):
    """-a."""
    return -a


def equal(a, b):
    """a == b as booleans, broadcast."""
    return a == b


def not_equal(a, b):
    """a != b as booleans, broadcast."""
    return a != b


def less(a, b):
    """a < b as booleans, broadcast."""
    return a < b


def less_equal(a, b):
    """a <= b as booleans, broadcast."""
    return a <= b


def greater(a, b):
    """a > b as booleans, broadcast."""
    return a > b


def greater_equal(a, b):
    """a >= b as booleans, broadcast."""
    return a >= b


def exp(a):
    """e^a."""
    return namespace(a).exp(a)


def log(a):
    """Natural logarithm of a."""
    return namespace(a).log(a)


def sqrt(a):
    """Square root of a."""
    return namespace(a).sqrt(a)


def sqrt_grad(gy, y):
    """d sqrt(a) / da = 1 / (2 sqrt(a)), from y = sqrt(a)."""
    return gy * 0.5 / y


def power(a, exponent):
    """a^exponent for a Python number ``exponent``."""
    return a**exponent


def power_grad(gy, a, exponent):
    """d a^p / da = p a^(p-1)."""
    if exponent == 0:  # 0 * 0^-1 would be NaN where a is 0
        return namespace(gy).zeros_like(gy)
    return gy * (exponent * a ** (exponent - 1))


def matmul(a, b):
    """(..., M, K) @ (..., K, N) -> (..., M, N), leading axes broadcast."""
    return a @ b


def reshape(a, shape):
    """The same elements in C order under another shape."""
    return a.reshape(shape)


def transpose(a, axes):
    """Axes in the order ``axes``, without a copy."""
    return a.transpose(axes)


def getitem(a, index):
    """a[index], basic or advanced indexing."""
    return a[index]


def getitem_grad(gy, index, shape):
    """Zeros of ``shape`` with gy added at ``index``; indices that repeat accumulate."""
    xp = namespace(gy)
    ga = xp.zeros(shape, dtype=gy.dtype)
    xp.add.at(ga, index, gy)
    return ga


def concatenate(arrays, axis):
    """Join along an existing axis."""
    return namespace(arrays[0]).concatenate(arrays, axis=axis)


def broadcast_to(a, shape):
    """A read-only view of a under a larger shape."""
    return namespace(a).broadcast_to(a, shape)


def copy(a):
    """A new array with the elements of a."""
    return a.copy()


def convert(a, dtype):
    """A new array with the elements of a as ``dtype``."""
    return a.astype(dtype)


def accumulate(total, value):
    """total += value, in place."""
    total += value


def copy_into(target, value):
    """target[...] = value, in place."""
    target[...] = value


def lerp_into(target, value, weight):
    """target += weight (value - target), in place: an exponential moving average."""
    target += weight * (value - target)


def all_finite(a):
    """Whether no element of a is NaN or infinite, as a Python bool."""
    return bool(namespace(a).isfinite(a).all())
