"""Profile: where the time of a replay goes, by instruction, kernel and layer.

Python's calls are timed by the clock. Inside a program of the machine each thread counts the ticks of the processor
that each instruction takes, and the time of the program is shared out by them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from minicnn.compile.encode import Code, MachineProgram
from minicnn.compile.graph import Node
from minicnn.compile.program import Call
from minicnn.text import aligned, html_table

_COLUMNS = ("layer", "kernel", "ms", "share", "GFLOP/s", "GB/s", "instructions")
_NUMBERS = range(2, 6)
"""Those of the columns that hold numbers."""


class Stopwatch:
    """What the steps of a plan have taken.

    Attributes:
        seconds: of each step.
        ticks: by the index of a program those of each instruction, int64 (PARTS, instructions), a row for each thread.
    """

    def __init__(self, code: Code) -> None:
        self.seconds = np.zeros(len(code.steps))
        self.ticks = {
            index: np.zeros((code.machine.PARTS, len(step.rows)), dtype=np.int64)
            for index, step in enumerate(code.steps)
            if isinstance(step, MachineProgram)
        }

    def reset(self) -> None:
        """Begin anew."""
        for array in (self.seconds, *self.ticks.values()):
            array[...] = 0

    def timed(self, index: int, step: Callable[[], None]) -> Callable[[], None]:
        """Return a step that adds up its time."""

        def run() -> None:
            start = perf_counter()
            step()
            self.seconds[index] += perf_counter() - start

        return run

    def shares(self, index: int) -> np.ndarray:
        """Return the seconds of each instruction of a step, or of a call from Python as one."""
        if index not in self.ticks:
            return self.seconds[index : index + 1]
        sums = self.ticks[index].sum(axis=0)
        return self.seconds[index] * sums / max(sums.sum(), 1)


@dataclass(frozen=True)
class Row:
    """What one kernel of one layer takes in a replay.

    Attributes:
        layer: the name of the layer, "" outside of all; kernel: that of the recorded call.
        instructions: the names of what the plan made of it.
        milliseconds: of a replay; share: of all its time, from 0 to 1.
        gflops: 10^9 floating-point operations a second, 2 a multiply-add, 0 of a kernel that memory bounds.
        gbs: 10^9 bytes a second of arguments and results, each counted once.
    """

    layer: str
    kernel: str
    instructions: tuple[str, ...]
    milliseconds: float
    share: float
    gflops: float
    gbs: float


class Profile:
    """A table of a plan's kernels, in the order of their first calls.

    Attributes:
        rows: a :class:`Row` for each kernel of each layer.
        milliseconds: mean of a replay.
    """

    def __init__(self, rows: Sequence[Row], replays: int) -> None:
        self.rows, self.replays = tuple(rows), replays
        self.milliseconds = sum(row.milliseconds for row in rows)

    def layers(self) -> dict[str, tuple[float, float]]:
        """Return the milliseconds of each layer, forward and backward; "others" for what belongs to none."""
        found: dict[str, tuple[float, float]] = {}
        for row in self.rows:
            forward, backward = found.get(row.layer or "others", (0.0, 0.0))
            is_backward = "_grad" in row.kernel
            times = forward + row.milliseconds * (not is_backward), backward + row.milliseconds * is_backward
            found[row.layer or "others"] = times
        return found

    def __str__(self) -> str:
        rows = [[f"{cell:.1%}" if isinstance(cell, float) else cell for cell in cells] for cells in self._cells()]
        return "\n".join([*aligned([_COLUMNS, *rows], _NUMBERS), self._total()])

    def _repr_html_(self) -> str:
        return html_table(self._total(), _COLUMNS, self._cells(), _NUMBERS)

    def _cells(self) -> list[tuple[str | float, ...]]:
        """Return the text of each row; its share as the number."""
        rates = [(f"{row.gflops:.1f}" if row.gflops else "", f"{row.gbs:.1f}") for row in self.rows]
        return [
            (row.layer, row.kernel, f"{row.milliseconds:.3f}", row.share, *rate, " ".join(row.instructions))
            for row, rate in zip(self.rows, rates, strict=True)
        ]

    def _total(self) -> str:
        return f"{self.milliseconds:.3f} ms a replay, the mean of {self.replays}"


def profiled(code: Code, stopwatch: Stopwatch, replays: int) -> Profile:
    """Return the table of what a stopwatch has seen in so many replays."""
    times: dict[tuple[str, str], float] = {}
    calls: dict[tuple[str, str], dict[Call, None]] = {}
    names: dict[tuple[str, str], dict[str, None]] = {}
    for index, step in enumerate(code.steps):
        nodes = step.nodes if isinstance(step, MachineProgram) else (step,)
        shares = stopwatch.shares(index)
        for node, seconds in zip(nodes, shares, strict=True):
            for call, part in _calls(node):
                key = call.layer, call.kernel
                times[key] = times.get(key, 0.0) + seconds * part
                calls.setdefault(key, {})[call] = None
                names.setdefault(key, {})["python" if node.kind == "call" else node.kind] = None
    whole = sum(times.values()) or 1.0
    rows = []
    order = {(call.layer, call.kernel): i for i, call in reversed(list(enumerate(code.graph.program.calls)))}
    for key, seconds in sorted(times.items(), key=lambda item: order[item[0]]):
        once = float(seconds) / replays
        flop, moved = sum(call.flop() or 0 for call in calls[key]), sum(call.bytes() for call in calls[key])
        rates = (number / once / 1e9 if once else 0.0 for number in (flop, moved))
        rows.append(Row(*key, tuple(names[key]), 1e3 * once, float(seconds / whole), *rates))
    return Profile(rows, replays)


def _calls(node: Node) -> Iterable[tuple[Call, float]]:
    """Yield the recorded calls that a node does, with their parts of its time."""
    calls: Sequence[Any] = node.operands.get("calls", [node.call])
    sizes = [math.prod(call.arguments[0].shape) if len(calls) > 1 else 1 for call in calls]
    for call, size in zip(calls, sizes, strict=True):
        yield call, size / sum(sizes)
