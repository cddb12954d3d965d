"""How the CPU kernels are compiled: cached on disk, with a word to the user while it takes seconds."""

import ctypes
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import event

LANES = 8
"""Images in a block of the batch-interleaved layout: one 256-bit vector of float32."""


class _Announce(event.Listener):
    """Says on stderr, once, that kernels compile; a kernel loaded from the cache makes no event."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said:
            self.said = True
            print(
                "minicnn: compiling CPU kernels, once on this machine (some seconds) ...", file=sys.stderr, flush=True
            )

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


SOURCES = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(Path(__file__).parent.glob("*.py")))
"""What compiled code depends on: a function has others inlined that stand in other files."""


def jit(**options: Any) -> Callable[[Callable], Any]:
    """Compile without the GIL and cache the code on disk; where no folder can be written, warn and do without.

    options: of :func:`numba.njit`.
    """
    return lambda function: _cached(numba.njit(nogil=True, error_model="numpy", **options)(function))


def helper(function: Callable) -> Any:
    """Compile for calls from other compiled code alone: the code for calls from Python takes as long to compile."""
    return jit(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def _cached(compiled: Any) -> Any:
    try:
        compiled.enable_caching()
        compiled._cache._cache_file._source_stamp = SOURCES  # Numba would look at the function's own file alone
    except RuntimeError as error:  # Numba found no folder for its cache
        warn_of_no_cache(error)
    return compiled


def warn_of_no_cache(error: Exception) -> None:
    """Say that compiled code is not kept."""
    warnings.warn(
        f"kernels are compiled anew in every process: {error}; name a folder in NUMBA_CACHE_DIR", stacklevel=4
    )


def plain(array: np.ndarray) -> np.ndarray:
    """``array`` as C-contiguous and writable: Numba compiles every other layout anew."""
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else array.copy()


def set_num_threads(count: int) -> None:
    """Use ``count`` threads from now on, at most as many as there are processors."""
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= count <= most:
        raise ValueError(f"set_num_threads: expected 1 to {most}, received {count}")
    numba.set_num_threads(count)


def get_num_threads() -> int:
    """Return the number of threads in use."""
    return numba.get_num_threads()


def _keep_memory() -> None:
    """Let malloc (of glibc) reuse the memory of large arrays; fresh from the system, it costs a page fault per 4 KB."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, the latter at its largest
        mallopt(trim, 1 << 30)
        mallopt(mmap, 1 << 25)


event.register("numba:compile", _Announce())
_keep_memory()
