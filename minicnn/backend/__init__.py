"""Backends: one array library and one implementation of the kernels each.

===========  ==========  =======================================================================
name         arrays      kernels
===========  ==========  =======================================================================
numpy        NumPy       Numba, compiled for this processor (:mod:`minicnn.backend.cpu`)
cupy         CuPy        CUDA (:mod:`minicnn.backend.cuda`)
reference    NumPy       plain array code, the specification (:mod:`minicnn.backend.reference`)
===========  ==========  =======================================================================

What is true of a kernel on each of them is declared in the reference (:mod:`minicnn.backend.kernel`).
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from minicnn.backend.reference import Kernels
from minicnn.recording import Recorded, current

_ALIGNMENT = 16
"""Bytes of which the start of an array is a multiple where several are packed."""
_PACKAGES = {
    "numpy": "minicnn.backend.cpu",
    "cupy": "minicnn.backend.cuda",
    "reference": "minicnn.backend.reference",
}


class BackendUnavailable(RuntimeError):
    """A backend's package, driver or device is missing; the message says which, and the remedy."""


@dataclass(frozen=True)
class Backend:
    """A name, the array module ``xp``, and the ``kernels`` that work on its arrays."""

    name: str
    xp: Any
    kernels: type[Kernels]

    @property
    def fastest_precision(self) -> str:
        """The precision in which compiled steps are fastest: "bf16" on a CPU with AMX, otherwise "float32".

        On a GPU it is "tf32", as convolutions are there in PyTorch, or "float32" where it has no such tensor cores.
        """
        if self.name == "cupy":
            with suppress(RuntimeError):
                self.require_precision("tf32")
                return "tf32"
        return "bf16" if self.name == "numpy" and package("numpy").machine.has_amx() else "float32"

    def require_precision(self, name: str) -> None:
        """Raise RuntimeError where what runs the kernels lacks instructions for a precision."""
        if self.name != "reference":
            package(self.name).require_precision(name)

    @property
    def is_device(self) -> bool:
        """Whether a device does the work while Python goes on, so that who reads a number has to wait for it."""
        return self.xp is not np

    def asarray(self, array: Any) -> Any:
        """Return ``array`` (NumPy or CuPy) as an array of this backend, moved only where it must be."""
        if isinstance(array, Recorded):
            return array
        if isinstance(array, np.ndarray) or self.xp is not np:
            return self.xp.asarray(array)
        return to_numpy(array)

    def asarrays(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        """Return NumPy arrays as arrays of this backend, moved to a device by one copy for which nobody waits."""
        if not self.is_device:
            return list(arrays)
        ends = list(accumulate((-(-a.nbytes // _ALIGNMENT) * _ALIGNMENT for a in arrays), initial=0))
        packed = np.empty(ends[-1], np.uint8)
        for array, start in zip(arrays, ends, strict=False):
            packed[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        there = self.xp.asarray(packed).data  # by way of pinned memory, which CuPy keeps until the copy is done
        return [self.xp.ndarray(a.shape, a.dtype, there + start) for a, start in zip(arrays, ends, strict=False)]

    def synchronize(self) -> None:
        """Wait until everything that was started on the device is done."""
        if self.is_device:
            self.xp.cuda.get_current_stream().synchronize()


_loaded: dict[str, Backend] = {}
_by_array_type: dict[type, Backend] = {}
_default = "numpy"
_used: ContextVar[Backend | None] = ContextVar("used", default=None)


def names() -> tuple[str, ...]:
    """Return the names that :func:`get` knows, without "auto"."""
    return tuple(_PACKAGES)


def get(name: str = "auto") -> Backend:
    """Load a backend by name; "auto" is "cupy" where a GPU answers, else "numpy".

    Raises:
        ValueError: unknown name.
        BackendUnavailable: no package, no driver or no device.
    """
    if name == "auto":
        try:
            return get("cupy")
        except BackendUnavailable:
            return get("numpy")
    if name not in _PACKAGES:
        raise ValueError(f"backend: expected auto, {', '.join(_PACKAGES)}; received {name!r}")
    if name not in _loaded:
        xp = package(name).require_device() if name == "cupy" else np
        _loaded[name] = Backend(name, xp, package(name).Kernels)
    return _loaded[name]


def package(name: str) -> Any:
    """Return the package behind a backend, for what it has beside kernels: threads, the machine of plans, memory."""
    return importlib.import_module(_PACKAGES[name])


def default() -> Backend:
    """Return the backend on which new tensors are made."""
    return _used.get() or get(_default)


def set_default(name: str) -> Backend:
    """Make new tensors on this backend from now on, and use its kernels for its arrays, in the whole process."""
    global _default
    chosen = get(name)
    _default = chosen.name
    _by_array_type[chosen.xp.ndarray] = chosen
    return chosen


@contextmanager
def use(name: str) -> Iterator[Backend]:
    """Make ``name`` the default inside a ``with`` block, in this context alone: other threads keep theirs."""
    token = _used.set(get(name))
    try:
        yield default()
    finally:
        _used.reset(token)


def of(array: Any) -> Backend:
    """Return the backend that works on ``array``, or the recorder's, where a run is recorded in this context."""
    recorder = current.get()
    if recorder is not None:
        return recorder.backend
    kind, used = type(array), _used.get()
    if used is not None and kind is used.xp.ndarray:
        return used
    if kind not in _by_array_type:
        if isinstance(array, Recorded):
            array.refuse("an operation outside")
        _by_array_type[kind] = get("numpy" if isinstance(array, np.ndarray | np.generic) else "cupy")
    return _by_array_type[kind]


def get_num_threads() -> int:
    """Return how many CPU threads the kernels use."""
    return package("numpy").get_num_threads()


def set_num_threads(count: int) -> None:
    """Use ``count`` CPU threads from now on; ValueError for more than there are processors. No result depends on it."""
    package("numpy").set_num_threads(count)


def to_numpy(array: Any) -> np.ndarray:
    """Return an array of any backend as a NumPy array, without a copy where it is one."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.get() if hasattr(array, "get") else array)
