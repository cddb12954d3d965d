"""compile: record a training step or a prediction once, fuse it, lay it out, replay it.

Rooms, in this order: :mod:`~minicnn.compile.record` writes down the kernels that a run calls as a
:mod:`~minicnn.compile.program`, by its :mod:`~minicnn.compile.rules` :mod:`~minicnn.compile.lower` makes block
instructions of them and fuses these, :mod:`~minicnn.compile.layout` orders them and gives everything a place,
:mod:`~minicnn.compile.encode` writes them as a machine program, a :mod:`~minicnn.compile.plan`, which a
:mod:`~minicnn.compile.run` replays in a memory. The instructions themselves are :mod:`minicnn.backend.cpu.machine`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, RLock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minicnn.autograd import is_grad_enabled
from minicnn.compile.plan import Plan
from minicnn.compile.record import record
from minicnn.compile.run import Run
from minicnn.nn import Module
from minicnn.nn.module import evaluating
from minicnn.recording import current
from minicnn.tensor import Tensor

_KEPT = 128  # plans: one for each combination of input shapes


class compile:
    """A function that does what another does, recorded at its first call and replayed from then on.

    ``function`` takes tensors (or arrays) and returns a tensor or several; it may train: forward, backward, optimizer
    step. A :class:`~minicnn.nn.Module` is recorded in evaluation mode without a tape. Plans are for NumPy arrays; on
    CuPy arrays, on empty ones, and on inputs that require a gradient, the function is called as it is.

    **What a replay reads anew**: the numbers in parameters, buffers and other tensors; options and steps of
    optimizers; random streams; the labels' range.

    **What is noticed, and recorded anew**: other shapes or dtypes; a tensor whose array was replaced or whose
    ``requires_grad`` changed; another attribute, part, hook or mode of a module that was called or read; whether there
    is a tape.

    **What is as it was at the first call**: every other value in Python, as a branch, a global, an element of a list,
    an array that the function makes by NumPy (``Tensor(np.zeros(3))``). Pass as an input what changes between calls.

    **What raises**: reading a value into Python (``item``, ``numpy``, a copy), NumPy on the data of a tensor, an index
    by booleans, a draw from the generator of initial weights, an option of an optimizer that is set inside, an edit of
    an input or of such an array of NumPy, a gradient that was computed outside, a momentum of SGD that becomes 0 or no
    longer is.

    **Gradients** left in ``.grad`` are there after the call as in eager mode, but those that a step inside used up:
    they stay in the plan, with what is added to them later, and raise if they are used before zero_grad. So does
    ``backward`` from a result.

    **Threads**: any number may call at once. Their results are those of calls alone; a function that edits what others
    see, as a training step does, is replayed by one at a time.

    Results are those of the function up to rounding. An infinite or NaN pixel may come out of a convolution by 3 x 3 or
    by 5 columns as a few more NaN, because Winograd's method takes 2 x 2 or 4 outputs together.

    Raises:
        RuntimeError: at the first call, for what is said above.
        TypeError: inputs or results that are not tensors.

    Attributes:
        plans: the plans made so far, the last used last; ``print`` one to see its program.
    """

    def __init__(self, function: Callable[..., Any] | Module) -> None:
        self.function = function
        self.plans: OrderedDict[Any, Plan] = OrderedDict()
        self._planning = RLock()
        self._memories = _Memories()

    def __call__(self, *inputs: Any) -> Any:
        arrays = [x._data if isinstance(x, Tensor) else x for x in inputs]
        if not arrays or not all(hasattr(a, "dtype") for a in arrays):
            raise TypeError("compile: expected one tensor or array, or several, and nothing else")
        taped = is_grad_enabled()
        if (
            not isinstance(arrays[0], np.ndarray)
            or current.get() is not None  # inside another one's recorded run
            or not all(a.size for a in arrays)
            or (taped and any(isinstance(x, Tensor) and x.requires_grad for x in inputs) and not self._is_module)
        ):
            return self._recordable()(*(x if isinstance(x, Tensor) else Tensor(x) for x in inputs))
        plan = self._plan((taped, *((a.shape, a.dtype) for a in arrays)), arrays)
        if plan.edits(arrays):
            return self._recordable()(*(x if isinstance(x, Tensor) else Tensor(x) for x in inputs))
        with self._memories.run(plan) as run:
            return plan.replay(run, arrays)

    def __reduce__(self) -> Any:
        """Answer copy and pickle: the function, whose plans are made anew."""
        return compile, (self.function,)

    @property
    def _is_module(self) -> bool:
        return isinstance(self.function, Module)

    def _plan(self, key: Any, arrays: list[Any]) -> Plan:
        """Return the plan for inputs of this kind, made where there is none that holds."""
        with self._planning:
            plan = self.plans.get(key)
            if plan is None or not plan.holds():
                plan = self.plans[key] = Plan(record(self._recordable(), arrays))
                if len(self.plans) > _KEPT:
                    self.plans.popitem(last=False)
            self.plans.move_to_end(key)
            return plan

    def _recordable(self) -> Callable[..., Any]:
        if not isinstance(self.function, Module):
            return self.function
        model = self.function

        def forward(*inputs: Tensor) -> Any:
            with evaluating():
                return model(*inputs)

        return forward


_AT_ONCE = 2


class _Memory:
    """Room for one replay at a time of any plan of a function, as large as the largest that came so far."""

    def __init__(self) -> None:
        self._array = np.zeros(0, dtype=np.float32)
        self._runs: WeakKeyDictionary[Plan, Run] = WeakKeyDictionary()
        self._last: Run | None = None

    def run(self, plan: Plan) -> Run:
        """Return what replays a plan here."""
        if plan.length > self._array.size:
            self._runs.clear()
            self._last = None
            array = np.zeros(plan.length + 16, dtype=np.float32)
            self._array = array[-array.ctypes.data % 64 // 4 :]
        run = self._runs.get(plan)
        if run is None:
            run = self._runs[plan] = plan.bind(self._array[: plan.length])
        if run is not self._last:
            run.clean()
            self._last = run
        return run


class _Memories:
    """The memories of a function: calls wait for one where all are in use, for all where they edit what others see."""

    def __init__(self) -> None:
        self._free: list[_Memory] = []
        self._busy = 0
        self._alone = False
        self._changed = Condition()

    @contextmanager
    def run(self, plan: Plan) -> Iterator[Run]:
        """Lend what replays ``plan``."""
        alone = bool(plan.program.written)
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and self._busy < (1 if alone else _AT_ONCE))
            self._busy += 1
            self._alone = alone
            memory = self._free.pop() if self._free else _Memory()
        try:
            yield memory.run(plan)
        finally:
            with self._changed:
                self._free.append(memory)
                self._busy -= 1
                self._alone = False
                self._changed.notify_all()
