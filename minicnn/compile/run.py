"""Run: a plan bound to a memory, as a list of calls. The plan stays as it is; what a replay writes is here."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minicnn.compile.encode import Code, MachineProgram
from minicnn.compile.graph import Node, Region
from minicnn.compile.profile import Stopwatch
from minicnn.compile.program import Action, PerReplay, Value

Environment = dict[Any, Any]
"""What Values (their arrays) and PerReplays (their numbers) are in this replay; of states it is their own array."""


def aligned_zeros(length: int) -> np.ndarray:
    """Return float32 (length,), zeros, from an address that 64 divides."""
    array = np.zeros(length + 16, dtype=np.float32)
    return array[-array.ctypes.data % 64 // 4 :][:length]


class Run:
    """The steps of a plan on ``memory``, float32, aligned to 64 bytes; for one thread at a time."""

    def __init__(self, code: Code, memory: np.ndarray, stopwatch: Stopwatch | None = None) -> None:
        graph, program = code.graph, code.graph.program
        self._environment: Environment = {}
        self._keys, self._before = code.dropout_keys, program.before
        self._table = code.table.copy() if code.dropout_keys else code.table
        self._inputs, self._images, self._labels = program.inputs, graph.images, graph.labels
        shapes = [None if value is None else value.shape for value in (graph.images, graph.labels)]
        self._context = code.machine.Context(memory, code.allocation.room, self._table, code.numbers, *shapes)
        self._memory, self._frames = memory, code.allocation.frames
        binding = _Binding(code, memory, self._environment)
        self._steps: list[tuple[Callable[[], None], Sequence[Value]]] = []  # each with what nobody reads after it
        for index, (step, dead) in enumerate(zip(code.steps, _last_read(code), strict=True)):
            if isinstance(step, MachineProgram):
                run = self._context.runner(step.rows, step.images, stopwatch.ticks[index] if stopwatch else 0)
            else:
                operands = {"call": step.call} if step.kind == "call" else step.operands
                run = getattr(binding, step.kind)(**operands)
            self._steps.append((stopwatch.timed(index, run) if stopwatch else run, dead))
        self._passing = [*self._inputs, *(v for step in code.steps for v in _results(code, step))]

    def clean(self) -> None:
        """Write the zeros of the halos again, after another plan used the memory."""
        for at, size in self._frames:
            self._memory[at : at + size] = 0

    def __call__(self, arrays: Sequence[Any], outputs: Sequence[Value]) -> list[np.ndarray]:
        """Replay on arrays of the recorded shapes and dtypes; return copies of the outputs."""
        environment = self._environment
        for value, array in zip(self._inputs, arrays, strict=True):
            if value is self._images or value is self._labels:
                if not array.flags.c_contiguous or not array.flags.aligned:
                    array = np.require(array, requirements=["C", "A"])
                (self._context.feed if value is self._images else self._context.label)(array)
            environment[value] = array
        done: list[Action] = []
        try:
            for thing in self._before:
                if isinstance(thing, PerReplay):
                    environment[thing] = thing.read()
                else:
                    thing.do()
                    done.append(thing)
            for place, key in self._keys:
                self._table[place] = np.array(environment.get(key, key), dtype=np.uint64).view(np.int64)
            for step, dead in self._steps:
                step()
                for value in dead:
                    del environment[value]
            return [np.array(environment.get(v, v.array)) for v in outputs]
        except BaseException:
            for action in reversed(done):
                if action.undo is not None:
                    action.undo()
            raise
        finally:
            for value in self._passing:
                environment.pop(value, None)


def _results(code: Code, step: MachineProgram | Node) -> list[Value]:
    """Return the arrays that a step makes outside of the plan's memory."""
    made = step.call.outputs if isinstance(step, Node) and step.kind == "call" and step.call else ()
    return [v for v in made if v.call is not None and v not in code.graph.regions]


def _last_read(code: Code) -> list[list[Value]]:
    """Return for each step the results of calls that nothing reads after it; results of the plan stay."""
    steps, outputs = code.steps, code.graph.program.outputs
    last = {v: i for i, step in enumerate(steps) for v in _results(code, step)}
    for i, step in enumerate(steps):
        last |= {v: i for v in (step.reads if isinstance(step, Node) else ()) if v in last}
    return [[v for v, j in last.items() if j == i and v not in outputs] for i in range(len(steps))]


def _array(environment: Environment, argument: Any) -> Any:
    """Return what an argument of a call is in this replay."""
    if isinstance(argument, Value):
        return environment.get(argument, argument.array)
    if isinstance(argument, list | tuple):
        return type(argument)(_array(environment, a) for a in argument)
    return environment[argument] if isinstance(argument, PerReplay) else argument


