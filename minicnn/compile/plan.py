"""Replay: encode the nodes of a layout, as rows of a program or as calls from Python, and run them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minicnn.compile.layout import Layout
from minicnn.compile.lower import Block, Node, Region
from minicnn.compile.record import Live, Program, Value
from minicnn.tensor import Tensor


class Plan(Layout):
    """A recorded run, ready to be repeated on other inputs of the same shapes."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._table: list[int] = []
        self._tables: dict[tuple[int, ...], int] = {}
        self._numbers: list[float] = []
        self._encode()

    # Encoding

    def _encode(self) -> None:
        self.environment: dict[Value, Any] = {}
        for value, region in self.regions.items():
            self.environment[value] = self._view(region)
        self.steps: list[Callable[[], None]] = []
        self.programs: list[np.ndarray] = []
        self.images = np.zeros((1, 1, 1, 1), dtype=np.float32)
        self.labels = np.zeros(1, dtype=np.int64)
        steps: dict[int, list[Any]] = {}
        for node in self.nodes:
            if node.kind != "same":
                steps.setdefault(node.phase, []).append(self._encoded(node))
        self.table = np.zeros(0, dtype=np.int64)
        for phase in sorted(steps):
            if phase % 2:
                self.steps.append(self._runner(np.array(steps[phase], dtype=np.int64), self.batch))
            else:
                self.steps += steps[phase]
        self.table = np.array(self._table, dtype=np.int64)
        self.numbers = np.array([0.0, *self._numbers], dtype=np.float32)

    def _runner(self, program: np.ndarray, count: int) -> Callable[[], None]:
        self.programs.append(program)

        def run() -> None:
            self.machine.run(program, self.memory, self.room, self.table, self.images, self.labels, self.numbers, count)

        return run

    def _encoded(self, node: Node) -> Any:
        return getattr(self, "_" + node.kind)(**node.options)

    def _line(self, operation: str, operands: Sequence[tuple[int, int]], *rest: int) -> list[int]:
        line = [self.machine.OPERATIONS.index(operation), *(n for pair in operands for n in pair)]
        line += [0] * (9 - len(line)) + [int(r) for r in rest]
        return line + [0] * (self.machine.WIDTH - len(line))

    def _offsets(self, values: Any, multiple: int = 1) -> int:
        """Where a list of offsets stands in the table; the last is repeated up to a multiple."""
        key = [int(v) for v in np.ravel(values)]
        key += [key[-1]] * (-len(key) % multiple)
        if tuple(key) not in self._tables:
            self._tables[tuple(key)] = len(self._table)
            self._table += key
        return self._tables[tuple(key)]

    def _number(self, value: float) -> int:
        self._numbers.append(value)
        return len(self._numbers)

    # One method a kind of node: block instructions

    def _interleave(self, y: Block, region: Region | None) -> list[int]:
        return self._line(
            "interleave", [self._inside(y)], -1 if region is None else region.at, *self._strides(y), *y.size
        )

    def _deinterleave(self, x: Block, region: Region) -> list[int]:
        return self._line("deinterleave", [self._inside(x)], *self._strides(x), *x.size, region.at)

    def _copy(self, x: Block, y: Block, spacing: tuple[int, int]) -> list[int]:
        return self._line(
            "copy", [self._inside(x), self._inside(y)], *self._strides(x), *self._strides(y), *x.size, *spacing
        )

    def _products(
        self, x: Block, y: Block, weight: Region, bias: Region | None, window: Any, turned: bool, floor: float
    ) -> list[int]:
        pixels = y.height * y.width
        shape, _, columns = self.machine.tile_for(y.channels, single=pixels == 1)
        outputs, inputs = weight.shape[:2]
        if window is None:
            starts, first = np.zeros(1, dtype=int), (x.at, x.step)
            taps = np.arange(x.channels) * self.lanes
            factors = np.arange(outputs) * inputs if turned else np.arange(inputs)
            row = 1 if turned else inputs
            places = np.zeros(1, dtype=int)
        else:
            taps, starts, first = self._window(x, window, (y.height, y.width))
            kernel = int(np.prod(window[0]))
            if turned:
                factors = np.arange(outputs)[:, None] * inputs * kernel + np.arange(kernel)[::-1]
                row = kernel
            else:
                factors = np.arange(inputs * kernel)
                row = inputs * kernel
            places = np.arange(y.height)[:, None] * self._row(y) + np.arange(y.width) * self.lanes
        return self._line(
            "products",
            [self._inside(y), (weight.at, 0), first],
            shape,
            self._plane(y),
            row,
            self._offsets(places, columns),
            self._offsets(starts, columns),
            self._offsets(factors),
            self._offsets(taps),
            np.size(taps),
            pixels,
            y.channels,
            self.zeros if bias is None else bias.at,
            self._number(floor),
        )

    def _weight_gradient(self, gy: Block, x: Block, window: Any, partial: Region) -> list[int]:
        taps, starts, first = self._window(x, window, (gy.height, gy.width))
        shape, _, columns = self.machine.tile_for(gy.channels)
        pixels = np.arange(gy.height)[:, None] * self._row(gy) + np.arange(gy.width) * self.lanes
        return self._line(
            "weight_gradient",
            [self._inside(gy), first, (self.sums, -1)],
            shape,
            partial.at,
            partial.size,
            np.size(taps),
            self._plane(gy),
            self._offsets(np.arange(columns) * self.lanes),
            self._offsets(taps, columns),
            self._offsets(pixels),
            self._offsets(starts),
            np.size(starts),
            np.size(taps),
            gy.channels,
            self.zeros,
        )

    def _channel_sums(self, x: Block, partial: Region) -> list[int]:
        return self._line("channel_sums", [self._inside(x)], *self._strides(x), *x.size, partial.at, partial.size)

    def _max_pool(self, x: Block, y: Block, window: Any, stride: Any, floor: float) -> list[int]:
        geometry = (*self._strides(x), *self._strides(y), *y.size, *window, *stride)
        return self._line("max_pool", [self._inside(x), self._inside(y)], *geometry, self._number(floor))

    def _max_pool_grad(
        self, gy: Block, x: Block, y: Block, gx: Block, window: Any, stride: Any, floor: float
    ) -> list[int]:
        strides = (n for block in (gy, x, y, gx) for n in self._strides(block))
        return self._line(
            "max_pool_grad",
            [self._inside(block) for block in (gy, x, y, gx)],
            *strides,
            *y.size,
            *window,
            *stride,
            gx.height,
            gx.width,
            self._number(floor),
        )

    def _relu(self, x: Block, y: Block) -> list[int]:
        return self._line("relu", [self._inside(x), self._inside(y)], *self._strides(x), *self._strides(y), *y.size)

    def _relu_grad(self, gy: Block, y: Block, gx: Block) -> list[int]:
        strides = (n for block in (gy, y, gx) for n in self._strides(block))
        return self._line("relu_grad", [self._inside(block) for block in (gy, y, gx)], *strides, *gx.size)

    def _cross_entropy(self, x: Block, y: Block, losses: Region, smoothing: float) -> list[int]:
        return self._line(
            "cross_entropy", [(x.at, x.step), (y.at, y.step)], x.channels, self._number(smoothing), losses.at
        )

    def _cross_entropy_grad(self, x: Block, y: Block, glosses: Region, smoothing: float) -> list[int]:
        return self._line(
            "cross_entropy_grad", [(x.at, x.step), (y.at, y.step)], x.channels, self._number(smoothing), glosses.at
        )

    def _reshape(self, x: Block, y: Block) -> list[int]:
        if x.halo == (0, 0):  # then y has one
            return self._copy(Block(*y.size, at=x.at, step=x.step), y, (1, 1))
        return self._copy(x, Block(*x.size, at=y.at, step=y.step), (1, 1))

    # One method a kind of node: calls from Python

    def _call(self, call: Any) -> Callable[[], None]:
        environment = self.environment
        if call.kernel == "inspect":
            seen, action = call.arguments
            return lambda: action(environment.get(seen, seen.array))
        kernel = getattr(self.program.backend.kernels, call.kernel)

        def value(argument: Any) -> Any:
            if isinstance(argument, Value):
                return environment.get(argument, argument.array)
            if isinstance(argument, list | tuple):
                return type(argument)(value(a) for a in argument)
            return argument.value if isinstance(argument, Live) else argument

        def run() -> None:
            result = kernel(*(value(a) for a in call.arguments))
            results = result if isinstance(result, tuple) else (result,)
            environment.update(zip(call.outputs, results, strict=False))

        return run

    def _load(self, source: Value, region: Region) -> Callable[[], None]:
        view = self._view(region)
        return lambda: np.copyto(view, self.environment.get(source, source.array))

    def _reduce(self, partial: Region, region: Region) -> Callable[[], None]:
        parts, out = self._view(partial), self._view(region)

        def run() -> None:
            np.add.reduce(parts, axis=0, out=out)

        return run

    def _matrix(self, gy: Region, x: Region, region: Region) -> Callable[[], None]:
        """gy^T x: rows of the result are the blocks of a small program."""
        outputs, inputs = region.shape
        high, wide = self.machine.TILES[0]
        columns = [
            *range(0, inputs - self.lanes + 1, self.lanes),
            *([inputs - self.lanes] if inputs % self.lanes else []),
        ]
        line = self._line(
            "products",
            [(region.at, high * inputs), (gy.at, high), (x.at, 0)],
            0,
            inputs,
            1,
            self._offsets(columns, wide),
            self._offsets(columns, wide),
            self._offsets(np.arange(self.batch) * outputs),
            self._offsets(np.arange(self.batch) * inputs),
            self.batch,
            len(columns),
            high,
            self.zeros,
            self._number(-np.inf),
        )
        return self._runner(np.array([line], dtype=np.int64), -(-outputs // high) * self.lanes)

    # Replay

    def __call__(self, *arrays: Any) -> Any:
        """Run on arrays of the recorded shapes and dtypes; return the results as new tensors."""
        for value, array in zip(self.program.inputs, arrays, strict=True):
            if value is self.direct[0]:
                self.environment[value] = self.images = np.require(array, requirements=["C", "W"])
            else:
                np.copyto(value.array, array)
                if value is self.direct[1]:
                    self.labels = value.array
        for action in self.program.before:
            action()
        self.memory[self.partials : self.partials_end] = 0
        for step in self.steps:
            step()
        results = [Tensor(np.array(self.environment.get(v, v.array))) for v in self.program.outputs]
        return results[0] if self.program.single else tuple(results)

    # For people

    def __repr__(self) -> str:
        scratch, memory = self.room * 4 / 1024, self.memory.nbytes / 2**20
        lines = [
            f"plan: {self.batch} images in {self.count} blocks of {self.lanes}, {self.flop() / 1e6:,.1f} MFLOP, "
            f"memory {memory:,.1f} MiB, of which {scratch:,.0f} KiB scratch a thread"
        ]
        for phase in sorted({node.phase for node in self.nodes}):
            lines.append(f"phase {phase}: " + ("the machine, block by block" if phase % 2 else "calls from Python"))
            for node in self.nodes:
                if node.phase == phase:
                    ends = (" ".join(map(_described, things)) for things in (node.reads, node.writes))
                    lines.append(f"  {_title(node):<20} {' -> '.join(ends)}")
        return "\n".join(lines)

    def to_dot(self) -> str:
        """Return the program as a graph in the DOT language: nodes in boxes, a cluster for each phase."""
        lines = ["digraph plan {", "  rankdir=TB; node [shape=box, fontname=monospace];"]
        made: dict[Any, int] = {}
        edges = []
        phases: dict[int, list[str]] = {}
        for index, node in enumerate(self.nodes):
            phases.setdefault(node.phase, []).append(f'n{index} [label="{_title(node)}"];')
            edges += [f'  n{made[r]} -> n{index} [label="{_described(r)}"];' for r in node.reads if r in made]
            made.update((w, index) for w in node.writes)
        for phase, members in sorted(phases.items()):
            lines.append(f'  subgraph cluster_{phase} {{ label="phase {phase}"; {" ".join(members)} }}')
        return "\n".join([*lines, *edges, "}"])

    def flop(self) -> int:
        """Return the floating-point operations of a replay in convolutions and linear layers; 2 a multiply-add."""
        total = 0
        for node in self.nodes:
            if node.kind == "products":
                outputs, inputs = node.options["weight"].shape[:2]
                y, window = node.options["y"], node.options["window"]
                taps = (outputs if node.options["turned"] else inputs) * (int(np.prod(window[0])) if window else 1)
                total += 2 * taps * y.channels * y.height * y.width * self.batch
            elif node.kind == "weight_gradient":
                gy = node.options["gy"]
                total += 2 * node.options["partial"].size * gy.height * gy.width * self.batch
            elif node.kind == "matrix":
                total += 2 * node.options["region"].size * self.batch
        return total


def _title(node: Node) -> str:
    return node.options["call"].kernel if node.kind == "call" else node.kind


def _described(thing: Any) -> str:
    """A thing's shape, and where it lives: blocks in scratch or memory, a plain region, an array of its own."""
    if isinstance(thing, Block):
        halo = f"+{thing.halo[0]},{thing.halo[1]}" if any(thing.halo) else ""
        return f"{'scratch' if thing.step < 0 else 'blocks'}{list(thing.size)}{halo}"
    return f"{'plain' if isinstance(thing, Region) else 'array'}{list(thing.shape)}"
