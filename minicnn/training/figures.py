"""What steps say of themselves: noted where their arrays are, and read many steps at a time."""

import time
from dataclasses import dataclass
from typing import NamedTuple

from minicnn.backend import Backend, to_numpy
from minicnn.recording import per_replay
from minicnn.tensor import Tensor, kernels_of

_MOST = 50  # steps: what the host may be ahead of a device, and a stop has to wait for
_SECONDS = 0.1  # between two readings: a bar moves, and a signal is heard


@dataclass
class Epoch:
    """How many batches of the epoch under way are done, the sums over their images, and the time they took."""

    batch: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0


class Step(NamedTuple):
    """A batch of an epoch, both from 0, and how many images it has."""

    epoch: int
    batch: int
    images: int


class Figures:
    """The loss of each step, the norm of its gradient where that is clipped, and how many images it had right.

    On a device, Python reads those of as many steps at once as a tenth of a second holds, up to 50, as it has to wait
    for them. On the CPU, and of eager steps, it reads those of each.

    Attributes:
        most: how many steps may be noted before they are read.
    """

    def __init__(self, backend: Backend, eager: bool = False) -> None:
        self.most = _MOST if backend.is_device and not eager else 1
        self._rows = backend.xp.zeros((self.most, 3), "float64")
        self._steps: list[Step] = []
        self._enough, self._since = 1.0, time.perf_counter()

    def note(self, loss: Tensor, norm: Tensor | None, logits: Tensor, labels: Tensor) -> None:
        """Note those of the step under way. It may be part of a compiled function.

        loss, norm: of one element; logits: (N, K); labels: int64 (N,), or probabilities (N, K).
        """
        place = per_replay(lambda: len(self._steps))
        arrays = loss._operand, None if norm is None else norm._operand, logits._operand, labels._operand
        kernels_of(logits).note_step(self._rows, place, *arrays)

    def took(self, step: Step) -> None:
        """Count the step whose figures were noted last."""
        self._steps.append(step)

    def forget(self) -> None:
        """Drop what was noted and not read."""
        self._steps = []

    @property
    def due(self) -> bool:
        """Whether it is time to read."""
        return len(self._steps) >= self._enough

    def read(self) -> list[tuple[Step, float, float, int]]:
        """Return step, loss, norm (0 if it is not clipped) and number of right images of all steps since the last time.

        Waits for a device until they are done.
        """
        if not self._steps:
            return []
        rows, now = to_numpy(self._rows[: len(self._steps)]).tolist(), time.perf_counter()
        steps, self._steps = self._steps, []
        self._enough = min(self.most, len(steps) * _SECONDS / (now - self._since))
        self._since = now
        return [(step, loss, norm, int(right)) for step, (loss, norm, right) in zip(steps, rows, strict=True)]
