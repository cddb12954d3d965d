"""Matrix products in fixed pieces, so that their bits do not depend on the number of threads.

Here BLAS runs with one thread, and what is worth dividing is cut by size alone.
"""

from functools import cache

import numba
import numpy as np

from minicnn.backend.cpu.blas import one_thread
from minicnn.backend.cpu.jit import contiguous, jit

_SMALL = 1 << 18  # multiply-adds below which OpenBLAS, which the packages of NumPy bring, takes no second thread
_WORTH = 1 << 21  # multiply-adds from which one pays
_ROWS = 64


def matmul(a, b):
    """See :func:`minicnn.backend.reference.arithmetic.matmul`."""
    work = a.size * b.shape[-1] if a.shape[:-2] == b.shape[:-2] else a.size * b.size
    if a.dtype.kind != "f" or work < _SMALL:
        return a @ b
    if work < _WORTH or a.shape[:-2] != b.shape[:-2]:
        with one_thread:
            return a @ b
    _load_scipy()
    y = np.empty((*a.shape[:-1], b.shape[-1]), dtype=a.dtype)
    a, b, out = (contiguous(m).reshape(-1, *m.shape[-2:]) for m in (a, b, y))
    with one_thread:
        _products(a, b, out)
    return y


@cache
def _load_scipy():
    """The BLAS that Numba calls is SciPy's, 20 MiB that most plans do without; it must be there to be limited."""
    import scipy.linalg.cython_blas  # noqa: F401

    one_thread.look_again()


@jit(parallel=True)
def _products(a, b, y):
    stack, rows = a.shape[:2]
    pieces = (rows + _ROWS - 1) // _ROWS
    for task in numba.prange(stack * pieces):
        i, first = task // pieces, task % pieces * _ROWS
        last = min(first + _ROWS, rows)
        np.dot(a[i, first:last], b[i], y[i, first:last])
