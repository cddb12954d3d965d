"""Replay: encode the nodes of a layout, as rows of a program or as calls from Python, and run them."""

import math
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
        self._keys: list[tuple[int, Any]] = []  # of dropout: a place in the table, and the key to be read
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
                steps.setdefault(node.phase, []).extend(self._encoded(node))
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

    def _encoded(self, node: Node) -> list[Any]:
        """Return the rows of the machine's program, or the call, for a node."""
        if node.kind in self.machine.POINTWISE:
            return [self._pointwise(node.kind, **node.options)]
        encoded = getattr(self, "_" + node.kind)(**node.options)
        return encoded if node.kind == "products" else [encoded]

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

    def _pointwise(
        self, kind: str, a: Block, b: Block, y: Block, terms: Region | None = None, number: float = 0.0,
        floor: float | None = None,
    ) -> list[int]:  # fmt: skip
        strides = (n for block in (a, b, y) for n in self._strides(block))
        last = self._number(number if floor is None else floor)
        blocks = [self._inside(block) for block in (a, b, y)]
        size = self._flat(a, b, y)
        return self._line(kind, blocks, *strides, *size, self.zeros if terms is None else terms.at, last)

    def _flat(self, *blocks: Block) -> tuple[int, int, int]:
        """Size of blocks of one size; without halos, their channels are one long row."""
        channels, height, width = blocks[0].size
        return (channels, height, width) if any(any(b.halo) for b in blocks) else (channels, 1, height * width)

    def _products(
        self, x: Block, y: Block, weight: Region, bias: Region | None, rows: Any, columns: Any, turned: bool,
        floor: float,
    ) -> list[list[int]]:  # fmt: skip
        """One instruction for each group of pixels that see the same taps."""
        lines = []
        outputs, inputs = weight.shape[:2]
        kernel = weight.shape[2:] or (1, 1)
        plane, row = self._strides(x)
        taps_of = int(np.prod(kernel))
        shape, _, wide = self.machine.tile_for(y.channels, single=y.height * y.width == 1)
        for down in rows:
            for right in columns:
                places = np.add.outer(np.array(down.places) * self._row(y), np.array(right.places) * self.lanes)
                starts = np.add.outer(np.array(down.starts) * row, np.array(right.starts) * self.lanes)
                seen = [(u * kernel[-1] + v, i * row + j * self.lanes) for u, i in down.taps for v, j in right.taps]
                factors, taps = np.array(seen or [(0, 0)]).T
                channels = np.arange(x.channels)[:, None]
                factors = channels * taps_of * (inputs if turned else 1) + factors
                taps = channels * plane + taps
                a, a_row = (weight.at, 0), taps_of * (1 if turned else inputs)
                if not seen:  # the bias alone
                    a, a_row, factors, taps = (self.zeros, 0), 0, factors[:1], taps[:1]
                lines.append(
                    self._line(
                        "products", [self._inside(y), a, self._inside(x)], shape, self._plane(y), a_row,
                        self._offsets(places, wide), self._offsets(starts, wide), self._offsets(factors),
                        self._offsets(taps), np.size(taps), np.size(places), y.channels,
                        self.zeros if bias is None else bias.at, self._number(floor),
                    )
                )  # fmt: skip
        return lines

    def _winograd(
        self, x: Block, y: Block, weight: Region, bias: Region | None, turned: bool, floor: float
    ) -> list[int]:
        strip = self.strip(x, y)
        shape = 0 if strip % self.machine.TILES[0][1] == 0 else 1
        _, outputs, inputs = weight.shape
        row, factors = (1, np.arange(outputs) * inputs) if turned else (inputs, np.arange(inputs))
        tiles, channels = np.arange(strip) * self.lanes, np.arange(x.channels) * strip * self.lanes
        return self._line(
            "winograd", [self._inside(x), (weight.at, 0), self._inside(y), (self.work, -1)], shape, *self._strides(x),
            x.channels, row, self._offsets(factors), turned, *self._strides(y), *y.size,
            self.zeros if bias is None else bias.at, self.zeros, self._number(floor), strip,
            self._offsets(tiles, self.machine.TILES[shape][1]), self._offsets(channels),
        )  # fmt: skip

    def _winograd_gradient(self, x: Block, gy: Block, sums: Region) -> list[int]:
        strip = self.strip(x, gy)
        _, rows, inputs = sums.shape
        shape, _, wide = self.machine.tile_for_matrix(gy.channels, inputs // self.lanes)
        places = np.arange(strip * self.lanes)
        return self._line(
            "winograd_gradient", [self._inside(x), self._inside(gy), (self.work, -1)], shape, *self._strides(x), inputs,
            *self._strides(gy), *gy.size, sums.at, sums.size, rows, strip,
            self._offsets(np.arange(0, inputs, self.lanes), wide), self._offsets(places),
            self._offsets(places * inputs),
        )  # fmt: skip

    def _winograd_operands(self, x: Block, gy: Block, seen: Region, made: Region) -> list[int]:
        return self._line(
            "winograd_operands", [self._inside(x), self._inside(gy), (self.work, -1)], *self._strides(x), x.channels,
            *self._strides(gy), gy.channels, gy.width, gy.height * gy.width // 4, seen.at, made.at, made.shape[2],
        )  # fmt: skip

    def _weight_gradient(self, gy: Block, x: Block, window: Any, partial: Region) -> list[int]:
        taps, starts, first = self._window(x, window, (gy.height, gy.width))
        shape, _, columns = self.machine.tile_for(gy.channels)
        pixels = np.arange(gy.height)[:, None] * self._row(gy) + np.arange(gy.width) * self.lanes
        return self._line(
            "weight_gradient",
            [self._inside(gy), first, (self.work, -1)],
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

    def _moments(self, x: Block, partial: Region) -> list[int]:
        return self._line("moments", [self._inside(x), (partial.at, partial.size)], *self._strides(x), *self._flat(x))

    def _norm_sums(self, gy: Block, x: Block, means: Region, partial: Region) -> list[int]:
        blocks = [self._inside(gy), self._inside(x)]
        sizes = (*self._strides(gy), *self._strides(x), *self._flat(gy, x))
        return self._line("norm_sums", blocks, *sizes, means.at, partial.at, partial.size)

    def _dropout(self, x: Block, y: Block, key: Any, p: float) -> list[int]:
        place = len(self._table)
        self._table.append(0)
        self._keys.append((place, key))
        sizes = (*self._strides(x), *self._strides(y), *y.size)
        blocks = [self._inside(x), self._inside(y)]
        return self._line("dropout", blocks, *sizes, place, round(p * 2**24), self._number(1 / (1 - p)))

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
            x = Block(*y.size, at=x.at, step=x.step)
        else:
            y = Block(*x.size, at=y.at, step=y.step)
        return self._pointwise("copy", x, x, y)

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

    def _filters(self, source: Value, region: Region) -> Callable[[], None]:
        out = self._view(region).reshape(16, -1)

        def run() -> None:
            weight = self.environment.get(source, source.array)
            np.matmul(self.machine.FILTER, weight.reshape(-1, 9).T, out=out)

        return run

    def _statistics(self, partial: Region, out: tuple[Region, Region], pixels: int) -> Callable[[], None]:
        """Mean and variance of the batch from those of its blocks (Chan et al., 1979)."""
        parts, mean, var = self._view(partial), self._view(out[0]), self._view(out[1])
        values = np.minimum(self.lanes, self.batch - np.arange(self.count) * self.lanes) * pixels
        shares = values / values.sum()

        def run() -> None:
            means = parts[:, 0].astype(np.float64)
            middle = shares @ means
            mean[...] = middle
            var[...] = parts[:, 1].sum(axis=0, dtype=np.float64) / values.sum() + shares @ (means - middle) ** 2

        return run

    def _affine_terms(self, values: list[Value | None], out: Region) -> Callable[[], None]:
        """Batch norm as p x + q."""
        scale, offset = self._view(out)

        def run() -> None:
            mean, inverse_std, weight, bias = self._arrays(values)
            scale[...] = inverse_std if weight is None else inverse_std * weight
            np.multiply(mean, scale, out=offset)
            np.subtract(0 if bias is None else bias, offset, out=offset)

        return run

    def _norm_terms(
        self, partial: Region, values: list[Value | None], out: list[Region], count: int | None
    ) -> Callable[[], None]:
        """The gradient of batch norm as p gy + q x + r, and those for weight and bias; count: None outside training."""
        parts = self._view(partial)
        (p, q, r), gweight, gbias = (self._view(region) for region in out)

        def run() -> None:
            mean, inverse_std, weight = self._arrays(values)
            np.add.reduce(parts[:, 0], axis=0, out=gbias)
            np.add.reduce(parts[:, 1], axis=0, out=gweight)
            np.multiply(gweight, inverse_std, out=gweight)
            p[...] = inverse_std if weight is None else inverse_std * weight
            if count is not None:
                np.multiply(p * inverse_std, gweight * np.float32(-1 / count), out=q)
                np.subtract(p * gbias * np.float32(-1 / count), q * mean, out=r)

        return run

    def _arrays(self, values: list[Value | None]) -> list[Any]:
        return [None if v is None else self.environment.get(v, v.array) for v in values]

    def _matrices(self, seen: Region, made: Region, sums: Region) -> Callable[[], None]:
        """sums[p] = made[p] seen[p] for 16 positions; rows of the result are the blocks of a small program."""
        _, rows, inputs = sums.shape
        _, outputs, length = made.shape
        shape, high, wide = self.machine.tile_for_matrix(outputs, inputs // self.lanes)
        columns = self._offsets(np.arange(0, inputs, self.lanes), wide)
        steps, places = self._offsets(np.arange(length) * inputs), self._offsets(np.arange(length))
        lines = [
            self._line(
                "products",
                [
                    (sums.at + p * rows * inputs, high * inputs),
                    (made.at + p * outputs * length, high * length),
                    (seen.at + p * length * inputs, 0),
                ],
                shape, inputs, length, columns, columns, places, steps, length, inputs // self.lanes, high, self.zeros,
                self._number(-np.inf),
            )
            for p in range(16)
        ]  # fmt: skip
        return self._runner(np.array(lines, dtype=np.int64), rows // high * self.lanes)

    def _unfilter(self, sums: Region, region: Region) -> Callable[[], None]:
        """The gradient of a filter from that of its transform, summed over the parts."""
        parts, out = self._view(sums), self._view(region)
        outputs = out.shape[0]

        def run() -> None:
            total = parts.sum(axis=0) if sums.parts else parts
            flat = total[:, :outputs].reshape(16, -1)
            np.matmul(flat.T, self.machine.FILTER, out=out.reshape(-1, 9))

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
        for action, _ in self.program.before:
            action()
        for place, key in self._keys:
            self.table[place] = np.array(key.value if isinstance(key, Live) else key, dtype=np.uint64).view(np.int64)
        try:
            for step in self.steps:
                step()
        except BaseException:
            self.program.undo()
            raise
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
                sweeps = node.options["rows"], node.options["columns"]
                pairs = (sum(len(s.places) * len(s.taps) for s in axis) for axis in sweeps)
                total += 2 * math.prod(pairs) * node.options["x"].channels * node.options["y"].channels * self.batch
            elif node.kind == "winograd":  # as convolution counts them
                y = node.options["y"]
                total += 2 * 9 * node.options["x"].channels * math.prod(y.size) * self.batch
            elif node.kind == "weight_gradient":
                gy = node.options["gy"]
                total += 2 * node.options["partial"].size * gy.height * gy.width * self.batch
            elif node.kind == "winograd_gradient" or node.kind == "winograd_operands":
                gy = node.options["gy"]
                total += 2 * 9 * node.options["x"].channels * math.prod(gy.size) * self.batch
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
