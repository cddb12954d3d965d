"""Encode: block instructions as rows of the machine's program, one method a kind of node."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

import numpy as np

from minicnn.compile.layout import Layout
from minicnn.compile.lower import Block, Node, Region
from minicnn.compile.program import Program, Value


@dataclass(frozen=True)
class Instructions:
    """A program of the machine, int64 (instructions, WIDTH), and over how many images it runs."""

    rows: np.ndarray
    images: int


class Encoding(Layout):
    """A layout, and the tables that its instructions refer to.

    Attributes:
        steps: what a replay does, in order: programs of the machine, and nodes that Python calls.
        table: int64, the lists of offsets; numbers: float32.
        keys: places in the table that are read anew by each replay, and what they hold: the keys of dropout.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.keys: list[tuple[int, Any]] = []
        self._table: list[int] = []
        self._tables: dict[tuple[int, ...], int] = {}
        self._numbers = [0.0]
        self.steps: list[Instructions | Node] = []
        images = self.count * self.machine.LANES if self.lanes == 1 else self.batch  # the machine counts in its lanes
        nodes = sorted((node for node in self.nodes if node.kind != "same"), key=lambda node: node.phase)
        for phase, members in groupby(nodes, key=lambda node: node.phase):
            if phase % 2:
                rows = [row for node in members for row in self._encoded(node)]
                self.steps.append(Instructions(np.array(rows, dtype=np.int64), images))
            else:
                self.steps += [
                    getattr(self, "_" + node.kind)(**node.options) if node.kind in ("matrix", "matrices") else node
                    for node in members
                ]
        self.table = np.array(self._table, dtype=np.int64)
        self.numbers = np.array(self._numbers, dtype=np.float32)

    def passing(self) -> list[Value]:
        """Return the Values that have an array of their own in each replay: inputs, and results of calls."""
        return [*self.program.inputs, *(v for step in self.steps for v in self.results_of_calls(step))]

    def results_of_calls(self, step: Instructions | Node) -> list[Value]:
        """Return the arrays that a step makes outside of the plan's memory."""
        made = step.options["call"].outputs if isinstance(step, Node) and step.kind == "call" else ()
        return [v for v in made if v.call is not None and v not in self.regions]

    def last_read(self) -> list[list[Value]]:
        """Return for each step the results of calls that nothing reads after it; results of the plan stay."""
        last = {v: i for i, step in enumerate(self.steps) for v in self.results_of_calls(step)}
        for i, step in enumerate(self.steps):
            last |= {v: i for v in (step.reads if isinstance(step, Node) else ()) if v in last}
        return [
            [v for v, j in last.items() if j == i and v not in self.program.outputs] for i in range(len(self.steps))
        ]

    def _encoded(self, node: Node) -> list[list[int]]:
        """Return the rows of the machine's program for a node."""
        if node.kind in self.machine.POINTWISE:
            return [self._pointwise(node.kind, **node.options)]
        encoded = getattr(self, "_" + node.kind)(**node.options)
        return encoded if node.kind in ("products", "weight_gradient", "reshape") else [encoded]

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
        return len(self._numbers) - 1

    def _interleave(self, y: Block, region: Region | None) -> list[int]:
        at = -1 if region is None else region.at
        if self.lanes == 1:
            return self._line("fetch", [self._inside(y)], *self._strides(y), *y.size, at)
        return self._line("interleave", [self._inside(y)], at, *self._strides(y), *y.size)

    def _deinterleave(self, x: Block, region: Region) -> list[int]:
        if self.lanes == 1:
            return self._line("put", [self._inside(x)], *self._strides(x), *x.size, region.at)
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
        """One instruction for each group of pixels that see the same taps, at each point of a transform."""
        lines = []
        outputs, inputs, *kernel = weight.shape if x.points == 1 else weight.shape[1:]
        kernel_width, taps_of = (kernel or [1])[-1], math.prod(kernel)
        plane, row = self._strides(x)
        shape, _, wide = self.machine.tile_for(y.channels, single=y.height * y.width == 1)
        (source, step), (result, result_step) = self._inside(x), self._inside(y)
        for point, down, right in product(range(x.points), rows, columns):
            if self.lanes == 1:
                right = self._vectors(right)
            places = np.add.outer(np.array(down.places) * self._row(y), np.array(right.places) * self.lanes)
            starts = np.add.outer(np.array(down.starts) * row, np.array(right.starts) * self.lanes)
            seen = [(u * kernel_width + v, i * row + j * self.lanes) for u, i in down.taps for v, j in right.taps]
            factors, taps = np.array(seen or [(0, 0)]).T
            channels = np.arange(x.channels)[:, None]
            factors = channels * taps_of * (inputs if turned else 1) + factors
            taps = channels * plane + taps
            a_row, factor = taps_of * (1 if turned else inputs), weight.at + point * outputs * inputs * taps_of
            operands = [(factor, 0), (source + point * x.channels * plane, step)]
            if not seen:  # the bias alone
                operands = [(self.zeros, 0), (self.zeros, 0)]
                a_row, factors, taps, starts = 0, factors[:1], taps[:1], 0 * starts
            lines.append(
                self._line(
                    "products", [(result + point * y.channels * self._plane(y), result_step), *operands], shape,
                    self._plane(y), a_row, self._offsets(places, wide), self._offsets(starts, wide),
                    self._offsets(factors), self._offsets(taps), np.size(taps), np.size(places), y.channels,
                    self.zeros if bias is None else bias.at, self._number(floor),
                )
            )  # fmt: skip
        return lines

    def _vectors(self, row: Any) -> Any:
        """Of a row of pixels those where vectors begin; the last may overlap."""
        last = len(row.places) - self.machine.LANES
        picked = sorted({*range(0, last, self.machine.LANES), last})
        return replace(row, places=[row.places[j] for j in picked], starts=[row.starts[j] for j in picked])

    def _linear_single(self, x: Block, y: Block, weight: Region, bias: Region | None, floor: float) -> list[int]:
        blocks = [self._inside(x), (weight.at, 0), self._inside(y)]
        offset = self.zeros if bias is None else bias.at
        return self._line("linear_single", blocks, x.channels, offset, y.channels, self._number(floor))

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
            *self._strides(gy), gy.channels, gy.width, 0, gy.height * gy.width // 4, seen.at, made.at, made.shape[2],
        )  # fmt: skip

    def _weight_gradient(self, gy: Block, x: Block, window: Any, partial: Region) -> list[list[int]]:
        """One instruction for each point of a transform."""
        taps, starts, (first, step) = self._window(x, window, (gy.height, gy.width))
        shape, columns = 0, self.machine.TILES[0][1]  # the fewer rows, the more of gy stays in the cache
        pixels = np.arange(gy.height)[:, None] * self._row(gy) + np.arange(gy.width) * self.lanes
        factors, factors_step = self._inside(gy)
        number = np.size(taps)
        return [
            self._line(
                "weight_gradient",
                [
                    (factors + point * gy.channels * self._plane(gy), factors_step),
                    (first + point * x.channels * self._plane(x), step),
                    (self.work, -1),
                ],
                shape, partial.at + point * gy.channels * number, partial.size, number, self._plane(gy),
                self._offsets(np.arange(columns) * self.lanes), self._offsets(taps, columns), self._offsets(pixels),
                self._offsets(starts), np.size(starts), number, gy.channels, self.zeros,
            )
            for point in range(gy.points)
        ]  # fmt: skip

    def _spread_rows(self, x: Block, y: Block, padding: int) -> list[int]:
        return self._of_rows("spread_rows", x, y, x, y.width, padding)

    def _spread_rows_grad(self, x: Block, y: Block, padding: int) -> list[int]:
        return self._of_rows("spread_rows_grad", x, y, y, x.width, padding)

    def _gather_rows(self, x: Block, y: Block, bias: Region | None, floor: float) -> list[int]:
        offset = self.zeros if bias is None else bias.at
        return self._of_rows("gather_rows", x, y, y, x.width, offset, self._number(floor))

    def _gather_rows_grad(self, x: Block, y: Block) -> list[int]:
        return self._of_rows("gather_rows_grad", x, y, x, y.width)

    def _of_rows(self, kind: str, x: Block, y: Block, plain: Block, tiles: int, *rest: int) -> list[int]:
        blocks, strides = [self._inside(x), self._inside(y)], (*self._strides(x), *self._strides(y))
        return self._line(kind, blocks, *strides, *plain.size, tiles, *rest)

    def _channel_sums(self, x: Block, partial: Region) -> list[int]:
        return self._line("channel_sums", [self._inside(x)], *self._strides(x), *x.size, partial.at, partial.size)

    def _max_pool(self, x: Block, y: Block, window: Any, stride: Any, floor: float) -> list[int]:
        geometry = (*self._strides(x), *self._strides(y), *y.size, *window, *stride)
        name = "max_pool_single" if self.lanes == 1 else "max_pool"
        return self._line(name, [self._inside(x), self._inside(y)], *geometry, self._number(floor))

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

    def _avg_pool(self, x: Block, y: Block, rows: Region, columns: Region) -> list[int]:
        blocks = [self._inside(x), self._inside(y)]
        return self._line("avg_pool", blocks, *self._strides(x), *x.size, rows.at, columns.at, self._plane(y))

    def _avg_pool_grad(self, x: Block, y: Block, rows: Region, columns: Region) -> list[int]:
        blocks = [self._inside(x), self._inside(y)]
        return self._line("avg_pool_grad", blocks, self._plane(x), *self._strides(y), *y.size, rows.at, columns.at)

    def _moments(self, x: Block, partial: Region) -> list[int]:
        return self._line("moments", [self._inside(x), (partial.at, partial.size)], *self._strides(x), *self._flat(x))

    def _norm_sums(self, gy: Block, x: Block, means: Region, partial: Region) -> list[int]:
        blocks = [self._inside(gy), self._inside(x)]
        sizes = (*self._strides(gy), *self._strides(x), *self._flat(gy, x))
        return self._line("norm_sums", blocks, *sizes, means.at, partial.at, partial.size)

    def _dropout(self, x: Block, y: Block, key: Any, p: float) -> list[int]:
        place = len(self._table)
        self._table.append(0)
        self.keys.append((place, key))
        sizes = (*self._strides(x), *self._strides(y), *y.size)
        blocks = [self._inside(x), self._inside(y)]
        return self._line("dropout", blocks, *sizes, place, round(p * 2**24), self._number(1 / (1 - p)))

    def _cross_entropy(self, x: Block, y: Block, losses: Region, smoothing: float) -> list[int]:
        return self._line(
            "cross_entropy",
            [self._inside(x), self._inside(y)],
            x.channels,
            self._number(smoothing),
            losses.at,
            self._plane(x),
            self._plane(y),
        )

    def _cross_entropy_grad(self, x: Block, y: Block, glosses: Region, smoothing: float) -> list[int]:
        return self._line(
            "cross_entropy_grad",
            [self._inside(x), self._inside(y)],
            x.channels,
            self._number(smoothing),
            glosses.at,
            self._plane(x),
            self._plane(y),
        )

    def _reshape(self, x: Block, y: Block, via: Region | None) -> list[list[int]]:
        if via is not None:
            return [self._deinterleave(x, via), self._interleave(y, via)]
        if x.halo == (0, 0):  # then y has one
            x = Block(*y.size, at=x.at, step=x.step)
        else:
            y = Block(*x.size, at=y.at, step=y.step)
        return [self._pointwise("copy", x, x, y)]

    def _matrices(self, seen: Region, made: Region, sums: Region) -> Instructions:
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
        return Instructions(np.array(lines, dtype=np.int64), rows // high * self.lanes)

    def _matrix(self, gy: Region, x: Region, region: Region) -> Instructions:
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
        return Instructions(np.array([line], dtype=np.int64), -(-outputs // high) * self.lanes)
