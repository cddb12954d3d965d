"""compile: record a training step or a prediction once, fuse it, lay it out, replay it.

Rooms, in this order: :mod:`~minicnn.compile.record` writes down the kernels that a run calls, by its
:mod:`~minicnn.compile.rules` :mod:`~minicnn.compile.lower` makes block instructions of them and fuses these,
:mod:`~minicnn.compile.layout` orders them and gives everything a place, :mod:`~minicnn.compile.encode` writes them as a
program, :mod:`~minicnn.compile.plan` replays it. The instructions themselves are
:mod:`minicnn.backend.cpu.machine`.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from minicnn.compile.plan import Plan
from minicnn.compile.record import record
from minicnn.nn import Module
from minicnn.nn.module import evaluating
from minicnn.recording import listener
from minicnn.tensor import Tensor

_KEPT = 8  # plans: one for each combination of input shapes


class compile:
    """A function that does what another does, recorded at its first call and replayed from then on.

    ``function`` takes tensors (or arrays) and returns a tensor or several; it may train: forward, backward, optimizer
    step. Parameters, statistics, learning rate and random streams are read anew by every replay, everything else in
    Python (a branch, the mode of a module, which array a parameter has) is as it was when the shapes of its inputs were
    first seen; an array that the function makes by NumPy (``Tensor(np.zeros(3))``) is made once, and what a replay
    writes into it, the next one finds. A :class:`~minicnn.nn.Module` is recorded in evaluation mode without a tape.
    Gradients live inside the plan. Plans are for NumPy arrays; on CuPy arrays the function is called as it is.

    Results are those of the function up to rounding. An infinite or NaN pixel may come out of a convolution by 3 x 3 or
    by 5 columns as a few more NaN, because Winograd's method takes 2 x 2 or 4 outputs together.

    Raises:
        RuntimeError: at the first call, if the function reads a value into Python (``item``, ``numpy``).
        TypeError: inputs or results that are not tensors.

    Attributes:
        plans: the plans made so far, the last used last; ``print`` one to see its program.
    """

    def __init__(self, function: Callable[..., Any] | Module) -> None:
        self.function = function
        self.plans: OrderedDict[Any, Plan] = OrderedDict()

    def __call__(self, *inputs: Any) -> Any:
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        if not arrays or not all(hasattr(a, "dtype") for a in arrays):
            raise TypeError("compile: expected one tensor or array, or several, and nothing else")
        if not isinstance(arrays[0], np.ndarray) or listener.get() is not None:  # inside another one's recorded run
            return self._recordable()(*(x if isinstance(x, Tensor) else Tensor(x) for x in inputs))
        key = tuple((a.shape, a.dtype) for a in arrays)
        if key not in self.plans:
            self.plans[key] = Plan(record(self._recordable(), [a.copy() for a in arrays]))
            if len(self.plans) > _KEPT:
                self.plans.popitem(last=False)
        self.plans.move_to_end(key)
        return self.plans[key](*arrays)

    def _recordable(self) -> Callable[..., Any]:
        if not isinstance(self.function, Module):
            return self.function
        model = self.function

        def forward(*inputs: Tensor) -> Any:
            with evaluating(model):
                return model(*inputs)

        return forward
