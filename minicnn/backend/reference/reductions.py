"""Sums and extremes along axes.

Array libraries add float32 pairwise along the innermost axis alone, and one by one along the others, where the error
grows with their length. Sums over more than _FEW elements of those are made in blocks of _BLOCK, and the sums of the
blocks are added in float64 (Higham, 1993).
"""

import math

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import kernel
from minicnn.shapes import reduced_shape

_FEW = 128
_BLOCK = 16


def _reduced(a, axis, keepdims):
    """The shape of ``a`` without the axes ``axis``, or with 1 there."""
    return reduced_shape(a.shape, axis) if keepdims else tuple(n for i, n in enumerate(a.shape) if i not in axis)


@kernel(_reduced)
def sum(a, axis, keepdims):
    """Sum over ``axis``, a tuple of axes; float32 in blocks, so that a mean of many is exact to 1e-6."""
    if a.size <= _FEW:
        return a.sum(axis=axis, keepdims=keepdims)
    outer = _not_innermost(a, axis)
    if a.dtype != "float32" or math.prod(a.shape[i] for i in outer) <= _FEW:
        return a.sum(axis=axis, keepdims=keepdims)
    blocks = a
    for i in outer:
        blocks = _sums_of_blocks(blocks, i)
    return blocks.sum(axis=axis, keepdims=keepdims, dtype="float64").astype(a.dtype)


@kernel(lambda a, shape: shape, view=True)
def sum_to(a, shape):
    """Sum over the axes that broadcasting added or stretched: the adjoint of ``broadcast_to``."""
    if a.shape == tuple(shape):
        return a
    added = a.ndim - len(shape)
    stretched = tuple(i for i in range(added, a.ndim) if shape[i - added] == 1 and a.shape[i] != 1)
    return sum(a, (*range(added), *stretched), True).reshape(shape)


@kernel(_reduced)
def max(a, axis, keepdims):
    """Maximum over ``axis``, a tuple of axes; NaN where there is one."""
    return a.max(axis=axis, keepdims=keepdims)


@kernel(_reduced)
def min(a, axis, keepdims):
    """Minimum over ``axis``, a tuple of axes; NaN where there is one."""
    return a.min(axis=axis, keepdims=keepdims)


@kernel(lambda gy, a, y: a.shape)
def extreme_grad(gy, a, y):
    """Gradient of ``max`` and ``min``: shared evenly by the elements equal to y; gy, y: reduced axes kept."""
    hit = (a == y) | (a != a)  # a NaN among the elements is their maximum
    axes = tuple(i for i in range(a.ndim) if y.shape[i] != a.shape[i])
    return namespace(a).where(hit, gy / hit.sum(axis=axes, keepdims=True).astype(a.dtype), a.dtype.type(0))


@kernel(lambda a, axis: _reduced(a, (axis,), False), "int64")
def argmax(a, axis):
    """Index of the first maximum along ``axis``; a NaN is one."""
    return a.argmax(axis=axis)


@kernel(lambda a, axis: _reduced(a, (axis,), False), "int64")
def argmin(a, axis):
    """Index of the first minimum along ``axis``; a NaN is one."""
    return a.argmin(axis=axis)


@kernel(lambda values, indices, axis, length: (*values.shape[:axis], length, *values.shape[axis + 1 :]))
def put_along_axis(values, indices, axis, length):
    """Zeros but for ``values`` at ``indices`` along ``axis`` of ``length``; both arguments have 1 there."""
    xp = namespace(values)
    places = xp.arange(length).reshape(length, *(1,) * (values.ndim - axis - 1))
    return xp.where(places == indices, values, values.dtype.type(0))


def _not_innermost(a, axis):
    """Those of the reduced axes along which elements are not neighbours in memory; length 1 does not count."""
    axes = [i for i in range(a.ndim) if a.shape[i] > 1]
    while a.flags.c_contiguous and axes and axes[-1] in axis:
        axes.pop()
    return [i for i in axes if i in axis]


def _sums_of_blocks(a, axis):
    """Sums of _BLOCK neighbours along an axis, which stays, with as many elements as there are blocks."""
    before, length = (slice(None),) * axis, a.shape[axis]
    whole = length // _BLOCK * _BLOCK
    shape = (*a.shape[:axis], whole // _BLOCK, _BLOCK, *a.shape[axis + 1 :])
    sums = a[(*before, slice(whole))].reshape(shape).sum(axis=axis + 1)
    if whole == length:
        return sums
    rest = a[(*before, slice(whole, None))].sum(axis=axis, keepdims=True)
    return namespace(a).concatenate([sums, rest], axis=axis)
