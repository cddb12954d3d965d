"""Kernels whose numbers may be on the device, where a CUDA graph finds those of each replay."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def live(numbers: Callable[..., tuple[Any, ...]]) -> Callable[[Callable], Callable]:
    """Give a kernel its numbers as a first argument: Python's, or arrays of one element without axes, float64 mostly.

    These arrays lie side by side, with 8 bytes for each. numbers: from the arguments of the kernel to them; it looks at
    no array. The kernel has it as ``numbers``, and ``with_numbers`` is what it calls with them, where arguments that
    are such numbers do not matter.
    """

    def declare(function: Callable) -> Callable:
        @functools.wraps(function)
        def kernel(*arguments: Any) -> Any:
            return function(numbers(*arguments), *arguments)

        kernel.__signature__ = inspect.signature(numbers)  # type: ignore[attr-defined]
        kernel.numbers, kernel.with_numbers = numbers, function  # type: ignore[attr-defined]
        return kernel

    return declare
