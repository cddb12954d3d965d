"""Reading: how the elements of a tensor become Python numbers, text and NumPy arrays.

All of it goes past the kernels, so a function that is being recorded (:mod:`minicnn.compile`) may do none of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import numpy as np

from minicnn import backend
from minicnn.recording import Recorded, check_readable
from minicnn.text import html_text


class Readable:
    """The half of a tensor that Python and NumPy read.

    A tensor that requires a gradient is read like any other, and what is read has no tape (PyTorch wants ``detach``
    first).
    """

    __slots__ = ()
    __array_ufunc__ = None  # array * tensor is the tensor's to answer: with an error, since their dtypes may differ

    _data: Any
    _version: Any
    requires_grad: bool
    __getitem__: Any

    def __reduce_ex__(self, protocol: Any) -> Any:
        check_readable("a copy by Python", "copy outside")
        return super().__reduce_ex__(protocol)

    def numpy(self) -> np.ndarray:
        """Return the elements as a NumPy array; on the CPU it shares their memory.

        Example:
            >>> tensor([[1, 2], [3, 4]]).numpy().sum(axis=0)
            array([4, 6])
        """
        check_readable("numpy")
        return backend.to_numpy(self._version.lent(self._data))

    def item(self) -> Any:
        """Return the only element as a Python number; ValueError if there are more or none.

        Example:
            >>> tensor([1.0, 2.0]).sum().item()
            3.0
        """
        if math.prod(self._data.shape) != 1:
            raise ValueError(f"item: expected a tensor of one element, received shape {self._data.shape}")
        check_readable("item")
        return self._data.item()

    def tolist(self) -> Any:
        """Return nested lists of Python numbers."""
        check_readable("numpy")
        return backend.to_numpy(self._data).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Answer ``np.asarray(tensor)``: with the memory itself on the CPU, with a copy from a GPU."""
        array, on_cpu = self.numpy(), isinstance(self._data, np.ndarray)
        changed = dtype is not None and array.dtype != dtype
        if copy is False and (changed or not on_cpu):
            raise ValueError(
                f"numpy: expected {array.dtype} in the memory of the CPU where copy is False, "
                f"received {np.dtype(dtype or array.dtype)} of {type(self._data).__module__}; leave out copy=False"
            )
        if changed:
            return array.astype(dtype)
        return array.copy() if copy and on_cpu else array

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        """Answer ``np.mean(tensor)`` and its kin with what NumPy computes from the elements, without a gradient."""
        return function(*_read(args), **_read(kwargs))

    def __bool__(self) -> bool:
        if math.prod(self._data.shape) != 1:
            raise ValueError(
                f"bool: expected a tensor of one element, received shape {self._data.shape}; "
                "ask numpy().any() or numpy().all()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self._data.dtype.kind not in "iub":
            raise TypeError(f"index: expected a tensor of integers, received {self._data.dtype}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        """Format a tensor without axes as its number, others without ``spec`` as :func:`repr`."""
        if self._data.ndim == 0 or (spec and math.prod(self._data.shape) == 1):
            return format(self.item(), spec)
        if spec:
            raise TypeError(f"format: expected a tensor of one element for {spec!r}, received shape {self._data.shape}")
        return str(self)

    def __repr__(self) -> str:
        if isinstance(self._data, Recorded):
            return f"tensor(of a compiled function, shape={self._data.shape}, dtype={self._data.dtype})"
        text = np.array2string(
            backend.to_numpy(self._data), separator=", ", prefix="tensor(", precision=4, threshold=50
        )
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}, dtype={self._data.dtype}{grad})"

    def _repr_html_(self) -> str | None:
        """Answer a notebook: what the array is, and its elements; None for one that is recorded."""
        if isinstance(self._data, Recorded):
            return None
        array = backend.to_numpy(self._data)
        grad = ", requires_grad" if self.requires_grad else ""
        caption = f"{type(self).__name__} {array.shape}, {array.dtype}, {backend.of(self._data).name}{grad}"
        elements = np.array2string(array, separator=", ", precision=4, threshold=50, suppress_small=True)
        return html_text(f"{caption}{_extent(array)}", elements)

    def __len__(self) -> int:
        if self._data.ndim == 0:
            raise TypeError("len: expected a tensor with axes, received one without")
        return self._data.shape[0]

    def __iter__(self) -> Iterator[Any]:
        """Yield the tensors along the first axis."""
        if self._data.ndim == 0:
            raise TypeError("iter: expected a tensor with axes, received one without")
        return (self[i] for i in range(len(self)))

    def __contains__(self, element: Any) -> bool:
        """Return whether an element equals ``element``, a number or a tensor that broadcasts."""
        if not isinstance(element, Real | Readable):
            raise TypeError(f"in: expected a number or a Tensor, received {type(element).__name__}")
        return bool((self.numpy() == (element.numpy() if isinstance(element, Readable) else element)).any())


def _extent(array: np.ndarray) -> str:
    """Return in words between which numbers the elements lie, where there are several."""
    if array.size < 2 or array.dtype == bool:
        return ""
    finite = array[np.isfinite(array)]
    broken = f"; {array.size - finite.size:,} not finite" if finite.size < array.size else ""
    if not finite.size:
        return broken
    return f"; {finite.min():.4g} to {finite.max():.4g}, mean {finite.mean(dtype=np.float64):.4g}{broken}"


def _read(value: Any) -> Any:
    """Return nested arguments with every tensor replaced by its NumPy array."""
    if isinstance(value, Readable):
        return value.numpy()
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(_read(v) for v in value)
    return {name: _read(v) for name, v in value.items()} if isinstance(value, dict) else value
