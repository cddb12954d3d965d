"""Random numbers that are the same on every backend: drawn by NumPy on the host, or computed from a key.

Initial weights come from NumPy's PCG64. A dropout mask is a pure function of a 64-bit key (see the kernel ``dropout``);
the keys are counted from the seed. Checkpoints hold the positions of both streams.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import numpy as np

from minicnn.recording import check_readable

_MASK = (1 << 64) - 1


class Generator:
    """A stream of host numbers and a stream of mask keys, both determined by ``seed``; threads may share it.

    A compiled function would keep the host numbers of its first call, so that a draw in one raises RuntimeError.

    Example:
        >>> random.Generator(3).uniform(0, 1, (2, 2)).shape
        (2, 2)
        >>> random.Generator(3).key() == random.Generator(3).key()
        True
    """

    def __init__(self, seed: int = 0) -> None:
        self._lock = Lock()
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start both streams anew from an integer from 0."""
        if seed < 0:
            raise ValueError(f"seed: expected an integer from 0, received {seed}")
        self.host = np.random.Generator(np.random.PCG64(seed))
        self._first_key = int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0])
        self._keys = 0

    def key(self) -> int:
        """Return the next mask key, an int in [0, 2^64): far from its neighbours, so that streams do not overlap."""
        with self._lock:
            self._keys += 1
            return (self._first_key + self._keys * 0xD1342543DE82EF95) & _MASK

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        """Return float64 numbers in [low, high)."""
        check_readable("a draw of random numbers")
        return self.host.uniform(low, high, shape)

    def normal(self, mean: float, std: float, shape: tuple[int, ...]) -> np.ndarray:
        """Return normally distributed float64 numbers."""
        check_readable("a draw of random numbers")
        return self.host.normal(mean, std, shape)

    def get_state(self) -> dict[str, Any]:
        """Return both streams' positions, ready for JSON."""
        return {"host": self.host.bit_generator.state, "first_key": self._first_key, "keys": self._keys}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to the positions that :meth:`get_state` returned."""
        self.host.bit_generator.state = state["host"]
        self._first_key, self._keys = state["first_key"], state["keys"]


default_generator = Generator()
_used: ContextVar[Generator | None] = ContextVar("used", default=None)


def generator() -> Generator:
    """Return the generator of initial weights and dropout masks: that of :func:`use` in this context, or the default.

    Example:
        >>> random.generator() is random.default_generator
        True
    """
    return _used.get() or default_generator


@contextmanager
def use(chosen: Generator) -> Iterator[Generator]:
    """Draw from ``chosen`` inside a ``with`` block, in this context alone: other threads, and the default, keep theirs.

    Example:
        >>> with random.use(random.Generator(3)):
        ...     first = nn.Linear(2, 2).weight.tolist()
        >>> with random.use(random.Generator(3)):
        ...     nn.Linear(2, 2).weight.tolist() == first
        True
    """
    token = _used.set(chosen)
    try:
        yield chosen
    finally:
        _used.reset(token)


def manual_seed(seed: int) -> None:
    """Seed the generator of initial weights and dropout masks.

    Example:
        >>> minicnn.manual_seed(0)
        >>> first = nn.Linear(2, 2).weight.numpy()
        >>> minicnn.manual_seed(0)
        >>> bool((nn.Linear(2, 2).weight.numpy() == first).all())
        True
    """
    generator().seed(seed)


def get_state() -> dict[str, Any]:
    """Return the state of that generator, ready for JSON.

    Example:
        >>> state = random.get_state()
        >>> key = random.generator().key()
        >>> random.set_state(state)
        >>> random.generator().key() == key
        True
    """
    return generator().get_state()


def set_state(state: dict[str, Any]) -> None:
    """Restore a state that :func:`get_state` returned; see there."""
    generator().set_state(state)
