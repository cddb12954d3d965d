"""Arithmetic in CUDA where it saves launches; getitem's gradient without atomics, so that its bits never change.

CuPy takes integers in arrays of an index modulo the length of their axis; here those out of range raise IndexError, as
in NumPy. It writes to places while it reads the values for them; here what is written is read first.
"""

import numpy as np

from minicnn.backend.cuda import tensor
from minicnn.backend.cuda.launch import apply, apply_in_place, cupy, elementwise
from minicnn.backend.cuda.live import live
from minicnn.backend.kernel import is_float
from minicnn.backend.reference import arithmetic as reference

# The first of a run of equal places adds the run up.
_ADD_RUNS = """
    if (i == 0 || places[i - 1] != places[i]) {
        T sum = 0;
        for (ptrdiff_t j = i; j < _ind.size() && places[j] == places[i]; j++) sum += gy[order[j]];
        ga[places[i]] = sum;
    }
"""
_BFLOAT16 = """
    unsigned bits = __float_as_uint(float(a));
    bits = (bits + (0x7FFFu + (bits >> 16 & 1u))) & 0xFFFF0000u;
    y = a == a ? T(__uint_as_float(bits)) : a;
"""
_TF32 = """
    unsigned bits = (__float_as_uint(float(a)) + 0x1000u) & 0xFFFFE000u;
    y = a == a ? T(__uint_as_float(bits)) : a;
"""


def exp(a):
    return apply("exp", a) if is_float(a) else reference.exp(a)


def log(a):
    return apply("log", a) if is_float(a) else reference.log(a)


def power(a, exponent):
    # CuPy has kernels of its own for some whole exponents.
    return apply("power", a, exponent) if is_float(a) and isinstance(exponent, float) else reference.power(a, exponent)


@live(lambda target, value, weight: (weight,))
def lerp_into(numbers, target, value, weight):
    apply_in_place("lerp_into", value, *numbers, target)


def all_finite(a):
    flag = cupy.zeros(1, dtype="int32")
    elementwise("find_not_finite", "T a", "raw int32 flag", "if (!isfinite(a)) flag[0] = 1", a, flag)
    return not int(flag[0])


def bfloat16(a):
    if a.dtype == np.float32 and a.ndim > 1:
        return tensor.packed(a, np.uint16)
    return elementwise("bfloat16", "T a", "T y", _BFLOAT16, a)


def tf32(a):
    if a.dtype == np.float32 and a.ndim > 1:
        return tensor.packed(a, np.uint32)
    return elementwise("tf32", "T a", "T y", _TF32, a)


def getitem(a, index):
    _check_places(a.shape, index)
    return a[index]


def setitem(target, index, value):
    _check_places(target.shape, index)
    if _has_places(index) and isinstance(value, cupy.ndarray) and cupy.may_share_memory(target, value):
        value = value.copy()
    target[index] = value


def getitem_grad(gy, index, shape):
    ga = cupy.zeros(shape, dtype=gy.dtype)
    if not _has_places(index):
        ga[index] = gy  # a view: no element twice
        return ga
    places = cupy.arange(ga.size).reshape(shape)[index].ravel()
    order = places.argsort()  # stable: repeated places keep their order
    inputs = "raw T gy, raw int64 order, raw int64 places"
    elementwise("add_runs", inputs, "raw T ga", _ADD_RUNS, gy, order, places[order], ga, size=order.size)
    return ga


def _has_places(index):
    return any(map(_is_places, index if isinstance(index, tuple) else (index,)))


def _is_places(part):
    """Whether a part of an index is an array, or becomes one; the others are None, ``...``, slices and integers."""
    return part is not None and part is not Ellipsis and not isinstance(part, slice) and type(part) is not int


def _check_places(shape, index):
    """Raise IndexError for arrays of other than booleans and integers, and for integers that are out of range.

    The host has to wait for those on the device.
    """
    parts = index if isinstance(index, tuple) else (index,)
    arrays = [(part if hasattr(part, "dtype") else _array(part)) if _is_places(part) else None for part in parts]
    # an array of booleans stands for as many axes as it has, None for none, and ``...`` for those that are left
    axes = [
        0 if part is None or part is Ellipsis else a.ndim if a is not None and a.dtype.kind == "b" else 1
        for part, a in zip(parts, arrays, strict=True)
    ]
    axis = 0
    for part, a, count in zip(parts, arrays, axes, strict=True):
        if a is not None and a.size and a.dtype.kind not in "iub":
            raise IndexError(f"arrays used as indices must be of integer or boolean type, received {a.dtype}")
        if a is not None and a.size and a.dtype.kind != "b" and sum(axes) <= len(shape):
            for place in (int(a.min()), int(a.max())):
                if not -shape[axis] <= place < shape[axis]:
                    raise IndexError(f"index {place} is out of bounds for axis {axis} with size {shape[axis]}")
        axis += len(shape) - sum(axes) if part is Ellipsis else count


def _array(part):
    """An array of a list, of numbers or of arrays on the device."""
    try:
        return np.asarray(part)
    except TypeError:
        return cupy.asarray(part)
