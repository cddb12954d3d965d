"""Record: run a function once, eagerly, and write down the kernels it calls.

Every array becomes a :class:`Value`: an input, a state (any other array that existed before: parameters, statistics,
optimizer memory; a plan reads and writes it in place), or the output of a call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minicnn import backend, random, recording
from minicnn.backend import Backend
from minicnn.tensor import Tensor

_IN_PLACE = {
    "accumulate": (0,),
    "copy_into": (0,),
    "lerp_into": (0,),
    "sgd_step": (0, 2),
    "adam_step": (0, 2, 3),
    "scale_into": (0,),
    "clip_values": (0,),
}
"""Kernels that write into their arguments, and into which."""
_TO_PYTHON = {"all_finite", "squared_norm"}
"""Kernels that return a Python number: their result cannot be recorded."""


@dataclass(eq=False)
class Value:
    """An array of the recorded run. ``array``: itself; ``call``: what made it, None for inputs and states."""

    array: Any
    call: "Call | None" = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape


@dataclass(eq=False)
class Live:
    """A Python number that each replay reads anew."""

    read: Callable[[], Any]
    value: Any


@dataclass(eq=False)
class Call:
    """``outputs = kernel(*arguments)``; arguments are Values, lists of Values, Lives and plain Python values.

    The kernel "inspect" is Python's: its second argument is called with the first.
    """

    kernel: str
    arguments: tuple[Any, ...]
    outputs: tuple[Value, ...] = ()

    def reads(self) -> list[Value]:
        """Return the Values among the arguments."""
        found = []
        for argument in self.arguments:
            parts = argument if isinstance(argument, list | tuple) else [argument]
            found += [v for v in parts if isinstance(v, Value)]
        return found

    def writes(self) -> list[Value]:
        """Return the Values that the call edits in place."""
        positions = _IN_PLACE.get(self.kernel, ())
        return [v for v in (self.arguments[i] for i in positions) if isinstance(v, Value)]


@dataclass
class Program:
    """A recorded run: calls in order, inputs, results, and what Python does before the calls of a replay."""

    backend: Backend
    calls: list[Call] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    before: list[Callable[[], None]] = field(default_factory=list)
    single: bool = True  # whether the function returned one tensor rather than several


def record(function: Callable[..., Any], arrays: Sequence[Any]) -> Program:
    """Call ``function`` with tensors of ``arrays`` and return what it did; its effects are taken back.

    What it did to states, to the random streams and to the optimizer's count of steps is undone, so that the plan runs
    the first step too and a run resumed at any step has the same bits.

    Raises:
        RuntimeError: the function reads a value into Python.
        TypeError: it returns something else than tensors.
    """
    owner = backend.of(arrays[0])
    recorder = _Recorder(Program(owner), arrays)
    streams = random.get_state()
    token = recording.listener.set(recorder)
    try:
        with backend.intercepted(owner, recorder):
            returned = function(*(Tensor(a) for a in arrays))
    finally:
        recording.listener.reset(token)
        random.set_state(streams)
        recorder.take_back()
    program = recorder.program
    program.single = isinstance(returned, Tensor)
    results = list(returned) if isinstance(returned, tuple | list) else [returned]
    if not all(isinstance(r, Tensor) for r in results):
        raise TypeError("compile: expected a function that returns a tensor or several, received something else")
    program.outputs = [recorder.value_of(r.data) for r in results]
    return program


class _Recorder:
    """Stands in for the kernels of a backend: calls them, and notes each call."""

    def __init__(self, program: Program, inputs: Sequence[Any]) -> None:
        self.program = program
        self._values: dict[int, Value] = {}
        self._before: dict[Value, Any] = {}  # what was in the states that a call wrote into
        self._undo: list[Callable[[], None]] = []
        # the recorded run is thrown away, so on the CPU it need not wait for kernels to compile
        name = program.backend.name
        self._kernels = backend.get("reference" if name == "numpy" else name).kernels
        for array in inputs:
            value = Value(array)
            self._values[id(array)] = value
            program.inputs.append(value)

    def live(self, read: Callable[[], Any]) -> Live:
        number = Live(read, read())
        self.program.before.append(lambda: setattr(number, "value", number.read()))
        return number

    def again(self, action: Callable[[], None], undo: Callable[[], None] | None) -> None:
        self.program.before.append(action)
        if undo is not None:
            self._undo.append(undo)

    def inspect(self, array: Any, action: Callable[[Any], None]) -> None:
        self.program.calls.append(Call("inspect", (self.value_of(array), action)))

    def take_back(self) -> None:
        """Undo what the run did to states and to Python's objects."""
        for value, content in self._before.items():
            value.array[...] = content
        for undo in reversed(self._undo):
            undo()

    def value_of(self, array: Any) -> Value:
        """Return the Value of an array; one not seen before is a state. The Value keeps the array, and so its id."""
        return self._values.setdefault(id(array), Value(array))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kernel = getattr(self._kernels, name)
        if name in _TO_PYTHON:
            recording.check_readable(name)

        def noted(*arguments: Any) -> Any:
            call = Call(name, tuple(self._noted(a) for a in arguments))
            for value in call.writes():
                if value.call is None and value not in self._before:
                    self._before[value] = value.array.copy()
            result = kernel(*(_unwrapped(a) for a in arguments))
            if isinstance(result, np.generic):
                result = np.asarray(result)
            results = result if isinstance(result, tuple) else (result,)
            if name != "label_range":
                call.outputs = tuple(self._made(r, call) for r in results if r is not None)
                self.program.calls.append(call)
            return result

        return noted

    def _made(self, array: Any, call: Call) -> Value:
        known = self._values.get(id(array))
        if known is not None:  # the kernel returned its argument
            return known
        value = self._values[id(array)] = Value(array, call)
        return value

    def _noted(self, argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return type(argument)(self._noted(a) for a in argument)
        return self.value_of(argument) if isinstance(argument, self.program.backend.xp.ndarray) else argument


def _unwrapped(argument: Any) -> Any:
    return argument.value if isinstance(argument, Live) else argument
