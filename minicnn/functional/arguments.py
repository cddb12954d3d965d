"""What every function checks before a kernel runs: an error names operation, expectation and what was received."""

import math
import os
from collections.abc import Sequence
from numbers import Integral
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


def check_size(operation: str, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise ValueError for an array of ``shape`` that this machine's memory cannot hold."""
    size = math.prod(shape) * dtype.itemsize
    if size > _MEMORY:
        raise ValueError(
            f"{operation}: expected {name} that fits into the memory ({_MEMORY / 2**30:,.0f} GiB), "
            f"received shape {shape}: {size / 2**30:,.0f} GiB"
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
        if tensor.dtype != first.dtype or type(tensor.data) is not type(first.data):
            raise TypeError(
                f"{operation}: expected {name} as {first.dtype} in {type(first.data).__module__}, "
                f"received {tensor.dtype} in {type(tensor.data).__module__}"
            )


def check_shape(operation: str, name: str, tensor: Tensor | None, expected: tuple[int, ...]) -> None:
    """Raise ValueError unless ``tensor`` (None is passed over) has the expected shape."""
    if tensor is not None and tensor.shape != expected:
        raise ValueError(f"{operation}: expected {name} of shape {expected}, received {tensor.shape}")


def check_images(operation: str, x: Tensor) -> None:
    """Raise ValueError unless x is (N, C, H, W) with pixels; N may be 0."""
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
            f"{operation}: window {window} with dilation {dilation} is larger than "
            f"the input {x.shape[2:]} with padding {padding}"
        )
    return counts
