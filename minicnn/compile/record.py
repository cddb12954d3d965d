"""Record: run a function once and write down the kernels it calls.

What is recorded are shapes, not numbers: only kernels that return views, or compute with integers, are run, and what a
kernel returns is replaced by a view of one zero, which takes no memory.

Every array becomes a :class:`Value`: an input, a state (any other array that existed before: parameters, statistics,
optimizer memory; a plan reads and writes it in place), or the output of a call. The function sees stand-ins
(:class:`~minicnn.recording.Recorded`), in the context of its call alone, and nothing that is shared changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np

from minicnn import backend, recording
from minicnn.autograd import is_grad_enabled
from minicnn.backend import Backend
from minicnn.backend.kernel import arrays_in, facts, is_float
from minicnn.compile.program import Action, Call, Gradient, PerReplay, Program, Value, memory_of
from minicnn.nn.module import Module, attributes
from minicnn.recording import Recorded
from minicnn.tensor import Tensor


def record(function: Callable[..., Any], arrays: Sequence[Any]) -> Program:
    """Call ``function`` with tensors of ``arrays`` and return what it did; it has no effects.

    States are not written, actions are noted and not done, and gradients, random streams and the optimizer's count of
    steps stay as they are, so that the plan runs the first step too and a run resumed at any step has the same bits.

    Raises:
        RuntimeError: the function reads a value into Python, edits an input, or uses a gradient computed before it.
        TypeError: it returns something else than tensors.
    """
    owner = backend.of(arrays[0])
    recorder = _Recorder(owner, arrays)
    token = recording.current.set(recorder)
    try:
        with np.errstate(all="ignore"):
            returned = function(*(Tensor(recorder.stand_in(value)) for value in recorder.program.inputs))
        results = list(returned) if isinstance(returned, tuple | list) else [returned]
        if not all(isinstance(r, Tensor) for r in results):
            raise TypeError("compile: expected a function that returns a tensor or several, received something else")
        return recorder.finish(results, isinstance(returned, Tensor))
    finally:
        recording.current.reset(token)
        recorder.forget()


class _Recorder:
    """Stands in for the kernels of a backend: calls them, and notes each call."""

    def __init__(self, owner: Backend, inputs: Sequence[Any]) -> None:
        self.program = Program(owner)
        self.backend = replace(owner, kernels=cast(Any, self))
        self._values: dict[int, Value] = {}
        self._states: dict[int, list[Value]] = {}  # inputs too, by their memory
        self._fresh: set[int] = set()  # the memory of arrays that became tensors in the run
        self._stand_ins: dict[Value, Recorded] = {}
        self._tensors: dict[int, tuple[Tensor, Any, bool | None]] = {}
        self._modules: dict[int, Module] = {}
        self._gradients: dict[int, Gradient] = {}
        self._own: dict[int, Tensor] = {}
        self._likes: dict[Any, Any] = {}
        self._names: dict[int, str] = {}  # of modules, within the outermost that runs
        self.layer = ""
        # the numbers of the run are thrown away, so on the CPU it need not wait for kernels to compile
        self._kernels = backend.get("reference").kernels if owner.name == "numpy" else owner.kernels
        self.program.inputs = [self._value_of(self._zeros(array.shape, array.dtype)) for array in inputs]

    # For tensors and functions

    def made(self, tensor: Tensor) -> None:
        self._own[id(tensor)] = tensor
        if not isinstance(tensor._data, Recorded):
            self._fresh.add(memory_of(tensor._data))

    def data_of(self, tensor: Tensor, array: Any) -> Recorded:
        """Return what stands for the array of a tensor; one that was there before the run is a state."""
        if isinstance(array, Recorded):
            if array.owner is not self:
                array.refuse("an operation")
            return array
        if not self.owns(tensor):
            known = self._tensors.get(id(tensor))
            if known is None or (known[2] is None and is_grad_enabled()):  # it may be read without a tape first
                self._tensors[id(tensor)] = tensor, array, tensor.requires_grad if is_grad_enabled() else None
        return self.stand_in(self._value_of(array))

    def stand_in(self, value: Value) -> Recorded:
        """Return what the function sees of a Value."""
        if value not in self._stand_ins:
            self._stand_ins[value] = Recorded(self, value)
        return self._stand_ins[value]

    def gradient_of(self, tensor: Tensor, gradient: Tensor | None) -> Tensor | None:
        known = self._gradients.get(id(tensor))
        if known is None:
            if gradient is not None:
                raise RuntimeError(
                    "compile: the function uses a gradient that was computed before it; call zero_grad and backward "
                    "inside it, or take the step outside too"
                )
            known = self._gradient(tensor)
        known.looked = known.looked or not known.fresh
        return known.now

    def leaf_gradient_of(self, tensor: Tensor) -> Tensor | None:
        """Return what the run has added up so far; what was there before is added by each replay."""
        return self._gradient(tensor).now

    def set_gradient(self, tensor: Tensor, gradient: Tensor | None, fresh: bool = True) -> None:
        known = self._gradient(tensor)
        known.fresh, known.now = known.fresh or fresh, gradient

    def _gradient(self, tensor: Tensor) -> Gradient:
        return self._gradients.setdefault(id(tensor), Gradient(tensor, self.owns(tensor)))

    def owns(self, tensor: Tensor) -> bool:
        return isinstance(tensor._data, Recorded) or id(tensor) in self._own

    def per_replay(self, read: Callable[[], Any]) -> PerReplay:
        number = PerReplay(read)
        self.program.before.append(number)
        return number

    def on_replay(self, action: Callable[[], None], undo: Callable[[], None] | None) -> None:
        self.program.before.append(Action(action, undo))

    def check_on_replay(self, array: Any, action: Callable[[Any], None]) -> None:
        self.program.calls.append(Call("check_on_replay", (self._noted(array), action), self.layer))

    def relies_on(self, module: Module) -> None:
        self._modules[id(module)] = module

    @contextmanager
    def inside(self, module: Module) -> Iterator[None]:
        names, layer = self._names, self.layer
        if not names:  # the outermost
            self._names = dict(_names(module, ""))
        self.layer = self._names.get(id(module), layer)
        try:
            yield
        finally:
            self._names, self.layer = names, layer

    # The end

    def finish(self, results: Sequence[Tensor], single: bool) -> Program:
        """Return the program, with what a replay returns and what it leaves in gradients."""
        program = self.program
        program.single, program.taped = single, [r.requires_grad for r in results]
        program.outputs = [self._noted(r._operand) for r in results]
        used = {call.arguments[i] for call in program.calls for i in call.facts.consumes}
        for gradient in self._gradients.values():
            if self.owns(gradient.tensor):
                continue
            value = None if gradient.now is None else gradient.now._data
            program.gradients.append(gradient)
            if isinstance(value, Recorded):
                gradient.used = value.value in used
                program.outputs += [] if gradient.used else [value.value]
        program.tensors = list(self._tensors.values())
        program.modules = [(module, attributes(module)) for module in self._modules.values()]
        return program

    def forget(self) -> None:
        """Let go of the run: what the function kept of it must not keep its arrays."""
        self.__dict__.clear()

    # For the kernels

    def _value_of(self, array: Any) -> Value:
        """Return the Value of an array; one not seen before is a state. The Value keeps the array, and so its id."""
        if id(array) not in self._values:
            value = self._values[id(array)] = Value(array)
            self._states.setdefault(value.memory, []).append(value)
        return self._values[id(array)]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not self.__dict__:
            raise RuntimeError(
                "compile: this context was copied while a function was recorded, and that is over; "
                "start tasks and copy contexts outside of compiled functions"
            )
        kernel, declared = getattr(self._kernels, name), facts(name)
        if declared.number:
            recording.check_readable(name)

        def noted(*arguments: Any) -> Any:
            if declared.parameters[:1] == ("like",):
                arguments = (self._like(arguments[0]), *arguments[1:])
            call = Call(name, tuple(self._noted(a) for a in arguments), self.layer)
            written = call.writes()
            for state in (state for value in written for state in self._seen_in(value)):
                if state in self.program.inputs:
                    raise RuntimeError(f"compile: {name} edits an input in place; edit a copy, or return the new value")
                if state.memory in self._fresh:
                    raise RuntimeError(
                        f"compile: {name} edits a NumPy array that became a tensor in the function, as a plan does not "
                        "make it anew; write minicnn.tensor(array), a copy in every replay, or make the tensor outside"
                    )
                if state not in self.program.written:
                    self.program.written.append(state)
            if written:
                result = None
            elif not declared.view and is_float(next(arrays_in(arguments))):
                blanks = tuple(self._zeros(*output) for output in declared.outputs(*arguments))
                result = blanks if len(blanks) > 1 else blanks[0]
            else:
                result = kernel(*(_unwrapped(a) for a in call.arguments))
            if isinstance(result, np.generic):
                result = np.asarray(result)
            several = isinstance(result, tuple)
            results: Any = result if several else (result,)
            made = [self._made(r, call) for r in results if r is not None]
            call.outputs = tuple(stand_in.value for stand_in in made)
            self.program.calls.append(call)
            return tuple(made) if several else made[0] if made else None

        return noted

    def _like(self, array: Any) -> Any:
        """Return an element that stands for an array of which a kernel looks at the dtype only."""
        dtype = np.dtype(array.dtype)
        if dtype not in self._likes:
            self._likes[dtype] = self.program.backend.xp.zeros((), dtype)
            self.program.fixed.append(self._value_of(self._likes[dtype]))
        return self._likes[dtype]

    def _seen_in(self, value: Value) -> list[Value]:
        """Return the inputs and states whose memory a Value is, or shows a part of."""
        return self._states.get(value.memory, [])

    def _zeros(self, shape: Any, dtype: Any) -> Any:
        xp = self.program.backend.xp
        return xp.broadcast_to(xp.zeros((), dtype), shape)

    def _made(self, array: Any, call: Call) -> Recorded:
        """Return what stands for a result; one that is no view of an argument gives up its memory."""
        known = self._values.get(id(array))
        if known is not None:  # the kernel returned its argument
            return self.stand_in(known)
        is_view = memory_of(array) in {v.memory for v in call.reads()}
        value = Value(array if is_view else self._zeros(array.shape, array.dtype), call)
        self._values[id(value.array)] = value
        self._stand_ins[value] = Recorded(self, value, is_view)
        return self._stand_ins[value]

    def _noted(self, argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return type(argument)(self._noted(a) for a in argument)
        kind = self.program.backend.xp.ndarray
        array = argument.value.array if isinstance(argument, Recorded) else argument
        if hasattr(array, "dtype") and not isinstance(array, kind | np.ndarray | np.generic | np.dtype | type):
            there = type(array).__module__
            raise TypeError(
                f"compile: expected all arrays in {kind.__module__}, as the first input's, received {there}"
            )
        if isinstance(argument, Recorded):
            return argument.value
        return self._value_of(argument) if isinstance(argument, kind) else argument


def _names(module: Module, name: str) -> Iterator[tuple[int, str]]:
    """Yield the ids and names of a module and its parts, without the recorder's notice."""
    yield id(module), name
    for part, child in object.__getattribute__(module, "_modules").items():
        if child is not None:
            yield from _names(child, f"{name}.{part}" if name else part)


def _unwrapped(argument: Any) -> Any:
    """What a kernel takes for an argument of a call."""
    if isinstance(argument, list | tuple):
        return type(argument)(map(_unwrapped, argument))
    if isinstance(argument, Value):
        return argument.array
    return argument.read() if isinstance(argument, PerReplay) else argument
