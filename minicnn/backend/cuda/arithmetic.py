"""Arithmetic in CUDA where it saves launches; getitem's gradient without atomics, so that its bits never change."""

from minicnn.backend.cuda.launch import cupy, launch
from minicnn.backend.reference import arithmetic as reference


def lerp_into(target, value, weight):
    if not target.flags.c_contiguous:
        return reference.lerp_into(target, value, weight)
    return launch("lerp_into", target.dtype, target.size, target, value, float(weight), target.size)


def all_finite(a):
    flag = cupy.zeros(1, dtype="int32")
    launch("find_not_finite", a.dtype, a.size, a, flag, a.size)
    return not int(flag[0])


def getitem_grad(gy, index, shape):
    ga = cupy.zeros(shape, dtype=gy.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(part is None or part is Ellipsis or isinstance(part, slice) or type(part) is int for part in parts):
        ga[index] = gy  # a view: no element twice
        return ga
    places = cupy.arange(ga.size).reshape(shape)[index].ravel()
    order = places.argsort()  # stable: repeated places keep their order
    launch("add_runs", gy.dtype, order.size, gy, order, places[order], ga, order.size)
    return ga
