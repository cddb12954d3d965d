"""What a function tells a recorder beyond the kernels that it calls (see :mod:`minicnn.compile`).

A plan repeats the kernel calls of one run. A Python number that changes from run to run (a learning rate, the key of a
mask) is wrapped by :func:`live`; what Python must do again (count a step, check labels) goes through :func:`again`.
Without a recorder both just do it.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol


class Listener(Protocol):
    """What a recorder offers."""

    def live(self, read: Callable[[], Any]) -> Any:
        """Return a stand-in for ``read()`` that a recorded call may take as an argument."""

    def again(self, action: Callable[[], None], undo: Callable[[], None] | None) -> None:
        """Note an action for every replay, and how the recorded run is undone."""

    def inspect(self, array: Any, action: Callable[[Any], None]) -> None:
        """Note an action on an array for this place in every replay."""


listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def live(read: Callable[[], Any]) -> Any:
    """Return ``read()``, read anew by every replay."""
    recorder = listener.get()
    return read() if recorder is None else recorder.live(read)


def again(action: Callable[[], None], undo: Callable[[], None] | None = None) -> None:
    """Call ``action``, now and in every replay before its kernels. ``undo`` takes back what it changed, if anything."""
    action()
    recorder = listener.get()
    if recorder is not None:
        recorder.again(action, undo)


def inspect(array: Any, action: Callable[[Any], None]) -> None:
    """Call ``action(array)`` here, and here in every replay; it may raise, and what comes after is then not done.

    A run that is recorded has no numbers to look at; its first replay has.
    """
    recorder = listener.get()
    if recorder is None:
        action(array)
    else:
        recorder.inspect(array, action)


def check_readable(operation: str) -> None:
    """Raise RuntimeError while a recorder listens: what goes past the kernels would be frozen in the plan."""
    if listener.get() is not None:
        raise RuntimeError(
            f"compile: {operation} goes past the kernels, so that a plan could not repeat it; return the tensor instead"
        )
