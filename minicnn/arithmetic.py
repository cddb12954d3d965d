"""Arithmetic of tensors, elementwise and as matrices, each operation beside its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from minicnn import backend, shapes
from minicnn.autograd import is_grad_enabled


class Arithmetic:
    """The operators of a tensor with another, or with a number: shapes broadcast, dtypes must agree.

    ``x += y`` and its kin edit in place. Where the result needs no tape, it overwrites the elements, and every view
    shows it. Where it needs one, the memory stays as it is for the operations that used it, and x becomes the result.

    Raises:
        RuntimeError: in place on a leaf that requires a gradient, outside of ``no_grad()``; or on a tensor whose
            memory a view shares and whose result needs a tape: the view would still show the old elements.
        TypeError: something else than a number or a tensor, or dtypes or backends that differ; in place a result of
            another dtype, as that of a division of integers.
        ValueError: shapes that do not broadcast; in place a result of another shape.
    """

    __slots__ = ()

    _operand: Any
    _data: Any
    from_op: Any

    def _with(self, operation: str, other: Arithmetic | float) -> tuple[Any, Any, Any, tuple[Any, Any]]:
        """Return the kernels, both operands as these take them, and the tensors among the operands."""
        k = backend.of(self._data).kernels
        if not isinstance(other, Arithmetic):
            return k, self._operand, shapes.number(operation, other), (self, None)
        shapes.check_operands(operation, self, other)
        return k, self._operand, other._operand, (self, other)

    def __add__(self, other: Arithmetic | float) -> Self:
        k, a, b, operands = self._with("add", other)
        left, right = a.shape, shapes.of(b)
        vjps = (lambda gy: k.sum_to(gy, left), lambda gy: k.sum_to(gy, right))
        return self.from_op(k.add(a, b), operands, vjps)

    __radd__ = __add__

    def __sub__(self, other: Arithmetic | float) -> Self:
        k, a, b, operands = self._with("subtract", other)
        left, right = a.shape, shapes.of(b)
        vjps = (lambda gy: k.sum_to(gy, left), lambda gy: k.negative(k.sum_to(gy, right)))
        return self.from_op(k.subtract(a, b), operands, vjps)

    def __rsub__(self, other: Arithmetic | float) -> Self:
        return -self + other

    def __mul__(self, other: Arithmetic | float) -> Self:
        k, a, b, operands = self._with("multiply", other)
        left, right = a.shape, shapes.of(b)
        vjps = (lambda gy: k.sum_to(k.multiply(gy, b), left), lambda gy: k.sum_to(k.multiply(gy, a), right))
        return self.from_op(k.multiply(a, b), operands, vjps)

    __rmul__ = __mul__

    def __truediv__(self, other: Arithmetic | float) -> Self:
        k, a, b, operands = self._with("divide", other)
        left, right, y = a.shape, shapes.of(b), k.divide(a, b)
        vjps = (
            lambda gy: k.sum_to(k.divide(gy, b), left),
            lambda gy: k.sum_to(k.negative(k.multiply(gy, k.divide(y, b))), right),  # b * b may overflow
        )
        return self.from_op(y, operands, vjps)

    def __rtruediv__(self, other: float) -> Self:
        k = backend.of(self._data).kernels
        b = self._operand
        y = k.divide(shapes.number("divide", other), b)
        return self.from_op(y, (self,), (lambda gy: k.negative(k.multiply(gy, k.divide(y, b))),))

    def __neg__(self) -> Self:
        k = backend.of(self._data).kernels
        return self.from_op(k.negative(self._operand), (self,), (lambda gy: k.negative(gy),))

    def __pow__(self, exponent: float) -> Self:
        k = backend.of(self._data).kernels
        a, p = self._operand, shapes.number("power", exponent)
        return self.from_op(k.power(a, p), (self,), (lambda gy: k.power_grad(gy, a, p),))

    def __matmul__(self, other: Arithmetic) -> Self:
        if not isinstance(other, Arithmetic):
            raise TypeError(f"matmul: expected a Tensor, received {type(other).__name__}")
        shapes.check_operands("matmul", self, other, broadcast=False)
        a, b = self._operand, other._operand
        joined = a.ndim > 1 and b.ndim > 1 and a.shape[-1] == b.shape[-2]
        if not joined or not shapes.broadcastable(a.shape[:-2], b.shape[:-2]):
            raise ValueError(f"matmul: expected (..., M, K) @ (..., K, N), received {a.shape} @ {b.shape}")
        k = backend.of(self._data).kernels
        vjps = (
            lambda gy: k.sum_to(k.matmul(gy, k.transpose(b, shapes.swapped(b.ndim))), a.shape),
            lambda gy: k.sum_to(k.matmul(k.transpose(a, shapes.swapped(a.ndim)), gy), b.shape),
        )
        return self.from_op(k.matmul(a, b), (self, other), vjps)

    def exp(self) -> Self:
        """Return e^x of each element x.

        Example:
            >>> tensor([0.0, -np.inf]).exp()
            tensor([1., 0.], dtype=float32)
        """
        k = backend.of(self._data).kernels
        y = k.exp(self._operand)
        return self.from_op(y, (self,), (lambda gy: k.multiply(gy, y),))

    def log(self) -> Self:
        """Return the natural logarithm of each element."""
        k = backend.of(self._data).kernels
        x = self._operand
        return self.from_op(k.log(x), (self,), (lambda gy: k.divide(gy, x),))

    def sqrt(self) -> Self:
        """Return the square root of each element."""
        k = backend.of(self._data).kernels
        y = k.sqrt(self._operand)
        return self.from_op(y, (self,), (lambda gy: k.sqrt_grad(gy, y),))

    def __iadd__(self, other: Arithmetic | float) -> Self:
        return _become(self, "+=", lambda x: x + other)

    def __isub__(self, other: Arithmetic | float) -> Self:
        return _become(self, "-=", lambda x: x - other)

    def __imul__(self, other: Arithmetic | float) -> Self:
        return _become(self, "*=", lambda x: x * other)

    def __itruediv__(self, other: Arithmetic | float) -> Self:
        return _become(self, "/=", lambda x: x / other)

    def __ipow__(self, other: Arithmetic | float) -> Self:
        return _become(self, "**=", lambda x: x**other)


def _become(x: Any, operation: str, compute: Callable[[Any], Any]) -> Any:
    if x.requires_grad and x.is_leaf and is_grad_enabled():
        raise RuntimeError(f"{operation}: a leaf that requires a gradient is edited under no_grad() only")
    result = compute(x)
    if result.dtype != x.dtype:
        raise TypeError(f"{operation}: expected a result of {x.dtype}, received {result.dtype}; use astype first")
    if result.shape != x.shape:
        raise ValueError(f"{operation}: expected a result of shape {x.shape}, received {result.shape}")
    if not result.requires_grad:
        return x.copy_(result)
    if x._version.shared:
        raise RuntimeError(
            f"{operation}: the tape cannot follow an edit of memory that a view shares; "
            f"write x = x {operation[:-1]} y instead"
        )
    x._check_replaceable(result._data)
    x._data, x._version, x._node, x.requires_grad = result._data, result._version, result._node, True
    return x
