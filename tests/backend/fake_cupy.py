"""CuPy as far as minicnn uses it, on the CPU: a module to stand in sys.modules["cupy"] during a test.

Arrays are strict, as CuPy's are: they mix with NumPy arrays nowhere, and have only functions, methods and attributes
that CuPy 14 has. ``RawModule`` compiles CUDA C with g++ over cuda_on_cpu.h, and checks every launch: element types,
sizes of scalars, contiguity, and that nothing is written beside an array. Undefined memory is full of NaN.
"""

import ctypes
import functools
import re
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
WORDS = re.compile(r"\w+")
FUNCTIONS = WORDS.findall(
    """abs arange ascontiguousarray broadcast_to clip concatenate exp expm1 floor full isfinite isnan log maximum
    minimum ones ones_like pad sqrt tanh where zeros zeros_like"""
)
CONSTANTS = WORDS.findall("float32 float64 inf int32 int64 newaxis uint16 uint64 uint8")
METHODS = WORDS.findall("all argmax argmin astype copy fill max mean min ravel reshape sum transpose")
ATTRIBUTES = WORDS.findall("T dtype flags ndim shape size strides")
OPERATORS = WORDS.findall(
    """add sub mul truediv floordiv mod pow matmul and or xor lshift rshift iadd isub imul itruediv lt le gt ge eq ne
    radd rsub rmul rtruediv rpow rmatmul rand ror rxor rlshift rrshift neg abs invert getitem"""
)
descending = False  # the order of a kernel's threads


class ndarray:
    """A NumPy array that nobody mistakes for one."""

    __slots__ = ("_array",)
    __module__ = "cupy"
    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, array):
        self._array = array

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __setitem__(self, index, value):
        self._array[_inner(index)] = _inner(value)

    def __len__(self):
        return len(self._array)

    def __int__(self):
        return int(self._array)

    def __float__(self):
        return float(self._array)

    def __bool__(self):
        return bool(self._array)

    @property
    def base(self):
        return None if self._array.base is None else ndarray(self._array.base)

    def get(self):
        return self._array.copy()

    def item(self):
        return self._array.item()

    def argsort(self):
        return _outer(self._array.argsort(kind="stable"))


def _inner(value):
    """Arrays of this module in a nest of arguments as NumPy arrays; TypeError for those of NumPy itself."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(_inner(v) for v in value)
    return value


def _outer(value):
    return ndarray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def strict(function):
    """A function of NumPy arrays as one of the arrays here."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        inner = {name: _inner(value) for name, value in kwargs.items()}
        return _outer(function(*_inner(args), **inner))

    return call


for _name in METHODS:
    setattr(ndarray, _name, strict(getattr(np.ndarray, _name)))
for _name in ATTRIBUTES:
    setattr(ndarray, _name, property(lambda self, name=_name: _outer(getattr(self._array, name))))


def _operator(name):
    method = getattr(np.ndarray, f"__{name}__")

    def call(self, *others):
        result = method(self._array, *_inner(others))
        return self if result is self._array else _outer(result)

    return call


for _name in OPERATORS:
    setattr(ndarray, f"__{_name}__", _operator(_name))


def __getattr__(name):
    if name in FUNCTIONS:
        return strict(getattr(np, name))
    if name in CONSTANTS:
        return getattr(np, name)
    raise AttributeError(f"module 'cupy' (as known to the tests) has no attribute {name!r}")


add = SimpleNamespace(at=lambda a, index, value: np.add.at(_inner(a), _inner(index), _inner(value)))
_windows = strict(np.lib.stride_tricks.sliding_window_view)
lib = SimpleNamespace(stride_tricks=SimpleNamespace(sliding_window_view=_windows))


def asarray(a, dtype=None):
    return (
        ndarray(np.array(a, dtype=dtype)) if not isinstance(a, ndarray) else _outer(np.asarray(a._array, dtype=dtype))
    )


def empty(shape, dtype=float):
    array = np.empty(shape, dtype)
    array.fill(np.nan if array.dtype.kind == "f" else 99)
    return ndarray(array)


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime.CUDARuntimeError."""


cuda = SimpleNamespace(
    runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: 1),
    nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
    cublas=SimpleNamespace(),
    get_current_stream=lambda: SimpleNamespace(synchronize=lambda: None),
)


@functools.cache
def _library(code):
    """The kernels of ``code`` for the CPU."""
    names = re.findall(r"^KERNEL (\w+)", code, re.MULTILINE)
    exports = "".join(f"EXPORT({name})\n" for name in names)
    with tempfile.TemporaryDirectory() as folder:
        unit, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        unit.write_text(code + exports, encoding="utf-8")
        options = ["-std=c++20", "-O1", "-w", "-ffp-contract=off", "-shared", "-fPIC"]
        subprocess.run(["g++", *options, "-include", str(HEADER), str(unit), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


class RawModule:
    """Kernels from CUDA C."""

    def __init__(self, *, code, options):
        self._library = _library(code)

    def get_function(self, name):
        types, run = getattr(self._library, f"types_{name}"), getattr(self._library, f"run_{name}")
        types.restype, run.restype = ctypes.c_char_p, ctypes.c_bool
        return functools.partial(_launch, name, types().decode().split(), run)


def _launch(name, types, run, grid, block, arguments):
    assert len(grid) == len(block) == 1 and 0 < grid[0] < 2**31 and block[0] <= 1024
    assert len(arguments) == len(types), f"{name} takes {len(types)} arguments, received {len(arguments)}"
    pointers, copies = (ctypes.c_void_p * len(types))(), []
    for i, (argument, expected) in enumerate(zip(arguments, types, strict=True)):
        if isinstance(argument, ndarray):
            array = argument._array
            assert array.flags.c_contiguous and expected == "P" + array.dtype.str[1:], (
                f"{name}: argument {i} {expected}"
            )
            guarded = np.full(array.nbytes + 512, 0xA5, np.uint8)
            guarded[256:-256] = np.frombuffer(array.tobytes(), np.uint8)
            copies.append((array, guarded))
            value = np.uint64(guarded.ctypes.data + 256)
        else:
            null = expected[0] == "P" and argument == 0
            assert argument.dtype.str[1:] == ("u8" if null else expected), f"{name}: argument {i} is no {expected}"
            value = argument
        copies.append((None, np.array(value)))
        pointers[i] = copies[-1][1].ctypes.data
    finished = run(ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), pointers, ctypes.c_bool(descending))
    assert finished, f"{name}: a barrier that some threads never reach"
    for array, copy in copies:
        if array is not None:
            assert (copy[:256] == 0xA5).all() and (copy[-256:] == 0xA5).all(), f"{name} writes beside an array"
            if array.flags.writeable:
                array[...] = copy[256:-256].view(array.dtype).reshape(array.shape)
            else:
                assert copy[256:-256].tobytes() == array.tobytes(), f"{name} writes to a read-only array"
