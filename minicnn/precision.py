"""Precision: what convolutions and linear layers multiply, float32 as it is or rounded to bfloat16 or TF32."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np

PRECISIONS = ("float32", "tf32", "bf16")
_KERNELS = {"tf32": "tf32", "bf16": "bfloat16"}  # those that round
_entered: ContextVar[tuple["precision", ...]] = ContextVar("precisions", default=())  # the innermost last


def check_precision(where: str, name: Any) -> None:
    """Raise ValueError for what is none of PRECISIONS."""
    if name not in PRECISIONS:
        raise ValueError(
            f"{where}: expected precision {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, received {name!r}"
        )


def get_precision() -> str:
    """Return the precision in this context: "float32", or what a :class:`precision` around it says.

    Example:
        >>> minicnn.get_precision()
        'float32'
    """
    entered = _entered.get()
    return entered[-1].name if entered else "float32"


class precision:
    """Context manager: the precision of convolutions and linear layers inside, and of their gradients.

    "bf16": what they multiply, float32 inputs, weights and gradients of their outputs, is rounded to bfloat16: 8 bits
    of significand; to the nearest, of two the even one. Products are summed in float32, and everything else, results,
    biases, weights, statistics, loss and optimizer, is float32; float64 stays as it is. As with PyTorch's autocast,
    gradients are computed as the forward pass was, wherever ``backward`` is called; unlike there, results are not
    rounded. "tf32", on a GPU: the same with 11 bits of significand, of two nearest numbers the one away from 0; it is
    what PyTorch does to convolutions on a GPU unless told otherwise. Other threads keep their precision. Outside it is
    "float32", which rounds nothing.

    Args:
        name: "float32", "tf32" or "bf16".

    Raises:
        ValueError: another name. Where the processor or the GPU has no instructions for it, layers then raise
            RuntimeError: bf16 needs AVX512_BF16 on a CPU, and both compute capability 8.0 on a GPU.

    Example:
        >>> with minicnn.backend.use("reference"), minicnn.precision("bf16"):  # on any processor
        ...     F.linear(tensor([1.0 + 2**-9]), tensor([[3.0]]))
        tensor([3.], dtype=float32)
    """

    def __init__(self, name: str) -> None:
        check_precision("precision", name)
        self.name = name

    def __enter__(self) -> None:
        _entered.set((*_entered.get(), self))

    def __exit__(self, *exception: object) -> None:
        """Leave this one, also where others were entered since, as a generator may do that is closed later."""
        entered = list(_entered.get())[::-1]
        if self in entered:
            entered.remove(self)
        _entered.set(tuple(entered[::-1]))


def rounding(kernels: Any) -> Callable[[Any], Any]:
    """Return what the precision in this context does to an operand, for a layer and, later, for its gradients."""
    name = get_precision()
    if name == "float32":
        return lambda array: array
    return lambda array: getattr(kernels, _KERNELS[name])(array) if array.dtype == np.float32 else array
