"""What a function tells a recorder beyond the kernels that it calls (see :mod:`minicnn.compile`).

A recorder belongs to the context of the call that records (:data:`current`): other threads never meet it. While it is
there, the data of every tensor is a :class:`Recorded`, and :func:`minicnn.backend.of` answers with its kernels.

A plan repeats the kernel calls of one run. A Python number that changes from run to run (a learning rate, the key of a
mask) is wrapped by :func:`per_replay`; what Python must do in each replay goes through :func:`on_replay` (count a step)
or :func:`check_on_replay` (check labels). Without a recorder they just do it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol

import numpy as np


class Recorder(Protocol):
    """What a recorder offers."""

    backend: Any
    """The backend of all arrays of the run; its kernels note each call."""

    def made(self, tensor: Any) -> None:
        """Note a tensor that the run made: nobody outside has it."""

    def owns(self, tensor: Any) -> bool:
        """Return whether the run made a tensor."""

    def data_of(self, tensor: Any, array: Any) -> Any:
        """Return the stand-in for the array of a tensor."""

    def gradient_of(self, tensor: Any, gradient: Any) -> Any:
        """Return the gradient of a tensor; ``gradient`` is what it was before the run."""

    def set_gradient(self, tensor: Any, gradient: Any, fresh: bool = True) -> None:
        """Note what the gradient of a tensor is now; not ``fresh``: together with what it was before the run."""

    def leaf_gradient_of(self, tensor: Any) -> Any:
        """Return the gradient to which backward adds, None for none so far."""

    def per_replay(self, read: Callable[[], Any]) -> Any:
        """Return a stand-in for ``read()`` that a recorded call may take as an argument."""

    def on_replay(self, action: Callable[[], None], undo: Callable[[], None] | None) -> None:
        """Note an action for every replay, and how it is taken back where a replay fails."""

    def check_on_replay(self, array: Any, action: Callable[[Any], None]) -> None:
        """Note an action on an array for this place in every replay."""

    layer: str
    """The name of the module that runs, or of the one whose gradient is computed."""

    def inside(self, module: Any) -> AbstractContextManager[None]:
        """Note that a module runs, inside of the context."""

    def relies_on(self, module: Any) -> None:
        """Note that the run depends on the parts of a module, and on its mode."""


current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)
"""The recorder of the run under way in this context, if one is recorded."""


class Recorded(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for an array of a run that is recorded: kernels take it; to everybody else it only tells its shape.

    What NumPy or Python would compute from it would be computed once and never again, so that it raises RuntimeError.
    """

    __slots__ = ("__weakref__", "base", "dtype", "ndim", "owner", "shape", "size", "value")
    __hash__ = object.__hash__

    def __init__(self, owner: Any, value: Any, is_view: bool = False) -> None:
        self.owner, self.value = owner, value
        self.shape, self.dtype, self.ndim, self.size = (
            value.shape, value.array.dtype, len(value.shape), math.prod(value.shape),
        )  # fmt: skip
        self.base = self if is_view else None

    def __reduce__(self) -> Any:
        """Answer copy and pickle, of a model whose gradients stayed in a plan: what stands for the same, used up."""
        return _used_up, (self.shape, self.dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> NoReturn:
        self.refuse(f"numpy.{ufunc.__name__}")

    def __array_function__(self, function: Any, kinds: Any, arguments: Any, options: Any) -> NoReturn:
        self.refuse(f"numpy.{function.__name__}")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self.refuse("a conversion to a NumPy array")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # protocols that it does not have
            raise AttributeError(name)
        self.refuse(f".{name}")

    def __getitem__(self, index: Any) -> NoReturn:
        self.refuse("an index")

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        self.refuse("item assignment")

    def __bool__(self) -> NoReturn:
        self.refuse("bool")

    def __float__(self) -> NoReturn:
        self.refuse("a conversion to a number")

    __int__ = __index__ = __float__

    def __len__(self) -> int:
        return self.shape[0]

    def refuse(self, what: str) -> NoReturn:
        """Raise RuntimeError with what to do instead."""
        if self.owner is not None and current.get() is self.owner:
            raise RuntimeError(
                f"compile: {what} on the data of a tensor goes past the kernels, so that a plan could not repeat it; "
                "use the operations of Tensor and minicnn.functional, or pass the array as an input"
            )
        raise RuntimeError(
            f"{what}: the values of this tensor stay inside the compiled function that made it (as the gradient that "
            "its own optimizer step used up); return it from that function, or call zero_grad and compute it outside"
        )


def _used_up(shape: tuple[int, ...], dtype: np.dtype) -> Recorded:
    """Return what stands for an array of a run that is over."""
    stand_in = Recorded.__new__(Recorded)
    stand_in.owner = stand_in.value = stand_in.base = None
    stand_in.shape, stand_in.dtype, stand_in.ndim, stand_in.size = shape, dtype, len(shape), math.prod(shape)
    return stand_in


def per_replay(read: Callable[[], Any]) -> Any:
    """Return ``read()``, read anew by every replay."""
    recorder = current.get()
    return read() if recorder is None else recorder.per_replay(read)


def on_replay(action: Callable[[], None], undo: Callable[[], None] | None = None) -> None:
    """Call ``action`` now, or, where a run is recorded, in every replay before its kernels.

    ``undo`` takes back what it changed, if anything, where a replay fails.
    """
    recorder = current.get()
    if recorder is None:
        action()
    else:
        recorder.on_replay(action, undo)


def check_on_replay(array: Any, action: Callable[[Any], None]) -> None:
    """Call ``action(array)`` here, and here in every replay; it may raise, and what comes after is then not done.

    A run that is recorded has no numbers to look at; its first replay has. On a GPU arrays that are no inputs are
    looked at behind the replay.
    """
    recorder = current.get()
    if recorder is None:
        action(array)
    else:
        recorder.check_on_replay(array, action)


def check_readable(operation: str, remedy: str = "return the tensor instead") -> None:
    """Raise RuntimeError while a recorder listens: what goes past the kernels would be frozen in the plan."""
    if current.get() is not None:
        raise RuntimeError(f"compile: {operation} goes past the kernels, so that a plan could not repeat it; {remedy}")
