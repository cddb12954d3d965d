"""CuPy as far as minicnn uses it, on the CPU: a module to stand in sys.modules["cupy"] during a test.

Arrays are strict, as CuPy's are: they mix with NumPy arrays nowhere, and have only functions, methods and attributes
that CuPy 14 has. ``RawModule`` and ``ElementwiseKernel`` compile CUDA C with g++ and check every launch: element types,
sizes of scalars, contiguity, and that nothing is written beside an array. Undefined memory is full of NaN. ``order``
says which block, warp, thread or element comes first.
"""

import ctypes
import functools
import math
import re
import subprocess
import tempfile
import weakref
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
WORDS = re.compile(r"\w+")
FUNCTIONS = WORDS.findall(
    """abs arange ascontiguousarray broadcast_to clip concatenate exp expm1 floor full isfinite isnan log maximum
    may_share_memory minimum ones ones_like pad sqrt tanh where zeros zeros_like"""
)
CONSTANTS = WORDS.findall("float32 float64 inf int32 int64 newaxis uint16 uint32 uint64 uint8")
METHODS = WORDS.findall("all argmax argmin astype copy fill max mean min ravel reshape sum transpose view")
ATTRIBUTES = WORDS.findall("T dtype flags ndim shape size strides")
OPERATORS = WORDS.findall(
    """add sub mul truediv floordiv mod pow matmul and or xor lshift rshift iadd isub imul itruediv lt le gt ge eq ne
    radd rsub rmul rtruediv rpow rmatmul rand ror rxor rlshift rrshift neg abs invert"""
)
OWNERS = weakref.WeakValueDictionary()  # by the identity of a NumPy array with views, what stands for it
order = 0  # of what may come in any: 0 ascending, -1 descending, other numbers are seeds of a random one


class ndarray:
    """A NumPy array that nobody mistakes for one."""

    __slots__ = ("__weakref__", "_array", "_base")
    __module__ = "cupy"
    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, array):
        self._array = array
        if array.base is None:
            OWNERS.setdefault(id(array), self)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __setitem__(self, index, value):
        with _taken_modulo(index):
            self._array[_inner(index)] = _inner(value)

    def __getitem__(self, index):
        with _taken_modulo(index):
            return _outer(self._array[_inner(index)])

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
        """The same object for all views of an array, as long as there is one of them."""
        owner = self._array.base
        if owner is None:
            return None
        base = OWNERS.get(id(owner))
        self._base = ndarray(owner) if base is None else base  # kept, and with it the entry
        return self._base

    @property
    def data(self):
        """Where the elements are: kernels take addresses in tables, too."""
        return SimpleNamespace(ptr=self._array.ctypes.data)

    def get(self):
        return self._array.copy()

    def item(self):
        return self._array.item()

    def argsort(self):
        return _outer(self._array.argsort(kind="stable"))


@contextmanager
def _taken_modulo(index):
    """CuPy looks at none of the integers in an array of an index: what NumPy refuses is taken modulo the length."""
    parts = index if isinstance(index, tuple) else (index,)
    try:
        yield
    except IndexError as error:
        if "out of bounds" not in str(error) or not any(isinstance(part, ndarray | list) for part in parts):
            raise
        raise AssertionError(f"CuPy returns an element of somewhere else: {error}") from error


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
    using_allocator=lambda allocator: nullcontext(),
    Device=lambda: SimpleNamespace(compute_capability="90", id=0),
    get_current_stream=lambda: SimpleNamespace(synchronize=lambda: None, ptr=0),
)


