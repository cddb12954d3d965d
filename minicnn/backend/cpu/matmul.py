"""Matrix products in fixed pieces, so that their bits do not depend on the number of threads.

A BLAS that divides one product among its threads may round differently with another number of them. Here BLAS runs with
one thread, and what is worth dividing is cut by size alone; NumPy lets go of the interpreter while it multiplies.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import threadpoolctl

from minicnn.backend.cpu.jit import get_num_threads

_WORTH = 1 << 24  # multiply-adds from which a second thread pays
_PIECES = 4

threadpoolctl.threadpool_limits(limits=1, user_api="blas")
_pool = ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, "minicnn-matmul")


def matmul(a, b):
    """See :func:`minicnn.backend.reference.matmul`."""
    if a.dtype.kind != "f" or a.size * b.shape[-1] < _WORTH or a.shape[:-2] != b.shape[:-2]:
        return a @ b
    y = np.empty((*a.shape[:-1], b.shape[-1]), dtype=a.dtype)
    stacked = a.ndim > 2
    length = -(-len(a) // _PIECES)

    def multiply(first):
        last = first + length
        np.matmul(a[first:last], b[first:last] if stacked else b, out=y[first:last])

    pieces = range(0, len(a), length)
    list((_pool.map if get_num_threads() > 1 else map)(multiply, pieces))
    return y
