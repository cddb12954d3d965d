"""Record: run a function once and write down the kernels it calls.

What is recorded are shapes, not numbers: the heavy kernels are not run at all, and what they would return is an array
of zeros, which takes no memory either as long as nobody touches it.

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
    "clip_norm": (0,),
    "clip_values": (0,),
}
"""Kernels that write into their arguments, and into which."""
_TO_PYTHON = {"all_finite", "label_range"}
"""Kernels that return a Python number: their result cannot be recorded."""


def _as_first(x: Any, *_: Any) -> Any:
    return x.shape


def _broadcast(a: Any, b: Any) -> Any:
    return np.broadcast_shapes(np.shape(a), np.shape(b))


def _conv2d(x: Any, weight: Any, _: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return x.shape[0], weight.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)


_SHAPES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("relu", "relu_grad", "elu", "elu_grad", "dropout", "batch_norm"), _as_first),
    **dict.fromkeys(("add", "subtract", "multiply", "divide"), _broadcast),
    "batch_norm_statistics": lambda x: [x.shape[1:2]] * 2,
    "batch_norm_grad": lambda gy, x, *_: [x.shape, x.shape[1:2], x.shape[1:2]],
    "conv2d": _conv2d,
    "conv2d_grad_bias": lambda gy: gy.shape[1:2],
    "conv2d_grad_input": lambda gy, weight, shape, *_: shape,
    "conv2d_grad_weight": lambda gy, x, shape, *_: shape,
    "linear": lambda x, weight, bias: (*x.shape[:-1], weight.shape[0]),
    "linear_grad_input": lambda gy, weight: (*gy.shape[:-1], weight.shape[1]),
    "linear_grad_weight": lambda gy, x: (gy.shape[-1], x.shape[-1]),
    "max_pool2d": lambda x, kernel_size, stride, padding, dilation, output_size: [(*x.shape[:2], *output_size)] * 2,
    "max_pool2d_grad": lambda gy, taps, shape, *_: shape,
    "cross_entropy": lambda logits, *_: [logits.shape[:1], logits.shape],
    "cross_entropy_grad": lambda glosses, probabilities, *_: probabilities.shape,
}
"""Kernels that are not run, and the shape of what they return, or a list of several."""


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
    """A recorded run: calls in order, inputs, results, and what Python does before the calls, with how it is undone."""

    backend: Backend
    calls: list[Call] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    before: list[tuple[Callable[[], None], Callable[[], None] | None]] = field(default_factory=list)
    single: bool = True  # whether the function returned one tensor rather than several

    @property
    def batch(self) -> int:
        """Length of the first axis of the first input."""
        return (*self.inputs[0].shape, 1)[0]

    def undo(self) -> None:
        """Take back what Python did before the calls."""
        for _, undo in reversed(self.before):
            if undo is not None:
                undo()


def record(function: Callable[..., Any], arrays: Sequence[Any]) -> Program:
    """Call ``function`` with tensors of ``arrays`` and return what it did; it has no effects.

    States of floats are not written, and what was done to the random streams and to the optimizer's count of steps is
    undone, so that the plan runs the first step too and a run resumed at any step has the same bits.

    Raises:
        RuntimeError: the function reads a value into Python.
        TypeError: it returns something else than tensors.
    """
    owner = backend.of(arrays[0])
    recorder = _Recorder(Program(owner), arrays)
    streams = random.get_state()
    token = recording.listener.set(recorder)
    try:
        with backend.intercepted(owner, recorder), np.errstate(all="ignore"):
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
        # the numbers of the run are thrown away, so on the CPU it need not wait for kernels to compile
        name = program.backend.name
        self._kernels = backend.get("reference" if name == "numpy" else name).kernels
        for array in inputs:
            value = Value(array)
            self._values[id(array)] = value
            program.inputs.append(value)

    def live(self, read: Callable[[], Any]) -> Live:
        number = Live(read, read())
        self.program.before.append((lambda: setattr(number, "value", number.read()), None))
        return number

    def again(self, action: Callable[[], None], undo: Callable[[], None] | None) -> None:
        self.program.before.append((action, undo))

    def inspect(self, array: Any, action: Callable[[Any], None]) -> None:
        self.program.calls.append(Call("inspect", (self.value_of(array), action)))

    def take_back(self) -> None:
        """Undo what the run did to states and to Python's objects."""
        for value, content in self._before.items():
            value.array[...] = content
        self.program.undo()

    def value_of(self, array: Any) -> Value:
        """Return the Value of an array; one not seen before is a state. The Value keeps the array, and so its id."""
        return self._values.setdefault(id(array), Value(array))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kernel = getattr(self._kernels, name)
        if name in _TO_PYTHON:
            recording.check_readable(name)

        def noted(*arguments: Any) -> Any:
            call = Call(name, tuple(self._noted(a) for a in arguments))
            written = call.writes()
            if all(_is_float(v.array) for v in written) and (written or (name in _SHAPES and _is_float(arguments[0]))):
                result = None if written else self._blank(name, arguments)
            else:
                for value in written:
                    if value.call is None and value not in self._before:
                        self._before[value] = value.array.copy()
                result = kernel(*(_unwrapped(a) for a in arguments))
            if isinstance(result, np.generic):
                result = np.asarray(result)
            results = result if isinstance(result, tuple) else (result,)
            call.outputs = tuple(self._made(r, call) for r in results if r is not None)
            self.program.calls.append(call)
            return result

        return noted

    def _blank(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return what a kernel returns, without its numbers."""
        dtype = np.result_type(*(a.dtype for a in arguments if _is_float(a)))
        shapes = _SHAPES[name](*arguments)
        zeros = self.program.backend.xp.zeros
        return tuple(zeros(s, dtype) for s in shapes) if isinstance(shapes, list) else zeros(shapes, dtype)

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


def _is_float(argument: Any) -> bool:
    return getattr(getattr(argument, "dtype", None), "kind", None) == "f"


def _unwrapped(argument: Any) -> Any:
    return argument.value if isinstance(argument, Live) else argument