@functools.cache
def _library(code, *options):
    """The functions of ``code`` for the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        unit, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        unit.write_text(code, encoding="utf-8")
        options += ("-std=c++20", "-O1", "-U_FORTIFY_SOURCE", "-w", "-ffp-contract=off", "-shared", "-fPIC")
        subprocess.run(["g++", *options, str(unit), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


class RawModule:
    """Kernels from CUDA C."""

    def __init__(self, *, code, options):
        names = re.findall(r"^KERNEL (\w+)", code, re.MULTILINE)
        # names of the file alone: variables of inline functions would have sections of their own
        unit = f"namespace {{\n{code}\n}}\n" + "".join(f"EXPORT({name})\n" for name in names)
        self._library = _library(unit, "-include", str(HEADER))

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
    finished = run(ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), pointers, ctypes.c_int(order))
    assert finished, f"{name}: a barrier that some threads never reach"
    for array, copy in copies:
        if array is not None:
            assert (copy[:256] == 0xA5).all() and (copy[-256:] == 0xA5).all(), f"{name} writes beside an array"
            if array.flags.writeable:
                array[...] = copy[256:-256].view(array.dtype).reshape(array.shape)
            else:
                assert copy[256:-256].tobytes() == array.tobytes(), f"{name} writes to a read-only array"


class ElementwiseKernel:
    """An operation in a loop over the elements of its arguments, which are broadcast but for raw ones."""

    def __init__(self, in_params, out_params, operation, name, *, options):
        assert name not in dir(math), f"{name} is a function of C too"
        self._inputs, self._outputs = ([param.split() for param in p.split(", ")] for p in (in_params, out_params))
        self._operation, self._name = operation, name

    def __call__(self, *args, size=None):
        params = self._inputs + self._outputs
        values = [_inner(a) for a in args]
        given = list(zip(params, values, strict=False))
        reals = [v.dtype for p, v in given if p[-2] == "T" and isinstance(v, np.ndarray)]
        assert len(set(reals)) < 2, f"{self._name}: T is {reals}"
        types = [reals[0] if p[-2] == "T" else np.dtype(p[-2]) for p in params]
        shape = np.broadcast_shapes(*(np.shape(v) for p, v in given if p[0] != "raw")) if size is None else (size,)
        values += [np.full(shape, np.nan, dtype) for dtype in types[len(values) :]]
        buffers, pointers = [], (ctypes.c_void_p * len(params))()
        for k, (param, value, dtype) in enumerate(zip(params, values, types, strict=True)):
            assert not isinstance(value, np.ndarray | np.generic) or value.dtype == dtype, f"{self._name}: {param}"
            whole = np.asarray(value, dtype) if param[0] == "raw" else np.broadcast_to(np.asarray(value, dtype), shape)
            buffers.append(np.frombuffer(b"\xa5" * 256 + whole.tobytes() + b"\xa5" * 256, np.uint8).copy())
            pointers[k] = buffers[-1].ctypes.data + 256
        count = int(np.prod(shape))
        places = np.random.default_rng(order).permutation(count) if order > 0 else np.arange(count)[:: order or 1]
        places = np.array(places, np.int64)
        _library(self._source(types)).run(ctypes.c_longlong(count), pointers, ctypes.c_void_p(places.ctypes.data))
        for param, value, dtype, buffer in zip(params, values, types, buffers, strict=True):
            assert (buffer[:256] == 0xA5).all() and (buffer[-256:] == 0xA5).all(), f"{self._name} writes beside {param}"
            if param in self._outputs:
                value[...] = buffer[256:-256].view(dtype).reshape(value.shape)
        results = [_outer(value) for value in values[len(self._inputs) :]]
        return results[0] if len(results) == 1 else tuple(results)

    def _source(self, types):
        names = {"float32": "float", "float64": "double", "int64": "long long", "uint64": "unsigned long long"}
        arguments = ""
        for k, (param, dtype) in enumerate(zip(self._inputs + self._outputs, types, strict=True)):
            kind = ("" if param in self._outputs else "const ") + names.get(dtype.name, dtype.name)
            raw = param[0] == "raw"
            arguments += f"{kind}{'*' if raw else '&'} {param[-1]} = (({kind}*)p[{k}]){'' if raw else '[i]'};\n"
        reals = [t.name for p, t in zip(self._inputs + self._outputs, types, strict=True) if p[-2] == "T"]
        return f"""
            #include <math.h>
            #include <stddef.h>
            #include <stdint.h>
            typedef {names[reals[0]] if reals else "float"} T;
            typedef int32_t int32;
            typedef uint16_t uint16;
            typedef uint32_t uint32;
            inline unsigned __float_as_uint(float x) {{ unsigned y; __builtin_memcpy(&y, &x, 4); return y; }}
            inline float __uint_as_float(unsigned x) {{ float y; __builtin_memcpy(&y, &x, 4); return y; }}
            struct Indexer {{ ptrdiff_t count; ptrdiff_t size() const {{ return count; }} }};
            extern "C" void run(long long count, void** p, const long long* places) {{
                Indexer _ind = {{count}};
                for (ptrdiff_t k = 0; k < count; k++) {{
                    ptrdiff_t i = places[k];
                    {arguments}
                    {self._operation};
                }}
            }}
        """
