"""Program: a recorded run, as values and the calls that make them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from minicnn.autograd import Version
from minicnn.backend import Backend
from minicnn.backend.kernel import Facts, facts, kernel
from minicnn.nn.module import Module
from minicnn.tensor import Tensor


class Value:
    """An array of the recorded run.

    Attributes:
        array: itself, or None for inputs and results of calls as soon as a plan is made.
        shape, dtype: those of the array.
        call: what made it, None for inputs and states.
        memory: the same for all that lie in one array: an array and its views.
    """

    def __init__(self, array: Any, call: Call | None = None) -> None:
        self.array, self.shape, self.dtype, self.memory = array, tuple(array.shape), array.dtype, memory_of(array)
        self._call = None if call is None else weakref.ref(call)

    @property
    def call(self) -> Call | None:
        """What made it."""
        return None if self._call is None else self._call()


def memory_of(array: Any) -> int:
    """Return the same number for an array and all its views, as long as there is one of them."""
    while True:
        base = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
        if base is None:
            return id(array)
        array = base


@dataclass(eq=False)
class PerReplay:
    """A Python number that each replay reads anew."""

    read: Callable[[], Any]


@dataclass(eq=False)
class Action:
    """What Python does in each replay before the calls, and how it is taken back where a replay fails."""

    do: Callable[[], None]
    undo: Callable[[], None] | None


@dataclass(eq=False)
class Call:
    """``outputs = kernel(*arguments)``; arguments are Values, lists of Values, PerReplays and Python's own values."""

    kernel: str
    arguments: tuple[Any, ...]
    layer: str = ""  # the name of the module that called it, or whose gradient it computes
    outputs: tuple[Value, ...] = ()

    def reads(self) -> list[Value]:
        """Return the Values among the arguments."""
        return _values(self.arguments)

    def writes(self) -> list[Value]:
        """Return the Values that the call edits in place; what else lies in their memory changes, too."""
        return _values(self.arguments[i] for i in self.facts.writes)

    def flop(self) -> int | None:
        """Return its floating-point operations, 2 a multiply-add; None of a kernel that memory bounds."""
        return None if self.facts.flop is None else self.facts.flop(self.arguments, self.outputs)

    def bytes(self) -> int:
        """Return the bytes that it reads and writes."""
        return self.facts.bytes(self.arguments, self.outputs)

    @property
    def facts(self) -> Facts:
        """What its kernel declares."""
        return facts(self.kernel)


def _values(arguments: Iterable[Any]) -> list[Value]:
    found = []
    for argument in arguments:
        parts = argument if isinstance(argument, list | tuple) else [argument]
        found += [v for v in parts if isinstance(v, Value)]
    return found


@kernel()
def check_on_replay(array: Any, action: Callable[[Any], None]) -> None:
    """Call ``action`` with the array; it may raise. Python's own kernel, which no backend has."""
    action(array)


@dataclass(eq=False)
class Gradient:
    """What a run does to ``tensor.grad``: sets it to ``now`` if ``fresh`` (the run reset it first), else adds ``now``.

    looked: whether it looked at a gradient that it had not reset; then a replay must not find another's.
    """

    tensor: Tensor
    fresh: bool
    now: Tensor | None = None
    looked: bool = False
    used: bool = False  # by a step of the run


@dataclass
class Program:
    """A recorded run: calls in order, inputs, results, and what Python does before the calls, with how it is undone.

    Attributes:
        tensors: those that the run read, each with its array and whether it required a gradient (None: no matter).
        modules: those that ran, each with its attributes.
        gradients: of the leaves; those that are not used up by a step of the run are outputs behind the results.
        written: the states that the run edits; where there are any, no two replays may run at once.
        fixed: states whose elements do not matter, only their dtype.
        taped: of each result, whether it would have a tape.
    """

    backend: Backend
    calls: list[Call] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    before: list[PerReplay | Action] = field(default_factory=list)
    tensors: list[tuple[Tensor, Any, bool | None]] = field(default_factory=list)
    modules: list[tuple[Module, dict[str, Any]]] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    written: list[Value] = field(default_factory=list)
    fixed: list[Value] = field(default_factory=list)
    taped: list[bool] = field(default_factory=list)
    single: bool = True  # whether the function returned one tensor rather than several

    @property
    def batch(self) -> int:
        """Length of the first axis of the first input."""
        return (*self.inputs[0].shape, 1)[0]

    def edited(self) -> list[Version]:
        """Return the versions of the tensors that the run edits."""
        arrays = {id(value.array) for value in self.written}
        versions = {id(t._version): t._version for t, array, _ in self.tensors if id(array) in arrays}
        return list(versions.values())
