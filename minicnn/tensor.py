"""Tensor: an array that remembers how it was made. Every operation stands beside its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

import numpy as np

from minicnn import backend, shapes
from minicnn.arithmetic import Arithmetic
from minicnn.autograd import Node, Version, Vjp, is_grad_enabled
from minicnn.autograd import backward as walk_back
from minicnn.backend import Backend
from minicnn.backend.reference import Kernels
from minicnn.comparisons import Comparable
from minicnn.reading import Readable
from minicnn.recording import Recorded, check_readable, current
from minicnn.reductions import Reducible


def kernels_of(x: Tensor) -> type[Kernels]:
    """Return the kernels that work on the array of ``x``."""
    return backend.of(x._data).kernels


class Tensor(Readable, Comparable, Reducible, Arithmetic):
    """An array of float32, float64, integers or booleans on a backend. Floats take gradients.

    Args:
        data: a NumPy or CuPy array or a tensor, whose memory this one shares; or nested lists of numbers for the
            default backend, where floats become float32.
        requires_grad: collect d loss / d self in ``grad`` on :meth:`backward`.

    Raises:
        TypeError: data that is not numeric, or ``requires_grad`` of integers.

    Example:
        >>> x = Tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        tensor([2., 4.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_data", "_grad", "_node", "_version", "requires_grad")

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        version = Version()
        if isinstance(data, Tensor):
            data, version = data._operand, data._version.share()
        elif not hasattr(data, "dtype"):
            array = np.asarray(data)
            if array.dtype == np.float64:
                array = array.astype(np.float32)
            data = backend.default().asarray(array)
            if current.get() is not None:  # made anew by every replay, for it may be edited
                data = backend.of(data).kernels.copy(data)
        elif isinstance(data, np.generic):
            data = np.asarray(data)
        else:
            version.is_given = True
        shapes.numeric("Tensor", data)
        if requires_grad:
            shapes.check_differentiable("Tensor", data)
        self._data = data
        self._grad: Tensor | None = None
        self.requires_grad = requires_grad
        self._node: Node | None = None
        self._version = version
        recorder = current.get()
        if recorder is not None:
            recorder.made(self)

    @staticmethod
    def _owned(array: Any, requires_grad: bool = False) -> Tensor:
        """Return a tensor of an array that nobody else has or will write to."""
        made = Tensor(array, requires_grad)
        made._version.is_given = False
        return made

    @staticmethod
    def from_op(
        data: Any, inputs: Sequence[Tensor | None], vjps: Sequence[Vjp], view_of: Tensor | None = None
    ) -> Tensor:
        """Return ``data`` as the output of an operation on ``inputs``.

        Args:
            data: the array that the operation computed.
            inputs: its operands; an optional one that is not there is None.
            vjps: for each input a function from the gradient of the output to that of the input, called if the input
                requires one. It writes neither into its argument nor into anything else that it did not make.
            view_of: the input whose memory ``data`` shares, if any.

        Example:
            >>> x = tensor([3.0], requires_grad=True)
            >>> Tensor.from_op(x.data**2, (x,), (lambda gy: gy * 2 * x.data,)).backward()
            >>> x.grad
            tensor([6.], dtype=float32)
        """
        output = Tensor.__new__(Tensor)
        output._data = np.asarray(data) if isinstance(data, np.generic) else data
        output._grad = None
        output._version = Version() if view_of is None else view_of._version.share()
        output.requires_grad = is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
        output._node = Node(output, inputs, vjps) if output.requires_grad else None
        return output

    @property
    def _operand(self) -> Any:
        """What kernels take: the array, or its stand-in while a compiled function is recorded."""
        recorder = current.get()
        return self._data if recorder is None else recorder.data_of(self, self._data)

    def _edit(self, kernel: Callable[..., None], *arguments: Any) -> None:
        """Let a kernel edit the elements, and count the edit.

        It is counted afterwards: what another thread makes of them meanwhile is then known to be out of date.
        """
        try:
            kernel(self._operand, *arguments)
        finally:
            self._version.edited()

    @property
    def data(self) -> Any:
        """The array, or its stand-in while a compiled function is recorded (:mod:`minicnn.recording`)."""
        return self._operand if current.get() is not None else self._version.lent(self._data)

    @data.setter
    def data(self, array: Any) -> None:
        self._check_replaceable(array)
        if not hasattr(array, "dtype"):
            raise TypeError(f"data: expected an array, received {type(array).__name__}")
        if isinstance(base := getattr(array, "base", None), memoryview) and base.obj is self._data:
            return  # it was lent by this tensor, as in t.data *= 2
        if isinstance(array, Tensor):
            self._data, self._version = shapes.numeric("data", array._data), array._version.share()
        else:
            self._data, self._version.is_given = shapes.numeric("data", array), True

    def _check_replaceable(self, array: Any) -> None:
        """Raise RuntimeError where a run is recorded, unless it made both the tensor and its new array."""
        recorder = current.get()
        if recorder is not None and not (isinstance(array, Recorded) and recorder.owns(self)):
            check_readable("another array for a tensor")

    @property
    def grad(self) -> Tensor | None:
        """The gradient that :meth:`backward` has added up; None before."""
        recorder = current.get()
        return self._grad if recorder is None else recorder.gradient_of(self, self._grad)

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        if gradient is not None:
            if not isinstance(gradient, Tensor):
                raise TypeError(f"grad: expected a Tensor or None, received {type(gradient).__name__}")
            if not isinstance(gradient._data, Recorded):
                shapes.check_same("grad", self, gradient)
        recorder = current.get()
        if recorder is None:
            self._grad = gradient
        else:
            recorder.set_gradient(self, gradient)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._data.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._data.dtype

    @property
    def backend(self) -> Backend:
        """The backend that holds the array."""
        return backend.of(self._data)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._node is None

    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def backward(self, gradient: Tensor | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of self to ``.grad`` of every leaf it was computed from.

        Args:
            gradient: d loss / d self, of the shape of self; None stands for 1 where self has one element.
            retain_graph: keep the tape, so that it can be walked again.

        Raises:
            RuntimeError: self has no tape, the tape was freed, or a tensor on it was edited in place since.
            ValueError: no gradient for more than one element, or one of another shape.
            TypeError: a gradient of another dtype or backend.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: expected a tensor with a tape, received one that requires no gradient")
        if gradient is None:
            if self.numel() != 1:
                raise ValueError(f"backward: expected a gradient for a tensor of shape {self.shape}, received none")
            start = self.backend.xp.ones(self.shape, dtype=self.dtype)
        elif not isinstance(gradient, Tensor):
            raise TypeError(f"backward: expected the gradient as a Tensor, received {type(gradient).__name__}")
        else:
            shapes.check_same("backward", self, gradient)
            start = gradient._operand
        walk_back(self, start, retain_graph, lambda a, b: kernels_of(self).add(a, b))

    def _accumulate(self, gradient: Any, owned: bool) -> None:
        """Add to ``grad``; what is not ``owned`` may be somebody else's memory and is copied."""
        recorder = current.get()
        added_up = self._grad if recorder is None else recorder.leaf_gradient_of(self)
        if added_up is not None:
            if recorder is not None or not isinstance(added_up._data, Recorded):  # else used up, and so is the sum
                added_up._edit(kernels_of(self).accumulate, gradient)
            return
        first = Tensor._owned(gradient if owned else kernels_of(self).copy(gradient))
        if recorder is None:
            self._grad = first
        else:
            recorder.set_gradient(self, first, fresh=False)

    def detach(self) -> Tensor:
        """Return a tensor of the same memory without the tape.

        Example:
            >>> w = tensor([1.0], requires_grad=True)
            >>> (w * 2).detach().requires_grad
            False
        """
        return Tensor(self)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Collect gradients in this leaf from now on, or no longer, and return self.

        Raises:
            RuntimeError: an operation made self.
            TypeError: self holds integers.
        """
        if self._node is not None:
            raise RuntimeError("requires_grad_: expected a leaf, received the result of an operation; use detach()")
        if requires_grad:
            shapes.check_differentiable("requires_grad_", self)
        self.requires_grad = requires_grad
        return self

    def to(self, target: str | Backend) -> Tensor:
        """Return a leaf of the same elements on another backend."""
        chosen = backend.get(target) if isinstance(target, str) else target
        array = chosen.asarray(self._operand)
        return Tensor(self) if array is self._operand else Tensor._owned(array)

    def astype(self, dtype: Any) -> Tensor:
        """Return the elements as another dtype; gradients come back in the dtype of self.

        Example:
            >>> tensor([1, 2]).astype("float64")
            tensor([1., 2.], dtype=float64)
        """
        before = self.dtype
        k = kernels_of(self)
        return Tensor.from_op(k.convert(self._operand, dtype), (self,), (lambda gy: k.convert(gy, before),))

    def copy_(self, source: Tensor | Any) -> Tensor:
        """Overwrite the elements with those of a tensor or array that broadcasts to this shape, and return self.

        Example:
            >>> tensor([1.0, 2.0]).copy_(tensor(5.0))
            tensor([5., 5.], dtype=float32)
        """
        self._check_editable("copy_")
        self._edit(kernels_of(self).copy_into, self._as_mine(source))
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        check_readable("item assignment")
        self._check_editable("item assignment")
        self._edit(kernels_of(self).setitem, _plain(index), self._as_mine(value))

    def _as_mine(self, value: Any) -> Any:
        """Return what is to be written: a tensor's array as one of this tensor's backend, a list as of its dtype."""
        mine = backend.of(self._operand)
        if isinstance(value, Tensor):
            return mine.asarray(value._operand)
        if isinstance(value, Number) or mine.xp is np:
            return value  # NumPy itself knows what it can write
        return mine.asarray(value if hasattr(value, "dtype") else np.array(value, self.dtype))

    def _check_editable(self, operation: str) -> None:
        """Raise RuntimeError for a tensor that the tape records: it cannot follow an edit in place."""
        if self.requires_grad and is_grad_enabled():
            raise RuntimeError(f"{operation}: a tensor that requires a gradient is edited under no_grad() only")

    # Shapes

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """Return the elements in C order under another shape; one length may be -1.

        Example:
            >>> tensor([1, 2, 3, 4]).reshape(2, -1)
            tensor([[1, 2],
                    [3, 4]], dtype=int64)
        """
        k = kernels_of(self)
        before, after = self.shape, shapes.resolved_shape(self.shape, shapes.flat(shape))
        return Tensor.from_op(
            k.reshape(self._operand, after), (self,), (lambda gy: k.reshape(gy, before),), view_of=self
        )

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Join the axes from ``start_dim`` to ``end_dim`` into one; see :func:`minicnn.functional.flatten`."""
        if self.ndim == 0:
            return self.reshape(1)
        (start,), (end,) = shapes.axes("flatten", self.ndim, start_dim), shapes.axes("flatten", self.ndim, end_dim)
        if start > end:
            raise ValueError(f"flatten: expected start_dim before end_dim, received {start_dim} and {end_dim}")
        return self.reshape(*self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :])

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """Return a view with the axes in the order ``dims``.

        Example:
            >>> Tensor(np.zeros((2, 3, 4))).permute(2, 0, 1).shape
            (4, 2, 3)
        """
        k = kernels_of(self)
        order = shapes.axes("permute", self.ndim, shapes.flat(dims))
        if len(order) != self.ndim:
            raise ValueError(f"permute: expected {self.ndim} axes, received {order}")
        inverse = tuple(order.index(i) for i in range(self.ndim))
        return Tensor.from_op(
            k.transpose(self._operand, order), (self,), (lambda gy: k.transpose(gy, inverse),), view_of=self
        )

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Return a view with two axes exchanged."""
        (first,), (second,) = shapes.axes("transpose", self.ndim, dim0), shapes.axes("transpose", self.ndim, dim1)
        order = list(range(self.ndim))
        order[first], order[second] = second, first
        return self.permute(order)

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise ValueError(f"T: expected a matrix, received shape {self.shape}; use permute")
        return self.transpose(0, 1)

    def __getitem__(self, index: Any) -> Tensor:
        if shapes.has_mask(index):
            # a plan would keep the number of elements that its first call selects
            check_readable("an index by booleans", "multiply by the booleans as numbers")
        k = kernels_of(self)
        where, shape = _plain(index), self.shape
        vjp = lambda gy: k.getitem_grad(gy, where, shape)  # noqa: E731
        return Tensor.from_op(k.getitem(self._operand, where), (self,), (vjp,), view_of=self)


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a new tensor that owns a copy of ``data`` on the default backend. Floats in lists become float32.

    Example:
        >>> minicnn.tensor([[1, 2], [3, 4]], dtype="float32") @ minicnn.tensor([[1.0], [10.0]])
        tensor([[21.],
                [43.]], dtype=float32)
    """
    array = backend.default().asarray((data if isinstance(data, Tensor) else Tensor(data))._operand)
    k, chosen = backend.of(array).kernels, np.dtype(dtype or array.dtype)
    array = k.copy(array) if chosen == array.dtype else k.convert(array, chosen)
    return Tensor._owned(array, requires_grad)


def _plain(index: Any) -> Any:
    """Return an index with tensors replaced by their arrays."""
    if isinstance(index, tuple):
        return tuple(_plain(i) for i in index)
    return index._operand if isinstance(index, Tensor) else index
