"""Launching the kernels of this folder: NVRTC compiles them at their first use, and CuPy keeps the result on disk.

What is computed element by element is a line for CuPy's ElementwiseKernel; everything else is CUDA C, in ``.cu`` files.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.backend import BackendUnavailable
from minicnn.backend.cuda.lines import IN_PLACE, LINES, functions

_import_error: Exception | None = None
try:
    import cupy
except Exception as error:  # a broken installation fails in any way
    cupy, _import_error = None, error

BLOCK = 256  # threads
_WIDE = 1 << 30  # elements from which indices have 64 bits
# No fused multiply-add but where a kernel asks for it: most wait for memory anyway. So +, -, *, / and sqrt round as
# NumPy's do, but for float32 numbers below 2^-126: CuPy gives NVRTC -ftz=true, last and so for good, and operations and
# comparisons take such numbers for 0, and return 0 instead. Exponentials, logarithms and their like are CUDA's own.
_ROUNDING = "--fmad=false"
_INSTALL = 'pip install -e ".[cuda13]" (".[cuda12]" for a driver of CUDA 12)'


def require_device() -> Any:
    """Return CuPy, if it can run kernels here.

    Raises:
        BackendUnavailable: no package, no driver or an old one, no device, or no CUDA libraries; with the remedy.
    """
    if cupy is None:
        missing = isinstance(_import_error, ModuleNotFoundError) and _import_error.name == "cupy"
        raise _unavailable("CuPy is not installed" if missing else f"CuPy does not import: {_one_line(_import_error)}")
    try:
        runtime = cupy.cuda.runtime
        failure = runtime.CUDARuntimeError
    except AttributeError as error:  # a folder of that name, or the rest of an installation
        raise _unavailable(f"CuPy does not import: {_one_line(error)}") from None
    try:
        if not runtime.getDeviceCount():
            raise _unavailable("CuPy found no CUDA device", "check nvidia-smi and CUDA_VISIBLE_DEVICES")
    except failure as error:
        if "NoDevice" in str(error):
            raise _unavailable("CuPy found no CUDA device", "check nvidia-smi and CUDA_VISIBLE_DEVICES") from None
        versions = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        driver, needed = (f"{version // 1000}.{version % 1000 // 10}" for version in versions)
        if driver == "0.0":
            raise _unavailable("CuPy found no NVIDIA driver", f"install one for CUDA {needed} or newer") from None
        cause = f"the driver is for CUDA {driver}, CuPy for {needed}: {_one_line(error)}"
        raise _unavailable(cause, f"update the driver, or {_INSTALL}") from None
    try:
        cupy.cuda.nvrtc.getVersion()
        _ = cupy.cuda.cublas  # loaded at its first use
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise _unavailable(f"CuPy lacks a library of CUDA: {_one_line(error)}") from None
    return cupy


def device_memory() -> tuple[int, int]:
    """Return the bytes of the device that are in use, by whomever, and all that it has."""
    free, total = cupy.cuda.runtime.memGetInfo()
    return total - free, total


def require_precision(name: str) -> None:
    """Raise RuntimeError where the GPU has no tensor cores for a precision of :class:`minicnn.precision`."""
    if name != "float32":
        require_tensor_cores()


@functools.cache
def require_tensor_cores() -> None:
    """Raise RuntimeError where the GPU has none for bfloat16 and TF32."""
    capability = cupy.cuda.Device().compute_capability
    if int(capability) < 80:
        found = f"{capability[:-1]}.{capability[-1]}"
        raise RuntimeError(
            f"bf16 and tf32: expected a GPU of compute capability 8.0 or newer, this one has {found}; "
            "train and predict in float32"
        )


def source(kind: Any, index: Any) -> str:
    """Return a compilation unit.

    kind: np.float32 or np.float64, all kernels for such elements but those of tensor cores; np.uint16 or np.uint32,
    these for the bits of bfloat16 or TF32. index: np.int32 or np.int64, the type of indices.
    """
    is_packed = kind in (np.uint16, np.uint32)
    files = sorted(Path(__file__).parent.glob("*.cu*"), key=lambda path: (path.suffix != ".cuh", path.name))
    files = [path for path in files if path.suffix == ".cuh" or (path.stem == "tensor") == is_packed]
    head = f"typedef {'double' if kind is np.float64 else 'float'} real;\n"
    head += f"typedef {'int' if index is np.int32 else 'long long'} index_t;\n#define BLOCK {BLOCK}\n"
    head += f"typedef unsigned {'short' if kind is np.uint16 else 'int'} element;\n"
    return head + functions() + "\n".join(path.read_text(encoding="utf-8") for path in files)


def launch(name: str, kind: Any, threads: int, *arguments: Any) -> None:
    """Run kernel ``name``, compiled for elements of a dtype ``kind`` (see :func:`source`), on at least so many threads.

    Arguments: arrays, of which those that are not C-contiguous are copied (so none that the kernel writes), None for a
    null pointer, numbers (int and bool become index_t, floats real), and np.uint64 and NumPy arrays of one element as
    they are, by value.
    """
    if not threads:
        return
    wide = any(isinstance(a, cupy.ndarray) and a.size >= _WIDE for a in arguments)
    kind, index = np.dtype(kind).type, np.int64 if wide else np.int32
    real = np.float64 if kind is np.float64 else np.float32

    def convert(a: Any) -> Any:
        if isinstance(a, cupy.ndarray):
            return cupy.ascontiguousarray(a)
        if a is None:
            return np.uint64(0)
        if isinstance(a, np.uint64 | np.ndarray):
            return a
        return real(a) if isinstance(a, float | np.floating) else index(a)

    _function(name, kind, index)(((threads + BLOCK - 1) // BLOCK,), (BLOCK,), tuple(convert(a) for a in arguments))


def elementwise(name: str, inputs: str, outputs: str, operation: str, *arguments: Any, **size: int) -> Any:
    """Run CuPy's ElementwiseKernel of these parameters and this operation, named ``name`` for profilers.

    Inputs are broadcast; outputs that are not among the arguments are made, in C order, and returned.
    """
    return _elementwise(name, inputs, outputs, operation)(*arguments, **size)


def apply(name: str, *operands: Any) -> Any:
    """Run the elementwise kernel of the line ``name`` of :mod:`minicnn.backend.cuda.lines`."""
    parameters, line = LINES[name]
    return elementwise(name, ", ".join(f"T {p}" for p in parameters.split()), "T out", line, *operands)


def apply_in_place(name: str, *operands: Any) -> None:
    """Run the elementwise kernel of a line that edits its last operands."""
    elementwise(name, *IN_PLACE[name], *operands)


def channel_sums(
    name: str, shape: tuple[int, int, int], *operands: Any, finish: str = "channel_totals", extra=()
) -> Any:
    """Return two sums a channel, (C,) and (C,), over the values of arrays of ``shape`` (N, C, P).

    Kernel ``name`` leaves sums of slices of each channel, ``finish`` makes the results of them.
    """
    c, like = shape[1], operands[0]
    partials, slices = channel_slices(name, shape, *operands)
    first, second = empty((c,), like), empty((c,), like)
    launch(finish, like.dtype, c, partials, first, second, c, slices, *extra)
    return first, second


def channel_slices(name: str, shape: tuple[int, int, int], *operands: Any) -> tuple[Any, int]:
    """Return the sums of slices of each channel that kernel ``name`` makes, float64 (C, slices, 2), and ``slices``.

    Their number depends on the shape alone, and so do the bits of what is made of them.
    """
    n, c, p = shape
    slices = min(64, n * p // (16 * BLOCK) + 1)
    partials = cupy.empty((c, slices, 2), dtype=np.float64)
    launch(name, operands[0].dtype, c * slices * BLOCK, *operands, partials, n, c, p, slices)
    return partials, slices


@contextmanager
def contiguous(*written: Any) -> Iterator[list[Any]]:
    """Yield arrays that a kernel is to write as those that :func:`launch` takes; what is a copy is copied back."""
    given = [a if a is None or a.flags.c_contiguous else a.copy(order="C") for a in written]
    yield given
    for a, copy in zip(written, given, strict=True):
        if copy is not a:
            a[...] = copy


def empty(shape: tuple[int, ...], like: Any) -> Any:
    """Return an array of undefined elements in the dtype of ``like``."""
    return cupy.empty(shape, dtype=like.dtype)


def compiled(name: str, real: Any) -> Any:
    """Return kernel ``name`` for elements of type ``real`` as CuPy's, which knows what it takes of the device."""
    return _function(name, real, np.int32)


@functools.cache
def _module(kind: Any, index: Any) -> Any:
    return cupy.RawModule(code=source(kind, index), options=("--std=c++17", _ROUNDING))


@functools.cache
def _function(name: str, kind: Any, index: Any) -> Any:
    return _module(kind, index).get_function(name)


@functools.cache
def _elementwise(name: str, inputs: str, outputs: str, operation: str) -> Any:
    # not the bare name, which may be that of a function of C
    return cupy.ElementwiseKernel(inputs, outputs, operation, f"minicnn_{name}", options=(_ROUNDING,))


def _unavailable(cause: str, remedy: str = _INSTALL) -> BackendUnavailable:
    return BackendUnavailable(f"cupy: {cause}; {remedy}, or use --backend numpy")


def _one_line(error: Exception | None) -> str:
    """The first line of a message that says something: CuPy frames its own in rules."""
    return next((line.strip() for line in str(error).splitlines() if line.strip("= ")), type(error).__name__)
