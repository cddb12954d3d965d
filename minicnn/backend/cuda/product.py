"""Products of matrices in CUDA, of which convolutions are made too, in one launch; see product.cuh.

cuBLAS may not be called while a CUDA graph is recorded, and a convolution as a product for it needs a copy of every
window.
"""

import functools
import math
import threading
from typing import Any, NamedTuple

import numpy as np

from minicnn.backend.cuda.launch import BLOCK, cupy, empty, launch
from minicnn.backend.reference import arithmetic as reference

_FEW_ROWS, _SUMS = 16, 16 * BLOCK  # as in product.cuh: rows up to which a tile is wide, and sums of a tile
_BLOCKS = 264
"""Blocks below which a product is cut into slices: two for each multiprocessor of an H100."""
_SHORTEST = 128
"""Steps of a slice, at least."""
_PER_THREAD = 2
"""The number of all streams that are the default of their thread, cudaStreamPerThread."""
_KERNELS = {
    (False, False): "product_of_lines_and_steps",
    (False, True): "product_of_lines_and_lines",
    (True, False): "product_of_steps_and_steps",
    (True, True): "product_of_steps_and_lines",
}
"""By whether a matrix lies row by row, of both factors: what lies side by side, lines of the product or its steps."""


class Epilogue(NamedTuple):
    """What becomes of the sums before they are written: + ``bias`` of their row, relu, 0 where ``gate`` is not over 0.

    gate: an array as the result, or None; bias: (rows of all groups), or None.
    """

    bias: Any = None
    gate: Any = None
    relu: bool = False


PLAIN = Epilogue()


def products(name, sources, y, size, groups, group, row, columns=None, epilogue=PLAIN, kind=None, tile=None):
    """Launch the products of kernel ``name``: ``size`` (rows, columns, depth) in each of ``groups``, into y.

    group, row: how far groups and rows of y are apart. columns: (inner, outer, apart, used), column j lies at
    j // inner * outer + j % inner * apart, unless j % inner is ``used`` or more; None where columns lie side by side.
    kind, tile: the unit of the kernel and (rows, columns) of its tiles, None for those of product.cuh.
    """
    rows, wide, depth = size
    high, across = tile or ((64, _SUMS // 64) if rows > _FEW_ROWS else (_FEW_ROWS, _SUMS // _FEW_ROWS))
    tiles = groups * math.ceil(rows / high) * math.ceil(wide / across)
    slices = max(1, min(_BLOCKS // max(tiles, 1), depth // _SHORTEST))
    partials = empty((slices, groups, rows, wide), y) if slices > 1 else None
    sums = *size, groups, slices, partials, _counters(*_stream()) if slices > 1 else None
    place = group, row, *(columns or (max(wide, 1), 0, 1, max(wide, 1)))
    launch(name, kind or y.dtype, slices * tiles * BLOCK, *sources, y, *epilogue, *sums, *place)
    return y


def _stream():
    """What tells streams apart: those that threads have by default share a number."""
    stream = cupy.cuda.get_current_stream().ptr
    return cupy.cuda.Device().id, stream, threading.get_ident() if stream == _PER_THREAD else 0


@functools.cache
def _counters(*stream):
    """Zeros for the launches of a stream, which follow each other; see product.cuh. They are of no pool of a plan."""
    with cupy.cuda.using_allocator(None):
        return cupy.zeros(_BLOCKS, dtype="uint32")


def matmul(a, b):
    if a.dtype.kind != "f":
        return reference.matmul(a, b)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = *lead, a.shape[-2], b.shape[-1]
    if b.ndim == 2 and a.flags.c_contiguous:
        lead, a = (), a.reshape(math.prod(a.shape[:-1]), a.shape[-1])  # one product for all
    groups = math.prod(lead)
    a, b = (_in_groups(array, lead) for array in (a, b))
    y = empty((groups, a.shape[1], shape[-1]), a)
    return matrix_products(a, b, y, groups, y.size // max(groups, 1), shape[-1]).reshape(shape)


def matrix_products(a, b, y, groups, group, row, columns=None, epilogue=PLAIN):
    """Write a @ b of each group into y, see :func:`products`. a: (G, M, K) or (1, M, K) for all; b: so, (., K, N)."""
    (m, k), n = a.shape[1:], b.shape[2]
    a, a_along, *a_apart = _apart(a)
    b, b_along, *b_apart = _apart(b)
    a_group, b_group = m * k if len(a) == groups else 0, k * n if len(b) == groups else 0
    sources = a, b, a_group, *a_apart, b_group, *b_apart[::-1]
    return products(_KERNELS[a_along, b_along], sources, y, (m, n, k), groups, group, row, columns, epilogue)


def _in_groups(a, lead):
    """(..., M, K) as (G, M, K), where G is that of the axes ``lead``, or 1 for a matrix that is the same in all."""
    if math.prod(a.shape[:-2]) == 1:
        return a.reshape(1, *a.shape[-2:])
    return cupy.broadcast_to(a, (*lead, *a.shape[-2:])).reshape(math.prod(lead), *a.shape[-2:])


def _apart(a):
    """(G, I, J) in C order, of this or of its transpose; whether it is this; and how far rows and columns are apart."""
    turned = a.transpose(0, 2, 1)
    if turned.flags.c_contiguous and not a.flags.c_contiguous:
        return turned, False, 1, a.shape[1]
    return a, True, a.shape[2], 1
