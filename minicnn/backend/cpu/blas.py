"""One thread for the BLAS libraries while our own products run, and what was set before for everybody else's.

A BLAS that divides one product among its threads may round differently with another number of them.
"""

import os
from contextlib import ContextDecorator
from threading import Condition, Lock
from typing import Any

import threadpoolctl


class _OneThread(ContextDecorator):
    """A ``with`` block, or a decorator, for any number of threads at once: the last one out restores what was set.

    A fork waits until all are out: OpenBLAS ends its threads before one and starts them anew at the next call, and when
    both happen at once, its fork may never return. A thread must not enter twice.
    """

    def __init__(self) -> None:
        self._door = Lock()
        self._lock = Condition()
        self._libraries: list[Any] | None = None
        self._inside = 0
        self._before: list[int | None] = []

    def __enter__(self) -> None:
        with self._door, self._lock:
            if self._libraries is None:
                self._libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            self._inside += 1
            for library in self._libraries[len(self._before) :]:
                self._before.append(library.get_num_threads())
                if self._before[-1] not in (None, 1):
                    _set(library, 1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore()
                self._lock.notify_all()

    def look_again(self) -> None:
        """Another library was loaded."""
        with self._lock:
            known = self._libraries or []
            paths = {library.filepath for library in known}
            found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            self._libraries = known + [library for library in found if library.filepath not in paths]

    def close(self) -> None:
        """Let nobody in, and wait until all are out."""
        self._door.acquire()
        with self._lock:
            self._lock.wait_for(lambda: not self._inside)

    def open(self) -> None:
        """Let threads in again."""
        self._door.release()

    def _restore(self) -> None:
        for library, count in zip(self._libraries or [], self._before, strict=False):
            if count not in (None, 1) and library.get_num_threads() == 1:  # else somebody has set it meanwhile
                _set(library, count)
        self._before = []


def _set(library: Any, count: int) -> None:
    """Set it from any thread: threadpoolctl lets the first thread that does so keep all others out."""
    getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=one_thread.close, after_in_parent=one_thread.open, after_in_child=one_thread.open)
