"""compile: record a training step or a prediction once, fuse it, lay it out, replay it.

:mod:`~minicnn.compile.record` writes down the kernels that a run calls as a :mod:`~minicnn.compile.program`. Then
:mod:`~minicnn.compile.passes` calls one pass after the other: :mod:`~minicnn.compile.lower` turns calls into nodes by
the :mod:`~minicnn.compile.rules`, or, for predictions of few images, by those of :mod:`~minicnn.compile.channels`;
:mod:`~minicnn.compile.fuse` joins them, :mod:`~minicnn.compile.constants` takes out what weights alone decide,
:mod:`~minicnn.compile.schedule` puts the others into phases, :mod:`~minicnn.compile.allocate` gives everything a place,
:mod:`~minicnn.compile.encode` (with :mod:`~minicnn.compile.planes`) writes the programs of the machine, and the result
is a :mod:`~minicnn.compile.plan`. A :mod:`~minicnn.compile.run` replays it in a :mod:`~minicnn.compile.memory`, with
what Python does for a node by :mod:`~minicnn.compile.binding`. The instructions themselves are in
:mod:`minicnn.backend.cpu`.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from minicnn.autograd import is_grad_enabled
from minicnn.compile.constants import Store
from minicnn.compile.memory import Memories
from minicnn.compile.passes import compiled
from minicnn.compile.plan import Plan
from minicnn.compile.profile import Profile as Profile
from minicnn.compile.record import record
from minicnn.nn import Module
from minicnn.nn.module import evaluating, is_evaluating
from minicnn.precision import check_precision, get_precision
from minicnn.precision import precision as within
from minicnn.recording import current
from minicnn.tensor import Tensor

_KEPT = 128  # plans: one for each combination of shapes and dtypes of inputs, with and without a tape


class compile:
    """A function that does what another does, recorded at its first call and replayed from then on.

    ``function`` takes tensors (or arrays) and returns a tensor or several; it may train: forward, backward, optimizer
    step. A :class:`~minicnn.nn.Module` is recorded in evaluation mode without a tape. On empty arrays, and on inputs
    that require a gradient, the function is called as it is. On CuPy arrays a plan is a CUDA graph
    (:mod:`~minicnn.compile.device`) of kernels that are joined where they can be (:mod:`~minicnn.compile.device_fuse`).

    **What a replay reads anew**: the numbers in parameters, buffers and other tensors; options and steps of
    optimizers; random streams; the labels' range.

    **What is kept**: weights that the function does not edit are folded with batch norm, transformed and packed once,
    and again after an edit: by an operation in place, an optimizer, ``load_state_dict``, or by anybody who has the
    array. Where an array was given to a tensor, or taken out of it (``data``, ``numpy()``) and is still held, edits
    cannot be seen, and every replay does that work.

    **What is noticed, and recorded anew**: other shapes or dtypes; a tensor whose array was replaced or whose
    ``requires_grad`` changed; another attribute, part, hook or mode of a module that was called or read; whether there
    is a tape.

    **What is as it was at the first call**: every other value in Python, such as a branch, a global, an element of a
    list, an array that the function makes by NumPy (``Tensor(np.zeros(3))``). Pass as an input what changes between
    calls.

    **What raises**: reading a value into Python (``item``, ``numpy``, a copy), NumPy on the data of a tensor, an index
    by booleans, a draw from the generator of initial weights, an option of an optimizer that is set inside, an edit of
    an input or of such an array of NumPy, a gradient that was computed outside, a momentum of SGD that becomes 0 or no
    longer is.

    **Gradients** left in ``.grad`` are there after the call as in eager mode, except those that a step inside used up:
    they stay in the plan, with what is added to them later, and raise if they are used before zero_grad. So does
    ``backward`` from a result.

    **Precision**: that of :class:`minicnn.precision`; ``precision`` or, where it is None, that of the caller.

    **Threads**: any number may call at once. Their results are those of calls alone; a function that edits what others
    see, as a training step does, is replayed by one at a time. Who edits or loads weights in one thread while another
    computes with them gets a mixture there, as in eager mode and in PyTorch.

    Results are those of the function up to rounding. An infinite or NaN pixel may come out of a convolution by 3 x 3 or
    by 5 columns as a few more NaN, because Winograd's method takes up to 4 x 4 outputs together.

    Args:
        function: what to record.
        precision: "float32", "bf16" or None.

    Raises:
        ValueError: another precision.
        RuntimeError: at the first call, for what is said above.
        TypeError: inputs or results that are not tensors.

    Example:
        >>> double = minicnn.compile(lambda x: x + x)
        >>> double(tensor([1.0, 2.0]))
        tensor([2., 4.], dtype=float32)

    Attributes:
        plans: the plans made so far, the last used last; ``print`` one to see its program.
    """

    def __init__(self, function: Callable[..., Any] | Module, *, precision: str | None = None) -> None:
        if precision is not None:
            check_precision("compile", precision)
        self.function, self.precision = function, precision
        self.plans: OrderedDict[Any, Plan] = OrderedDict()
        self._is_module = isinstance(function, Module)
        self._latest: Plan | None = None
        self._planning = Lock()
        self._editing = Lock()  # held by the one replay that edits what others see
        self._memories = Memories()
        self._store = Store()

    def __call__(self, *inputs: Any) -> Any:
        """Return what the function does: by a plan, where there may be one."""
        if self.precision is None or self.precision == get_precision():
            return self._called(inputs)
        with within(self.precision):
            return self._called(inputs)

    def _called(self, inputs: Sequence[Any]) -> Any:
        arrays = [x._data if isinstance(x, Tensor) else x for x in inputs]
        taped = is_grad_enabled()
        try:
            key = (taped, is_evaluating(), get_precision(), *[(a.shape, a.dtype) for a in arrays])
        except AttributeError:
            raise TypeError("compile: expected one tensor or array, or several, and nothing else") from None
        if current.get() is not None or not self._may_have_plan(inputs, arrays, taped):
            return self._as_it_is(inputs)
        plan = self.plans.get(key)
        if plan is None or plan is not self._latest or not plan.holds():  # another than the latest moves to the end
            plan = self._plan(key, arrays)
        if not plan.edits:
            return self._replay(plan, arrays)
        if plan.edits_one_of(arrays):
            return self._as_it_is(inputs)
        with self._editing:
            return self._replay(plan, arrays)

    def __reduce__(self) -> Any:
        """Answer copy and pickle: the function, whose plans are made anew."""
        return partial(compile, precision=self.precision), (self.function,)

    def _as_it_is(self, inputs: Sequence[Any]) -> Any:
        """Call the function itself."""
        return self._recordable()(*(x if isinstance(x, Tensor) else Tensor(x) for x in inputs))

    def _replay(self, plan: Plan, arrays: list[Any]) -> Any:
        memory = self._memories.take()
        try:
            return plan.replay(memory.run_of(plan), arrays)
        finally:
            self._memories.give_back(memory)

    def _may_have_plan(self, inputs: Sequence[Any], arrays: list[Any], taped: bool) -> bool:
        """Whether there may be a plan: for arrays that are not empty and, but for a module, want no gradient."""
        kind = type(arrays[0]) if arrays and hasattr(arrays[0], "__cuda_array_interface__") else np.ndarray
        for array in arrays:
            if not isinstance(array, kind) or not array.size:
                return False
        if not arrays:
            raise TypeError("compile: expected one tensor or array, or several, received nothing")
        return self._is_module or not (taped and any(isinstance(x, Tensor) and x.requires_grad for x in inputs))

    def _plan(self, key: Any, arrays: list[Any]) -> Plan:
        """Return the plan for inputs of this kind, made where there is none that holds."""
        with self._planning:
            plan = self.plans.get(key)
            if plan is None or not plan.holds():
                plan = self.plans[key] = compiled(record(self._recordable(), arrays), self._store)
                if len(self.plans) > _KEPT:
                    self.plans.popitem(last=False)
                self._memories.keep(set(self.plans.values()))
            self.plans.move_to_end(key)
            self._latest = plan
            return plan

    def _recordable(self) -> Callable[..., Any]:
        if not isinstance(self.function, Module):
            return self.function
        model = self.function

        def forward(*inputs: Tensor) -> Any:
            with evaluating():
                return model(*inputs)

        return forward
