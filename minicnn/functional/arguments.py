"""What every function checks before a kernel runs."""

import math
import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from minicnn.shapes import output_size
from minicnn.tensor import Tensor
from minicnn.text import brief

IntPair = int | Sequence[int]
_MOST = 2**31 - 1  # of an argument in pixels
_ADDRESSES = 2**47  # bytes that a process can have at most
_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else _ADDRESSES


def pair(operation: str, name: str, value: IntPair, least: int) -> tuple[int, int]:
    """Return ``value`` as (vertical, horizontal), each an int from ``least`` to 2^31 - 1."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(isinstance(v, Integral) and v >= least for v in values):
        raise ValueError(f"{operation}: expected {name} as one or two integers from {least}, received {brief(value)}")
    if max(values) > _MOST:
        raise ValueError(f"{operation}: expected {name} of at most {_MOST}, received {brief(value)}")
    return int(values[0]), int(values[1])


def check_count(operation: str, **counts: int) -> None:
    """Raise ValueError unless all values are integers from 1 to 2^31 - 1."""
    for name, value in counts.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{operation}: expected {name} as an integer from 1, received {brief(value)}")
        if value > _MOST:
            raise ValueError(f"{operation}: expected {name} of at most {_MOST}, received {brief(value)}")


def check_size(operation: str, name: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Raise ValueError for an array of ``shape`` that this machine's memory cannot hold."""
    size = math.prod(shape) * itemsize
    if size > _MEMORY:
        raise ValueError(
            f"{operation}: expected {name} that fits into the memory ({_MEMORY / 2**30:,.0f} GiB), "
            f"received shape {shape}: {size // 2**30:,} GiB"
        )


def check_float(operation: str, **tensors: Any) -> None:
    """Raise TypeError unless all tensors (None is passed over) are of one float dtype and one backend."""
    first: Tensor | None = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{operation}: expected {name} as a Tensor, received {type(tensor).__name__}")
        if tensor.dtype.kind != "f":
            raise TypeError(f"{operation}: expected {name} as float32 or float64, received {tensor.dtype}")
        first = tensor if first is None else first
        if tensor.dtype != first.dtype or type(tensor._operand) is not type(first._operand):
            raise TypeError(
                f"{operation}: expected {name} as {first.dtype} in {type(first._operand).__module__}, "
                f"received {tensor.dtype} in {type(tensor._operand).__module__}"
            )


def check_shape(operation: str, expected: tuple[int, ...], **tensors: Tensor | None) -> None:
    """Raise ValueError unless all tensors (None is passed over) have the expected shape."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != expected:
            raise ValueError(f"{operation}: expected {name} of shape {expected}, received {tensor.shape}")


def check_option(operation: str, name: str, value: Any, *options: str) -> None:
    """Raise ValueError unless ``value`` is one of the options."""
    if value not in options:
        expected = ", ".join(map(repr, options[:-1]))
        raise ValueError(f"{operation}: expected {name} {expected} or {options[-1]!r}, received {brief(value)}")


def check_fraction(operation: str, name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is a number in [0, 1]."""
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise ValueError(f"{operation}: expected {name} in [0, 1], received {brief(value)}")


def check_images(operation: str, x: Tensor) -> None:
    """Raise unless x is a tensor of floats (N, C, H, W) with pixels; N may be 0."""
    check_float(operation, input=x)
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"{operation}: expected an input (N, C, H, W) with pixels, received shape {x.shape}")


def count_windows(
    operation: str,
    x: Tensor,
    window: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """Return (OH, OW), how many windows fit on images; ValueError for none. See :func:`minicnn.shapes.output_size`."""
    counts = output_size(x.shape[2:], window, stride, padding, dilation, ceil_mode)
    if min(counts) < 1:
        raise ValueError(
            f"{operation}: expected a window that fits into the input {x.shape[2:]} with padding {padding}, "
            f"received {window} with dilation {dilation}"
        )
    return counts
