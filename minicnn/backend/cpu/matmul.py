"""Matrix products in fixed pieces, so that their bits do not depend on the number of threads.

A BLAS that divides one product among its threads may round differently with another number of them. Here BLAS runs with
one thread, and what is worth dividing is cut by size alone.
"""

from functools import cache

import numba
import numpy as np
import threadpoolctl

from minicnn.backend.cpu.jit import jit, plain

_WORTH = 1 << 21  # multiply-adds from which a second thread pays
_ROWS = 64

threadpoolctl.threadpool_limits(limits=1, user_api="blas")


def matmul(a, b):
    """See :func:`minicnn.backend.reference.matmul`."""
    if a.dtype.kind != "f" or a.size * b.shape[-1] < _WORTH or a.shape[:-2] != b.shape[:-2]:
        return a @ b
    _limit_threads_of_scipy()
    y = np.empty((*a.shape[:-1], b.shape[-1]), dtype=a.dtype)
    a, b, out = (plain(m).reshape(-1, *m.shape[-2:]) for m in (a, b, y))
    _products(a, b, out)
    return y


@cache
def _limit_threads_of_scipy():
    """The BLAS that Numba calls is SciPy's, 20 MiB that most plans do without; it must be there to be limited."""
    import scipy.linalg.cython_blas  # noqa: F401

    threadpoolctl.threadpool_limits(limits=1, user_api="blas")


@jit(parallel=True)
def _products(a, b, y):
    stack, rows = a.shape[:2]
    pieces = (rows + _ROWS - 1) // _ROWS
    for task in numba.prange(stack * pieces):
        i, first = task // pieces, task % pieces * _ROWS
        last = min(first + _ROWS, rows)
        np.dot(a[i, first:last], b[i], y[i, first:last])
