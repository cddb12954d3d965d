"""Arithmetic in CUDA where it saves launches; getitem's gradient without atomics, so that its bits never change."""

from minicnn.backend.cuda.launch import cupy, elementwise

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


def lerp_into(target, value, weight):
    operation = "target += weight * (value - target)"
    elementwise("lerp_into", "T value, T weight", "T target", operation, value, weight, target)


def all_finite(a):
    flag = cupy.zeros(1, dtype="int32")
    elementwise("find_not_finite", "T a", "raw int32 flag", "if (!isfinite(a)) flag[0] = 1", a, flag)
    return not int(flag[0])


def bfloat16(a):
    return elementwise("bfloat16", "T a", "T y", _BFLOAT16, a)


def getitem_grad(gy, index, shape):
    ga = cupy.zeros(shape, dtype=gy.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(part is None or part is Ellipsis or isinstance(part, slice) or type(part) is int for part in parts):
        ga[index] = gy  # a view: no element twice
        return ga
    places = cupy.arange(ga.size).reshape(shape)[index].ravel()
    order = places.argsort()  # stable: repeated places keep their order
    inputs = "raw T gy, raw int64 order, raw int64 places"
    elementwise("add_runs", inputs, "raw T ga", _ADD_RUNS, gy, order, places[order], ga, size=order.size)
    return ga