class _Binding:
    """One method a kind of node that Python calls: it returns the call, on arrays in this memory.

    The calls keep neither this nor the plan alive, so that both are freed as soon as they are dropped.
    """

    def __init__(self, code: Code, memory: np.ndarray, environment: Environment) -> None:
        self.code, self.memory, self.environment = code, memory, environment
        for value, region in code.graph.regions.items():
            environment[value] = self.view(region)

    def view(self, region: Region) -> np.ndarray:
        """Return the array that a region is."""
        shape = (region.parts, *region.shape) if region.parts else region.shape
        at = self.code.allocation.places[region].at
        return self.memory[at : at + region.length].reshape(shape)

    def fixed(self, argument: Any) -> Any:
        """Return the array of a Value that has the same in every replay, else the argument as it is."""
        if not isinstance(argument, Value) or argument in self.code.graph.program.inputs:
            return argument
        if argument in self.code.graph.regions:
            return self.environment[argument]
        return argument.array if argument.call is None else argument

    def call(self, call: Any) -> Callable[[], None]:
        environment = self.environment
        if call.kernel == "check_on_replay":
            seen, action = call.arguments
            return lambda: action(_array(environment, seen))
        kernel = getattr(self.code.graph.program.backend.kernels, call.kernel)
        arguments = [self.fixed(argument) for argument in call.arguments]
        outputs = call.outputs
        late = [i for i, argument in enumerate(arguments) if isinstance(argument, Value | PerReplay | list | tuple)]

        def run() -> None:
            now = arguments.copy()
            for i in late:
                now[i] = _array(environment, arguments[i])
            result = kernel(*now)
            if outputs:
                results = result if isinstance(result, tuple) else (result,)
                environment.update(zip(outputs, results, strict=False))

        return run

    def sgd_steps(self, calls: list[Any], **_: Any) -> Callable[[], None]:
        environment = self.environment
        arrays = [[self.fixed(value) for value in call.arguments[:3]] for call in calls]
        addresses = np.array([[0 if a is None else a.ctypes.data for a in row] for row in arrays], dtype=np.int64)
        sizes = np.array([row[0].size for row in arrays], dtype=np.int64)
        numbers = np.empty((len(calls), 5), dtype=np.float32)
        take = self.code.machine.sgd_steps(addresses, sizes, numbers, calls[0].arguments[-1])

        options = [call.arguments[3:8] for call in calls]
        now = environment.get  # of a PerReplay its number; of a number itself

        def run() -> None:
            numbers[...] = [
                (
                    now(first, first),
                    now(lr, lr),
                    now(momentum, momentum),
                    1 - now(dampening, dampening),
                    now(decay, decay),
                )
                for first, lr, momentum, dampening, decay in options
            ]
            take()

        return run

    def load(self, source: Value, region: Region) -> Callable[[], None]:
        view, environment = self.view(region), self.environment
        return lambda: np.copyto(view, environment.get(source, source.array))

    def reduce(self, partial: Region, region: Region) -> Callable[[], None]:
        parts, out = self.view(partial), self.view(region)

        def run() -> None:
            np.add.reduce(parts, axis=0, out=out)

        return run

    def filters(self, source: Value, region: Region, adjoint: bool) -> Callable[[], None]:
        """The transform of a weight; ``adjoint``: of its filters turned by 180 degrees, input channels first."""
        points, environment, multiply = region.shape[0], self.environment, self.code.machine.multiply
        matrix, out = self.code.machine.FILTERS[points], self.view(region).reshape(points, -1)
        if adjoint:
            matrix = np.ascontiguousarray(matrix[:, ::-1])

        def run() -> None:
            weight = environment.get(source, source.array)
            if adjoint:
                weight = np.ascontiguousarray(weight.swapaxes(0, 1))
            multiply(matrix, weight.reshape(-1, matrix.shape[1]).T, out)

        return run

    def statistics(self, partial: Region, out: tuple[Region, Region], pixels: int) -> Callable[[], None]:
        """Mean and variance of the batch from those of its blocks (Chan et al., 1979)."""
        parts, mean, var = self.view(partial), self.view(out[0]), self.view(out[1])
        lanes, batch, count = self.code.allocation.lanes, self.code.graph.program.batch, self.code.graph.count
        values = np.minimum(lanes, batch - np.arange(count) * lanes) * pixels
        shares = values / values.sum()

        def run() -> None:
            means = parts[:, 0].astype(np.float64)
            middle = shares @ means
            mean[...] = middle
            var[...] = parts[:, 1].sum(axis=0, dtype=np.float64) / values.sum() + shares @ (means - middle) ** 2

        return run

    def affine_terms(self, values: list[Value | None], out: Region) -> Callable[[], None]:
        """Batch norm as p x + q."""
        (scale, offset), environment = self.view(out), self.environment

        def run() -> None:
            mean, inverse_std, weight, bias = (_array(environment, v) for v in values)
            scale[...] = inverse_std if weight is None else inverse_std * weight
            np.multiply(mean, scale, out=offset)
            np.subtract(0 if bias is None else bias, offset, out=offset)

        return run

    def norm_terms(
        self, partial: Region, values: list[Value | None], out: list[Region], count: int | None
    ) -> Callable[[], None]:
        """The gradient of batch norm as p gy + q x + r, and those for weight and bias; count: None outside training."""
        parts, environment = self.view(partial), self.environment
        (p, q, r), gweight, gbias = (self.view(region) for region in out)

        def run() -> None:
            mean, inverse_std, weight = (_array(environment, v) for v in values)
            np.add.reduce(parts[:, 0], axis=0, out=gbias)
            np.add.reduce(parts[:, 1], axis=0, out=gweight)
            np.multiply(gweight, inverse_std, out=gweight)
            p[...] = inverse_std if weight is None else inverse_std * weight
            share = np.float32(0 if count is None else -1 / count)
            np.multiply(p * inverse_std, gweight * share, out=q)
            np.subtract(p * gbias * share, q * mean, out=r)

        return run

    def unfilter(self, sums: Region, region: Region) -> Callable[[], None]:
        """The gradient of a filter from that of its transform, summed over the parts."""
        parts, out = self.view(sums), self.view(region)
        points, outputs = sums.shape[0], out.shape[0]
        matrix = self.code.machine.FILTERS[points]
        taps, divided, multiply = out.reshape(-1, matrix.shape[1]), sums.parts > 0, self.code.machine.multiply

        def run() -> None:
            total = parts.sum(axis=0) if divided else parts
            multiply(total[:, :outputs].reshape(points, -1).T, matrix, taps)

        return run
