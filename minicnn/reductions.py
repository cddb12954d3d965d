"""Reductions of a tensor along axes, each beside its gradient. dim: an axis, several, or None for all."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

from minicnn import backend, shapes


class Extremes(NamedTuple):
    """What ``max(dim)`` and ``min(dim)`` return: the values along an axis, and the int64 index of each one's first."""

    values: Any
    indices: Any


class Reducible:
    """The sums, means and extremes of a tensor."""

    __slots__ = ()

    _operand: Any
    _data: Any
    from_op: Any
    __truediv__: Any

    def sum(self, dim: shapes.Dims = None, keepdim: bool = False) -> Self:
        """Return the sum over ``dim``.

        Example:
            >>> tensor([[1, 2], [3, 4]]).sum(dim=0)
            tensor([4, 6], dtype=int64)
        """
        k = backend.of(self._data).kernels
        reduced, shape = shapes.axes("sum", self._data.ndim, dim), self._data.shape
        kept = shapes.reduced_shape(shape, reduced)
        vjp = lambda gy: k.broadcast_to(k.reshape(gy, kept), shape)  # noqa: E731
        return self.from_op(k.sum(self._operand, reduced, keepdim), (self,), (vjp,))

    def mean(self, dim: shapes.Dims = None, keepdim: bool = False) -> Self:
        """Return the mean over ``dim``; ValueError for no elements."""
        reduced = shapes.axes("mean", self._data.ndim, dim)
        count = math.prod(self._not_empty("mean", reduced))
        return self.sum(reduced, keepdim) / count

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Return the maximum of all elements, or (values, indices) along the axis ``dim``.

        Equal maxima of all elements share the gradient evenly; along an axis the first takes it. NaN is the largest.

        Raises:
            TypeError: several axes, which :meth:`amax` takes.
            ValueError: no elements.

        Example:
            >>> tensor([[1, 5], [7, 2]]).max(dim=1).indices
            tensor([1, 0], dtype=int64)
        """
        return self.amax() if dim is None else self._along("max", dim, keepdim)

    def min(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Return the minimum of all elements, or (values, indices) along the axis ``dim``: as :meth:`max`."""
        return self.amin() if dim is None else self._along("min", dim, keepdim)

    def amax(self, dim: shapes.Dims = None, keepdim: bool = False) -> Self:
        """Return the maximum over ``dim``; equal maxima share the gradient evenly."""
        return self._extreme("max", dim, keepdim)

    def amin(self, dim: shapes.Dims = None, keepdim: bool = False) -> Self:
        """Return the minimum over ``dim``; equal minima share the gradient evenly."""
        return self._extreme("min", dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """Return the index (int64) of the first maximum along ``dim``, or among all elements in C order."""
        return self._index("argmax", dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """Return the index (int64) of the first minimum along ``dim``, or among all elements in C order."""
        return self._index("argmin", dim, keepdim)

    def _extreme(self, operation: str, dim: shapes.Dims, keepdim: bool) -> Self:
        k = backend.of(self._data).kernels
        x, reduced = self._operand, shapes.axes("a" + operation, self._data.ndim, dim)
        self._not_empty("a" + operation, reduced)
        kept = shapes.reduced_shape(x.shape, reduced)
        y = getattr(k, operation)(x, reduced, True)
        output = y if keepdim else k.reshape(y, tuple(n for i, n in enumerate(kept) if i not in reduced))
        return self.from_op(output, (self,), (lambda gy: k.extreme_grad(k.reshape(gy, kept), x, y),))

    def _along(self, operation: str, dim: Any, keepdim: bool) -> Extremes:
        if not isinstance(dim, int):
            raise TypeError(f"{operation}: expected dim as one axis, received {dim!r}; use a{operation}")
        k = backend.of(self._data).kernels
        x = self._operand
        indices = self._index("arg" + operation, dim, keepdim)
        (axis,) = shapes.axes(operation, x.ndim, dim)
        kept, where = shapes.reduced_shape(x.shape, (axis,)), indices._operand

        def vjp(gy: Any) -> Any:
            return k.put_along_axis(k.reshape(gy, kept), k.reshape(where, kept), axis, x.shape[axis])

        return Extremes(self.from_op(getattr(k, operation)(x, (axis,), keepdim), (self,), (vjp,)), indices)

    def _index(self, operation: str, dim: int | None, keepdim: bool) -> Self:
        k = backend.of(self._data).kernels
        reduced = shapes.axes(operation, self._data.ndim, dim)
        self._not_empty(operation, reduced)
        x, axis = (k.reshape(self._operand, (-1,)), 0) if dim is None else (self._operand, reduced[0])
        found = k.argmax(x, axis) if operation == "argmax" else k.argmin(x, axis)
        if keepdim:
            found = k.reshape(found, shapes.reduced_shape(self._data.shape, reduced))
        return self.from_op(found, (), ())

    def _not_empty(self, operation: str, reduced: tuple[int, ...]) -> list[int]:
        """Return the lengths of the reduced axes; ValueError if one is 0."""
        lengths = [self._data.shape[i] for i in reduced]
        if 0 in lengths:
            raise ValueError(
                f"{operation}: expected at least one element along axes {reduced}, received shape {self._data.shape}"
            )
        return lengths
