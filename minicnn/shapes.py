"""What the operations of tensors check of their arguments: axes, shapes, numbers, dtypes."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

Dims = int | Sequence[int] | None


def axes(operation: str, ndim: int, dim: Dims) -> tuple[int, ...]:
    """Return the axes that ``dim`` names, counted from 0 (None: all); ValueError for a wrong or a repeated one."""
    if dim is None:
        return tuple(range(ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    found = tuple(d % ndim if -ndim <= d < ndim else -1 for d in dims)
    if -1 in found or len(set(found)) != len(found):
        raise ValueError(f"{operation}: expected distinct axes from {-ndim} to {ndim - 1}, received {dim}")
    return found


def reduced_shape(shape: tuple[int, ...], reduced: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``shape`` with 1 on the reduced axes."""
    return tuple(1 if i in reduced else n for i, n in enumerate(shape))


def resolved_shape(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``after`` with its -1 filled in; ValueError unless it holds as many elements as ``before``."""
    count, known = math.prod(before), math.prod(n for n in after if n != -1)
    if after.count(-1) == 1 and known > 0 and count % known == 0:
        after = tuple(count // known if n == -1 else n for n in after)
    if any(n < 0 for n in after) or math.prod(after) != count:
        raise ValueError(f"reshape: expected a shape of {count} elements for {before}, received {after}")
    return after


def of(operand: Any) -> tuple[int, ...]:
    """Return the shape of an array, () of a number."""
    return getattr(operand, "shape", ())


def output_size(
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """Return how many windows fit along each axis of a picture: (size + 2 padding - reach) / stride + 1, rounded down.

    reach = dilation (kernel_size - 1) + 1. ``ceil_mode``: rounded up, without a window that would start in the padding
    behind the picture.
    """
    counts = []
    for n, k, s, p, d in zip(size, kernel_size, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        counts.append(count - (ceil_mode and (count - 1) * s >= n + p))
    return tuple(counts)


def broadcastable(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Return whether two shapes broadcast."""
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))


def swapped(ndim: int) -> tuple[int, ...]:
    """Return all axes with the last two exchanged."""
    return (*range(ndim - 2), ndim - 1, ndim - 2)


def flat(values: Sequence[Any]) -> tuple[int, ...]:
    """Return (1, 2) for the arguments of f(1, 2) and of f((1, 2))."""
    return tuple(values[0]) if len(values) == 1 and not isinstance(values[0], int) else tuple(values)


def number(operation: str, value: Any) -> float | int:
    """Return ``value`` as a Python number: a NumPy scalar would promote float32 to float64."""
    if not isinstance(value, Real):
        raise TypeError(f"{operation}: expected a Tensor or a number, received {type(value).__name__}")
    return int(value) if isinstance(value, int | np.integer) else float(value)


def numeric(operation: str, array: Any) -> Any:
    """Return an array whose dtype a tensor may have; TypeError for another."""
    if array.dtype not in (np.float32, np.float64) and (array.dtype.kind not in "iub" or not array.dtype.isnative):
        order = "" if array.dtype.isnative else " in another byte order than this machine's"
        raise TypeError(f"{operation}: expected float32, float64 or integers, received {array.dtype}{order}")
    return array


def check_differentiable(operation: str, array: Any) -> None:
    """Raise TypeError unless an array or a tensor may take a gradient."""
    if array.dtype.kind != "f":
        raise TypeError(f"{operation}: expected float32 or float64 to take gradients, received {array.dtype}")


def check_same(operation: str, tensor: Any, array: Any) -> None:
    """Raise unless an array or a tensor has the shape, the dtype and the backend of a tensor."""
    if array.shape != tensor.shape:
        raise ValueError(f"{operation}: expected shape {tensor.shape}, received {array.shape}")
    if array.dtype != tensor.dtype:
        raise TypeError(f"{operation}: expected {tensor.dtype}, received {array.dtype}; use astype")
    pair = (tensor._operand, array._operand) if hasattr(array, "_data") else (tensor._data, array)
    if type(pair[0]) is not type(pair[1]):
        raise TypeError(f"{operation}: expected one backend, received {type(pair[0])} and {type(pair[1])}; use to")


def check_operands(operation: str, a: Any, b: Any, broadcast: bool = True, same_dtype: bool = True) -> None:
    """Raise unless two tensors have one backend and, where they must, one dtype and shapes that broadcast."""
    if same_dtype and a.dtype != b.dtype:
        raise TypeError(f"{operation}: expected one dtype, received {a.dtype} and {b.dtype}; use astype")
    if type(a._operand) is not type(b._operand):
        raise TypeError(
            f"{operation}: expected one backend, received {type(a._operand)} and {type(b._operand)}; use to"
        )
    if broadcast and not broadcastable(a.shape, b.shape):
        raise ValueError(f"{operation}: expected shapes that broadcast, received {a.shape} and {b.shape}")


def has_mask(index: Any) -> bool:
    """Return whether a tensor or an array of booleans is among the parts of an index."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(getattr(getattr(part, "dtype", None), "kind", "") == "b" for part in parts)
