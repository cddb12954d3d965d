"""Run: a plan bound to a memory, as a list of calls. The plan stays as it is; what a replay writes is here."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minicnn.compile.binding import Binding, Environment
from minicnn.compile.encode import Code, MachineProgram
from minicnn.compile.graph import Node, Region
from minicnn.compile.profile import Stopwatch
from minicnn.compile.program import Action, PerReplay, Value


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
        self._zeros = memory[: code.allocation.zeros]
        places, constants = code.allocation.places, code.constants.arrays

        def view(region: Region) -> np.ndarray:
            if region in constants:
                return constants[region]
            shape, at = (region.parts, *region.shape) if region.parts else region.shape, places[region].at
            return memory[at : at + region.length].reshape(shape)

        self._environment |= {value: array for value, array in constants.items() if isinstance(value, Value)}
        self._environment |= {value: view(region) for value, region in graph.regions.items()}
        binding = Binding(graph, code.machine, view, self._environment)
        self._steps: list[tuple[Callable[[], None], Sequence[Value]]] = []  # each with what nobody reads after it
        for index, (step, dead) in enumerate(zip(code.steps, _last_read(code), strict=True)):
            if isinstance(step, MachineProgram):
                ticks = stopwatch.ticks[index] if stopwatch else 0
                run = self._context.runner(step.rows, step.images, ticks, graph.layout.is_shared, step.is_small)
            else:
                run = binding.step(step)
            self._steps.append((stopwatch.timed(index, run) if stopwatch else run, dead))
        self._passing = [*self._inputs, *(v for step in code.steps for v in _results(code, step))]

    def clean(self) -> None:
        """Write the zeros of absent biases again, after another plan used the memory."""
        self._zeros[...] = 0

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
