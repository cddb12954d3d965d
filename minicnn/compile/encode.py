"""Encode: nodes as rows of programs of the machine, each operand by its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from minicnn.compile import amx, tokens
from minicnn.compile.allocate import Allocation, strip
from minicnn.compile.constants import Constants
from minicnn.compile.graph import Block, Graph, Node, Region
from minicnn.compile.matrices import PRODUCTS, outside
from minicnn.compile.planes import EXPANDED, Operands
from minicnn.compile.program import Value
from minicnn.compile.schedule import Schedule

_SMALL = 2e6
"""Floating-point operations of a program that the threads share, below which one does them all."""


@dataclass(frozen=True)
class MachineProgram:
    """A program of the machine.

    Attributes:
        rows: int64 (instructions, WIDTH).
        images: over how many it runs.
        nodes: of each row, what it is a part of.
        is_small: whether the threads would gain less by sharing it than they wait for each other.
    """

    rows: np.ndarray
    images: int
    nodes: tuple[Node, ...]
    is_small: bool = False


@dataclass(frozen=True)
class Code:
    """What a replay does, and what that was made of.

    Attributes:
        steps: in order: programs of the machine, and nodes that Python calls.
        table: int64, the lists of offsets that instructions refer to; numbers: float32.
        dropout_keys: places in the table that each replay reads anew, and what they hold.
    """

    graph: Graph
    phases: Schedule
    allocation: Allocation
    machine: Any
    constants: Constants
    steps: tuple[MachineProgram | Node, ...]
    table: np.ndarray
    numbers: np.ndarray
    dropout_keys: tuple[tuple[int, Any], ...]


def encode(phases: Schedule, allocation: Allocation, graph: Graph, constants: Constants, machine: Any) -> Code:
    """Return the steps of the phases: odd ones are a program each, of even ones every node is a step."""
    encoder = _Encoder(allocation, graph, constants, machine)
    steps: list[MachineProgram | Node] = []
    for phase, nodes in enumerate(phases):
        if phase % 2 and nodes:
            rows: list[list[int]] = []
            parts: list[Node] = []
            for node in nodes:
                pieces = [*encoder.rows(node)]
                rows += [machine.after(row, len(rows)) for row in pieces]
                parts += [node] * len(pieces)
            steps.append(_program(rows, graph.program.batch, parts, graph.layout.is_shared))
        else:
            steps += [encoder.product(node) if node.kind in PRODUCTS else node for node in nodes]
    table, numbers = np.array(encoder.table, dtype=np.int64), np.array(encoder.numbers, dtype=np.float32)
    keys = tuple(encoder.dropout_keys)
    return Code(graph, phases, allocation, machine, constants, tuple(steps), table, numbers, keys)


def _program(rows: list[list[int]], images: int, nodes: list[Node], is_shared: bool = False) -> MachineProgram:
    flop = sum(call.flop() or 0 for call in dict.fromkeys(node.call for node in nodes if node.call))
    return MachineProgram(np.array(rows, dtype=np.int64), images, tuple(nodes), is_shared and flop < _SMALL)


class _Encoder:
    """The tables that rows refer to, as far as they are filled."""

    def __init__(self, allocation: Allocation, graph: Graph, constants: Constants, machine: Any) -> None:
        self.allocation, self.graph, self.constants, self.machine = allocation, graph, constants, machine
        self.lanes = allocation.lanes
        self.table: list[int] = []
        self.numbers = [0.0]
        self.dropout_keys: list[tuple[int, Any]] = []
        self._lists: dict[tuple[int, ...], int] = {}
        self._framed: set[Block] = set()
        self.work = allocation.work, -1
        self.made = allocation.work + machine.FILTER_WORK  # by the products of a program of their own

    def rows(self, node: Node) -> Iterator[list[int]]:
        """Yield the rows of a node: one for each set of operands that it stands for.

        Before the first that writes to a block with a halo its zeros are written: others may have had its place.
        """
        for block in node.writes:
            if isinstance(block, Block) and self.allocation.halos[block] != (0, 0) and block not in self._framed:
                self._framed.add(block)
                planes, place = block.points * block.channels, self.allocation.places[block]
                size, halo = (planes, block.height, block.width), self.allocation.halos[block]
                yield self.row("frame", {"size": size, "halo": halo, "y": place})
        expand = _EXPANDED.get(node.kind, lambda encoder, **operands: [operands])
        for operands in expand(self, **node.operands):
            yield self.row(node.kind, operands)

    def product(self, node: Node) -> MachineProgram:
        """Return a small program for a product of matrices, whose blocks are rows of the result."""
        instructions, blocks = PRODUCTS[node.kind](self, **node.operands)
        lines = [self.row(kind, operands) for kind, operands in instructions]
        return _program(lines, blocks * self.machine.LANES, [node] * len(lines))

    def row(self, kind: str, operands: Operands) -> list[int]:
        """Return a row from the values of its operands."""
        kinds = self.machine.INSTRUCTIONS[kind].operands
        if "pixels" in kinds.values() and "size" not in operands:
            operands = operands | {"size": self._pixels([v for v in operands.values() if isinstance(v, Block)])}
        return self.machine.row(kind, **{name: self._words(kinds.get(name, ""), v) for name, v in operands.items()})

    def offsets(self, values: Any, multiple: int = 1) -> int:
        """Return where a list of offsets stands in the table; its last is repeated up to a multiple."""
        key = [int(v) for v in np.ravel(values)]
        key += [key[-1]] * (-len(key) % multiple)
        if tuple(key) not in self._lists:
            self._lists[tuple(key)] = len(self.table)
            self.table += key
        return self._lists[tuple(key)]

    def _words(self, kind: str, value: Any) -> tuple[int, ...]:
        """Return the words of an operand in a row."""
        if kind == "number":
            self.numbers.append(value)
            return (len(self.numbers) - 1,)
        if kind == "key":
            self.dropout_keys.append((len(self.table), value))
            self.table.append(0)
            return (len(self.table) - 1,)
        if isinstance(value, Block):
            return self.allocation.view(value)[: 4 if kind == "view" else 2]
        if isinstance(value, Region) and value in self.graph.constants:
            return (-self.constants.address(value),) if kind == "region" else (-self.constants.address(value), 0)
        if isinstance(value, Region):
            at = self.allocation.places[value].at
            return (at,) if kind in ("word", "region") else (at, value.size)  # of a place too: a part for each block
        if value is None:  # zeros
            return (0,)
        return tuple(int(v) for v in value) if isinstance(value, tuple) else (int(value),)

    def inside(self, region: Region | Value, offset: int) -> int:
        """Return the address of an element of a region, or of a tensor that stays where it is."""
        if isinstance(region, Value):
            return outside(region.array) - offset
        if region in self.graph.constants:
            return -(self.constants.address(region) + offset)
        return self.allocation.places[region].at + offset

    def moved(self, address: int, offset: int) -> int:
        """Return an address of :meth:`inside`, further on."""
        return address + offset if address >= 0 else address - offset

    def _pixels(self, blocks: list[Block]) -> tuple[int, int, int]:
        """Return the size of blocks of one size; where none has a halo, their channels are one long row."""
        channels, height, width = blocks[0].size
        framed = any(self.allocation.halos[block] != (0, 0) for block in blocks)
        return (channels, height, width) if framed else (channels, 1, height * width)

    def point(self, block: Block, point: int) -> tuple[int, int]:
        """Return where the values of a block at a point of its transform are."""
        at, step, plane, _ = self.allocation.view(block)
        return at + point * block.channels * plane, step


def _copy(encoder: _Encoder, a: Block, y: Block) -> Iterator[Operands]:
    """Between a block without halo and one of another size: it is seen as one of that."""
    bare = encoder.allocation.halos[a] == (0, 0)
    size = y.size if bare else a.size
    view = encoder.allocation.view
    yield {"a": view(a, size if bare else None), "size": size, "y": view(y, None if bare else size)}


def _products(
    encoder: _Encoder, x: Block, y: Block, weight: Region, bias: Region | None, sweeps: Any, adjoint: bool, floor: float
) -> Iterator[Operands]:
    """One instruction for each group of pixels that see the same taps, at each point of a transform."""
    places, lanes, offsets = encoder.allocation, encoder.lanes, encoder.offsets
    outputs, inputs, *kernel = weight.shape if x.points == 1 else weight.shape[1:]
    kernel_width, number_of_taps = (kernel or [1])[-1], math.prod(kernel)
    _, _, plane, row = places.view(x)
    shape, _, wide = encoder.machine.tile_for(y.channels, single=y.height * y.width == 1)
    for point, down, right in product(range(x.points), *sweeps):
        results = np.add.outer(np.array(down.places) * places.row(y), np.array(right.places) * lanes)
        starts = np.add.outer(np.array(down.starts) * row, np.array(right.starts) * lanes)
        seen = [(u * kernel_width + v, i * row + j * lanes) for u, i in down.taps for v, j in right.taps]
        factors, taps = np.array(seen or [(0, 0)]).T
        channels = np.arange(x.channels)[:, None]
        operands: Operands = {
            "weight": (encoder.inside(weight, point * outputs * inputs * number_of_taps), 0),
            "weight_row": number_of_taps * (1 if adjoint else inputs),
            "x": encoder.point(x, point),
        }
        factors = channels * number_of_taps * (inputs if adjoint else 1) + factors
        taps = channels * plane + taps
        if not seen:  # the bias alone
            operands = {"weight": (0, 0), "weight_row": 0, "x": (0, 0)}
            factors, taps, starts = factors[:1], taps[:1], 0 * starts
        yield operands | {
            "y": encoder.point(y, point), "y_row": places.plane(y), "shape": shape, "y_columns": offsets(results, wide),
            "x_columns": offsets(starts, wide), "weight_steps": offsets(factors), "x_steps": offsets(taps),
            "steps": np.size(taps), "columns": np.size(results), "rows": y.channels, "bias": bias, "floor": floor,
        }  # fmt: skip


def _row_by_row(encoder: _Encoder, **operands: Any) -> Iterator[Operands]:
    """Products of all columns for some rows, and then for the next: the weights of these stay in the cache."""
    yield from (row | {"rows_inside": 0} for row in _products(encoder, **operands))


def _winograd(
    encoder: _Encoder, edge: int, x: Block, y: Block, weight: Region, bias: Region | None, floor: float
) -> Iterator[Operands]:
    tiles, offsets, lanes = strip(edge, x, y), encoder.offsets, encoder.lanes
    yield {
        "edge": edge, "shape": 0, "x": x, "inputs": x.channels, "weight": weight, "y": y, "size": y.size, "bias": bias,
        "zeros": 0, "floor": floor, "work": encoder.work, "strip": tiles, "columns": offsets(np.arange(tiles) * lanes),
        "steps": offsets(np.arange(x.channels)), "x_steps": offsets(np.arange(x.channels) * tiles * lanes),
    }  # fmt: skip


def _winograd_gradient(encoder: _Encoder, edge: int, x: Block, gy: Block, partial: Region) -> Iterator[Operands]:
    _, rows, inputs = partial.shape
    shape, _, wide = encoder.machine.tile_for_matrix(gy.channels, inputs // encoder.lanes)
    tiles, lanes = strip(edge, x, gy), encoder.lanes
    places, vectors = np.arange(tiles * lanes), np.arange(0, inputs, lanes)
    yield {
        "edge": edge, "shape": shape, "x": x, "inputs": inputs, "gy": gy, "size": gy.size, "partial": partial,
        "rows": rows, "work": encoder.work, "strip": tiles,
        "columns": encoder.offsets(vectors, wide), "x_columns": encoder.offsets(vectors * places.size, wide),
        "gy_steps": encoder.offsets(places), "x_steps": encoder.offsets(places * lanes),
    }  # fmt: skip


def _winograd_operands(
    encoder: _Encoder, edge: int, x: Block, gy: Block, x_points: Region, gy_points: Region
) -> Iterator[Operands]:
    yield {
        "edge": edge, "x": x, "inputs": x.channels, "gy": gy, "outputs": gy.channels, "width": gy.width,
        "tiles": math.prod(gy.tiles(edge)), "work": encoder.work, "length": gy_points.shape[2],
        "x_step": x_points.step, "gy_step": gy_points.step, "x_points": x_points, "gy_points": gy_points,
    }  # fmt: skip


def _weight_gradient(encoder: _Encoder, gy: Block, x: Block, window: Any, partial: Region) -> Iterator[Operands]:
    """One instruction for each point of a transform."""
    places, offsets, lanes = encoder.allocation, encoder.offsets, encoder.lanes
    moving = encoder.machine.Window(*window)
    first, step, plane, row = places.view(x)
    first -= moving.padding[0] * row + moving.padding[1] * lanes
    taps, starts = moving.tap_offsets(x.channels, plane, row), moving.pixel_offsets((gy.height, gy.width), row)
    columns, number = encoder.machine.TILES[0][1], taps.size  # the fewer rows, the more of gy stays in the cache
    pixels = np.arange(gy.height)[:, None] * places.row(gy) + np.arange(gy.width) * lanes
    for point in range(gy.points):
        yield {
            "shape": 0, "gy": encoder.point(gy, point), "gy_row": places.plane(gy), "work": encoder.work,
            "x": (first + point * x.channels * plane, step), "partial_row": number,
            "partial": (places.places[partial].at + point * gy.channels * number, partial.size),
            "work_columns": offsets(np.arange(columns) * lanes), "x_columns": offsets(taps, columns),
            "gy_steps": offsets(pixels), "x_steps": offsets(starts), "steps": starts.size, "columns": number,
            "rows": gy.channels, "zeros": 0,
        }  # fmt: skip


def _with_rest(encoder: _Encoder, partial: Region, **operands: Any) -> Iterator[Operands]:
    """Of sums whose second half is what rounding lost of the first."""
    at, size = encoder.allocation.places[partial].at, partial.size
    yield operands | {"partial": partial, "rest": (at + partial.parts // 2 * size, size)}


_EXPANDED: dict[str, Callable[..., Any]] = {
    **amx.EXPANDED,
    **tokens.EXPANDED,
    **EXPANDED,
    "copy": _copy,
    "pair_products": _products,
    "products": _row_by_row,
    "winograd": _winograd,
    "winograd_gradient": _winograd_gradient,
    "winograd_operands": _winograd_operands,
    "weight_gradient": _weight_gradient,
    "channel_sums": _with_rest,
    "layer_norm_sums": _with_rest,
    "norm_sums": _with_rest,
}
"""Nodes whose operands follow from places: what gives them."""
