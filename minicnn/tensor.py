"""Tensor: an array that remembers how it was made. Every operation stands beside its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Union

import numpy as np

from minicnn import backend
from minicnn.autograd import Node, Version, Vjp, is_grad_enabled
from minicnn.autograd import backward as walk_back
from minicnn.backend import Backend

Operand = Union["Tensor", Real]  # noqa: UP007 - a string cannot be an operand of |
Dims = int | Sequence[int] | None


def kernels_of(x: Tensor) -> Any:
    """Return the kernels that work on the array of ``x``."""
    return backend.of(x.data).kernels


class Tensor:
    """An array of float32 or float64 (or integers, which take no gradient) on a backend.

    Args:
        data: a NumPy or CuPy array, which is shared and not copied, or nested lists of numbers (floats become
            float32), made on the default backend.
        requires_grad: collect d loss / d self in ``grad`` on :meth:`backward`.

    Raises:
        TypeError: data that is not numeric, or ``requires_grad`` of integers.
    """

    __slots__ = ("__weakref__", "_node", "_version", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # numpy_array * tensor is ours to answer: with an error, since their dtypes may differ

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if not hasattr(data, "dtype"):
            array = np.asarray(data)
            if array.dtype == np.float64:
                array = array.astype(np.float32)
            data = backend.default().asarray(array)
        elif isinstance(data, np.generic):
            data = np.asarray(data)
        if data.dtype.kind not in "fiub" or data.dtype == np.float16:
            raise TypeError(f"Tensor: expected float32, float64 or integers, received {data.dtype}")
        if requires_grad and data.dtype.kind != "f":
            raise TypeError(f"Tensor: only float32 and float64 take gradients, received {data.dtype}")
        self.data = data
        self.grad: Tensor | None = None
        self.requires_grad = requires_grad
        self._node: Node | None = None
        self._version = Version()

    @staticmethod
    def from_op(data: Any, inputs: Sequence[Tensor], vjps: Sequence[Vjp], view_of: Tensor | None = None) -> Tensor:
        """Return ``data`` as the output of an operation on ``inputs``, with one vjp (gy -> gradient) an input.

        A vjp runs only if its input requires a gradient. It must not write into gy, nor into anything it did not
        make. ``view_of`` names the input whose memory ``data`` shares, if any.
        """
        output = Tensor.__new__(Tensor)
        output.data = np.asarray(data) if isinstance(data, np.generic) else data
        output.grad = None
        output._version = Version() if view_of is None else view_of._version
        output.requires_grad = is_grad_enabled() and any(t.requires_grad for t in inputs)
        output._node = Node(output, inputs, vjps) if output.requires_grad else None
        return output

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self.data.dtype

    @property
    def backend(self) -> Backend:
        """The backend that holds the array."""
        return backend.of(self.data)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._node is None

    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a tensor without axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(", precision=4, threshold=50)
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}, dtype={self.dtype}{grad})"

    def numpy(self) -> np.ndarray:
        """Return the elements as a NumPy array; on the CPU it shares their memory."""
        return backend.to_numpy(self.data)

    def item(self) -> float:
        """Return the only element as a Python number; ValueError if there are more."""
        if self.numel() != 1:
            raise ValueError(f"item: expected a tensor of one element, received shape {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        """Return nested lists of Python numbers."""
        return self.numpy().tolist()

    # The tape

    def backward(self, gradient: Tensor | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of self to ``.grad`` of every leaf it was computed from.

        Args:
            gradient: d loss / d self, of the shape of self; 1 for a tensor of one element.
            retain_graph: keep the tape, to walk it again.

        Raises:
            RuntimeError: self has no tape, the tape was freed, or a tensor on it was edited in place since.
            ValueError: no gradient for more than one element, or one of another shape or dtype.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor requires no gradient and has no tape")
        if gradient is None:
            if self.numel() != 1:
                raise ValueError(f"backward: shape {self.shape} is more than one element, pass its gradient")
            start = backend.of(self.data).xp.ones_like(self.data)
        else:
            start = gradient.data
            if start.shape != self.shape or start.dtype != self.dtype:
                raise ValueError(
                    f"backward: expected a gradient of shape {self.shape} and {self.dtype}, "
                    f"received {start.shape} and {start.dtype}"
                )
        walk_back(self, start, retain_graph)

    def _accumulate(self, gradient: Any, owned: bool) -> None:
        """Add to ``grad``; what is not ``owned`` may be somebody else's memory and is copied."""
        if self.grad is not None:
            kernels_of(self).accumulate(self.grad.data, gradient)
        else:
            self.grad = Tensor(gradient if owned else gradient.copy())

    def detach(self) -> Tensor:
        """Return the same memory without the tape."""
        output = Tensor(self.data)
        output._version = self._version
        return output

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for a gradient or no longer, and return self; only a leaf can be asked."""
        if self._node is not None:
            raise RuntimeError("requires_grad_: only a leaf can change it; use detach()")
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"requires_grad_: only float32 and float64 take gradients, received {self.dtype}")
        self.requires_grad = requires_grad
        return self

    def to(self, target: str | Backend) -> Tensor:
        """Return this tensor on another backend, as a leaf without gradient."""
        chosen = backend.get(target) if isinstance(target, str) else target
        return Tensor(chosen.asarray(self.data))

    def astype(self, dtype: Any) -> Tensor:
        """Return the elements as float32 or float64; gradients come back in the dtype of self."""
        before = self.dtype
        return Tensor.from_op(self.data.astype(dtype), (self,), (lambda gy: gy.astype(before),))

    # Edits in place

    def copy_(self, source: Tensor | Any) -> Tensor:
        """Overwrite the elements, and return self. source: tensor or array that broadcasts to this shape."""
        array = source.data if isinstance(source, Tensor) else source
        self._edited("copy_")
        kernels_of(self).copy_into(self.data, array)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        self._edited("item assignment")
        self.data[_plain(index)] = value.data if isinstance(value, Tensor) else value

    def _edited(self, operation: str) -> None:
        """Count an edit in place; the tape cannot follow one on a tensor that it records."""
        if self.requires_grad and is_grad_enabled():
            raise RuntimeError(f"{operation}: a tensor that requires a gradient is edited under no_grad() only")
        self._version.number += 1

    # Arithmetic

    def __add__(self, other: Operand) -> Tensor:
        return _add(self, other)

    __radd__ = __add__

    def __mul__(self, other: Operand) -> Tensor:
        return _multiply(self, other)

    __rmul__ = __mul__

    def __sub__(self, other: Operand) -> Tensor:
        return _subtract(self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return _add(_negative(self), other)

    def __truediv__(self, other: Operand) -> Tensor:
        return _divide(self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return _multiply(_power(self, -1), other)

    def __neg__(self) -> Tensor:
        return _negative(self)

    def __pow__(self, exponent: Real) -> Tensor:
        return _power(self, exponent)

    def __matmul__(self, other: Tensor) -> Tensor:
        return _matmul(self, other)

    def exp(self) -> Tensor:
        """e^x, elementwise."""
        return _exp(self)

    def log(self) -> Tensor:
        """Natural logarithm, elementwise."""
        return _log(self)

    def sqrt(self) -> Tensor:
        """Square root, elementwise."""
        return _sqrt(self)

    # Reductions; dim: an axis, several, or None for all

    def sum(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Return the sum over ``dim``."""
        return _sum(self, dim, keepdim)

    def mean(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Return the mean over ``dim``."""
        return _mean(self, dim, keepdim)

    def max(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Return the maximum over ``dim``; equal maxima share the gradient evenly (as ``torch.amax``)."""
        return _max(self, dim, keepdim)

    def argmax(self, dim: int) -> Tensor:
        """Return the index of the first maximum along ``dim``, as integers without gradient."""
        (axis,) = _axes("argmax", self, dim)
        return Tensor(kernels_of(self).argmax(self.data, axis))

    # Shapes

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """Return the elements in C order under another shape; one length may be -1."""
        return _reshape(self, _flat(shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Join the axes from ``start_dim`` to ``end_dim`` into one."""
        start, end = _axes("flatten", self, (start_dim, end_dim)) if self.ndim else (0, 0)
        return _reshape(self, (*self.shape[:start], -1, *self.shape[end + 1 :]))

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """Return a view with the axes in the order ``dims``."""
        return _permute(self, _axes("permute", self, _flat(dims)))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Return a view with two axes exchanged."""
        axis0, axis1 = _axes("transpose", self, dim0) + _axes("transpose", self, dim1)
        order = list(range(self.ndim))
        order[axis0], order[axis1] = axis1, axis0
        return _permute(self, tuple(order))

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise ValueError(f"T: expected a matrix, received shape {self.shape}; use permute")
        return self.transpose(0, 1)

    def __getitem__(self, index: Any) -> Tensor:
        return _getitem(self, _plain(index))


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a new tensor that owns a copy of ``data`` on the default backend. Floats in lists become float32."""
    array = Tensor(data).data if not isinstance(data, Tensor) else data.data
    array = backend.default().asarray(array)
    return Tensor(array.astype(dtype or array.dtype), requires_grad=requires_grad)


def empty(*shape: int) -> Tensor:
    """Return a float32 tensor of undefined elements on the default backend."""
    return Tensor(backend.default().xp.empty(shape, dtype=np.float32))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along an existing axis; all other axes must agree."""
    if not tensors:
        raise ValueError("cat: expected at least one tensor, received none")
    (axis,) = _axes("cat", tensors[0], dim)
    first = tensors[0].shape
    for t in tensors[1:]:
        if t.shape[:axis] + t.shape[axis + 1 :] != first[:axis] + first[axis + 1 :] or t.dtype != tensors[0].dtype:
            raise ValueError(
                f"cat: expected {first} and {tensors[0].dtype} in all axes but {axis}, received {t.shape} and {t.dtype}"
            )
    k = kernels_of(tensors[0])
    vjps, start = [], 0
    for t in tensors:
        stop = start + t.shape[axis]
        index = (slice(None),) * axis + (slice(start, stop),)
        vjps.append(lambda gy, index=index: k.getitem(gy, index))
        start = stop
    return Tensor.from_op(k.concatenate([t.data for t in tensors], axis), tensors, vjps)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis."""
    if not tensors:
        raise ValueError("stack: expected at least one tensor, received none")
    axis = dim % (tensors[0].ndim + 1)
    return cat([t.reshape(*t.shape[:axis], 1, *t.shape[axis:]) for t in tensors], axis)


# The operations


def _add(a: Tensor, b: Operand) -> Tensor:
    k = kernels_of(a)
    if not isinstance(b, Tensor):
        return Tensor.from_op(k.add(a.data, _number("add", b)), (a,), (lambda gy: gy,))
    _check("add", a, b)
    vjps = (lambda gy, shape=a.shape: k.sum_to(gy, shape), lambda gy, shape=b.shape: k.sum_to(gy, shape))
    return Tensor.from_op(k.add(a.data, b.data), (a, b), vjps)


def _subtract(a: Tensor, b: Operand) -> Tensor:
    k = kernels_of(a)
    if not isinstance(b, Tensor):
        return Tensor.from_op(k.subtract(a.data, _number("subtract", b)), (a,), (lambda gy: gy,))
    _check("subtract", a, b)
    vjps = (lambda gy, shape=a.shape: k.sum_to(gy, shape), lambda gy, shape=b.shape: k.negative(k.sum_to(gy, shape)))
    return Tensor.from_op(k.subtract(a.data, b.data), (a, b), vjps)


def _multiply(a: Tensor, b: Operand) -> Tensor:
    k = kernels_of(a)
    x = a.data
    if not isinstance(b, Tensor):
        factor = _number("multiply", b)
        return Tensor.from_op(k.multiply(x, factor), (a,), (lambda gy: k.multiply(gy, factor),))
    _check("multiply", a, b)
    y = b.data
    vjps = (
        lambda gy: k.sum_to(k.multiply(gy, y), x.shape),
        lambda gy: k.sum_to(k.multiply(gy, x), y.shape),
    )
    return Tensor.from_op(k.multiply(x, y), (a, b), vjps)


def _divide(a: Tensor, b: Operand) -> Tensor:
    k = kernels_of(a)
    if not isinstance(b, Tensor):
        divisor = _number("divide", b)
        return Tensor.from_op(k.divide(a.data, divisor), (a,), (lambda gy: k.divide(gy, divisor),))
    _check("divide", a, b)
    x, y = a.data, b.data
    vjps = (
        lambda gy: k.sum_to(k.divide(gy, y), x.shape),
        lambda gy: k.sum_to(k.negative(k.divide(k.multiply(gy, x), k.multiply(y, y))), y.shape),
    )
    return Tensor.from_op(k.divide(x, y), (a, b), vjps)


def _negative(a: Tensor) -> Tensor:
    k = kernels_of(a)
    return Tensor.from_op(k.negative(a.data), (a,), (lambda gy: k.negative(gy),))


def _power(a: Tensor, exponent: Real) -> Tensor:
    k = kernels_of(a)
    x, p = a.data, _number("power", exponent)
    return Tensor.from_op(k.power(x, p), (a,), (lambda gy: k.power_grad(gy, x, p),))


def _exp(a: Tensor) -> Tensor:
    k = kernels_of(a)
    y = k.exp(a.data)
    return Tensor.from_op(y, (a,), (lambda gy: k.multiply(gy, y),))


def _log(a: Tensor) -> Tensor:
    k = kernels_of(a)
    x = a.data
    return Tensor.from_op(k.log(x), (a,), (lambda gy: k.divide(gy, x),))


def _sqrt(a: Tensor) -> Tensor:
    k = kernels_of(a)
    y = k.sqrt(a.data)
    return Tensor.from_op(y, (a,), (lambda gy: k.sqrt_grad(gy, y),))


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    if not isinstance(b, Tensor) or a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        received = f"{a.shape} @ {b.shape}" if isinstance(b, Tensor) else f"{a.shape} @ {type(b).__name__}"
        raise ValueError(f"matmul: expected (..., M, K) @ (..., K, N), received {received}")
    _check("matmul", a, b, broadcast=False)
    k = kernels_of(a)
    x, y = a.data, b.data
    vjps = (
        lambda gy: k.sum_to(k.matmul(gy, k.transpose(y, _swapped(y.ndim))), x.shape),
        lambda gy: k.sum_to(k.matmul(k.transpose(x, _swapped(x.ndim)), gy), y.shape),
    )
    return Tensor.from_op(k.matmul(x, y), (a, b), vjps)


def _sum(a: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    k = kernels_of(a)
    axes, shape = _axes("sum", a, dim), a.shape
    kept = _kept(shape, axes)
    return Tensor.from_op(
        k.sum(a.data, axes, keepdim), (a,), (lambda gy: k.broadcast_to(k.reshape(gy, kept), shape),)
    )  # fmt: skip


def _mean(a: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    axes = _axes("mean", a, dim)
    count = math.prod(a.shape[i] for i in axes)
    if count == 0:
        raise ValueError(f"mean: expected at least one element, received shape {a.shape}")
    return _divide(_sum(a, axes, keepdim), count)


def _max(a: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    k = kernels_of(a)
    axes, x = _axes("max", a, dim), a.data
    if any(a.shape[i] == 0 for i in axes):
        raise ValueError(f"max: expected at least one element along {axes}, received shape {a.shape}")
    kept = _kept(a.shape, axes)
    y = k.max(x, axes, True)
    output = y if keepdim else k.reshape(y, tuple(n for i, n in enumerate(kept) if i not in axes))
    return Tensor.from_op(output, (a,), (lambda gy: k.max_grad(k.reshape(gy, kept), x, y),))


def _reshape(a: Tensor, shape: tuple[int, ...]) -> Tensor:
    k = kernels_of(a)
    before = a.shape
    known = math.prod(n for n in shape if n != -1)
    unknown = sum(n == -1 for n in shape)
    if unknown > 1 or (a.numel() % known if unknown and known else a.numel() != known):
        raise ValueError(f"reshape: {before} holds {a.numel()} elements, received {shape}")
    return Tensor.from_op(k.reshape(a.data, shape), (a,), (lambda gy: k.reshape(gy, before),), view_of=a)


def _permute(a: Tensor, order: tuple[int, ...]) -> Tensor:
    k = kernels_of(a)
    if len(order) != a.ndim:
        raise ValueError(f"permute: expected {a.ndim} axes, received {order}")
    inverse = tuple(order.index(i) for i in range(a.ndim))
    return Tensor.from_op(k.transpose(a.data, order), (a,), (lambda gy: k.transpose(gy, inverse),), view_of=a)


def _getitem(a: Tensor, index: Any) -> Tensor:
    k = kernels_of(a)
    shape = a.shape
    return Tensor.from_op(k.getitem(a.data, index), (a,), (lambda gy: k.getitem_grad(gy, index, shape),), view_of=a)


# Arguments


def _number(operation: str, value: Any) -> float | int:
    """A Python number: NumPy scalars would promote float32 to float64."""
    if not isinstance(value, Real):
        raise TypeError(f"{operation}: expected a Tensor or a number, received {type(value).__name__}")
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _check(operation: str, a: Tensor, b: Tensor, broadcast: bool = True) -> None:
    if a.dtype != b.dtype:
        raise TypeError(f"{operation}: expected one dtype, received {a.dtype} and {b.dtype}; use astype")
    if type(a.data) is not type(b.data):
        raise TypeError(f"{operation}: expected one backend, received {type(a.data)} and {type(b.data)}; use to")
    pairs = zip(reversed(a.shape), reversed(b.shape), strict=False)
    if broadcast and any(m != n and 1 not in (m, n) for m, n in pairs):
        raise ValueError(f"{operation}: shapes {a.shape} and {b.shape} do not broadcast")


def _axes(operation: str, a: Tensor, dim: Dims) -> tuple[int, ...]:
    """The axes that ``dim`` names, from 0; ValueError for one that is not there or named twice."""
    if dim is None:
        return tuple(range(a.ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    axes = tuple(d % a.ndim if -a.ndim <= d < a.ndim else -1 for d in dims)
    if -1 in axes or (len(set(axes)) != len(axes) and operation != "flatten"):
        raise ValueError(f"{operation}: expected distinct axes from {-a.ndim} to {a.ndim - 1}, received {dim}")
    return axes


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with 1 on the reduced axes."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _swapped(ndim: int) -> tuple[int, ...]:
    """Axes with the last two exchanged."""
    return (*range(ndim - 2), ndim - 1, ndim - 2)


def _flat(values: Sequence[Any]) -> tuple[int, ...]:
    """f(1, 2) and f((1, 2)) both give (1, 2)."""
    return tuple(values[0]) if len(values) == 1 and not isinstance(values[0], int) else tuple(values)


def _plain(index: Any) -> Any:
    """An index with tensors replaced by their arrays."""
    if isinstance(index, tuple):
        return tuple(_plain(i) for i in index)
    return index.data if isinstance(index, Tensor) else index
