"""Comparisons of tensors, element by element: == and != too. Two names of one tensor are found by ``is``."""

from __future__ import annotations

from numbers import Real
from typing import Any

from minicnn import backend, shapes


class Comparable:
    """The six comparisons of a tensor with another, or with a number: a tensor of booleans without gradient.

    Shapes broadcast. Dtypes may differ, as in PyTorch. A tensor hashes by identity, so that it can be a key.
    """

    __slots__ = ()

    _operand: Any
    _data: Any
    from_op: Any

    def __eq__(self, other: Any) -> Any:
        return self._compared("equal", other)

    def __ne__(self, other: Any) -> Any:
        return self._compared("not_equal", other)

    def __lt__(self, other: Any) -> Any:
        return self._compared("less", other)

    def __le__(self, other: Any) -> Any:
        return self._compared("less_equal", other)

    def __gt__(self, other: Any) -> Any:
        return self._compared("greater", other)

    def __ge__(self, other: Any) -> Any:
        return self._compared("greater_equal", other)

    __hash__ = object.__hash__

    def _compared(self, operation: str, other: Any) -> Any:
        """Compare by the kernel ``operation``; a tensor equals nothing that holds no numbers (None, text)."""
        if isinstance(other, Comparable):
            shapes.check_operands(operation, self, other, same_dtype=False)
            operand = other._operand
        elif isinstance(other, Real):
            operand = shapes.number(operation, other)
        elif hasattr(other, "__array__") or isinstance(other, list | tuple):
            raise TypeError(f"{operation}: expected a Tensor or a number, received {type(other).__name__}; use tensor")
        else:
            return NotImplemented
        kernels = backend.of(self._data).kernels
        return self.from_op(getattr(kernels, operation)(self._operand, operand), (), ())
