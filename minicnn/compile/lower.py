"""Lower: from recorded kernel calls to nodes, by the rules of a layout. What no rule takes stays a call."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minicnn.compile import amx, winograd_rows
from minicnn.compile.graph import FILTERS_IN_CACHE, Block, Graph, Layout, Node, Region
from minicnn.compile.program import Call, Program, Value

THREE = ((3, 3), (1, 1), (1, 1), (1, 1))
"""The window of the convolutions that Winograd's method takes."""
_WORTH, _WORTH_BESIDE_PAIRS = 6, 2.6
"""Multiplications for an output, in place of 9, below which that method is worth its transforms; and where the 9 are of
bfloat16, two at a time."""


def lower(program: Program, machine: Any, layout: Layout) -> Graph:
    """Apply the rules of a layout to the calls of a program; what has none, or is refused by it, stays a call."""
    low = Lowering(program, machine, layout)
    rules = layout.rules if program.backend.name == "numpy" else {}  # the machine stands for the kernels of the CPU
    for call in program.calls:
        low.call = call
        rule = rules.get(call.kernel)
        if rule is None or any(map(low.is_edited_with_others, call.outputs)) or not rule(low, call):
            low.leave(call)
    for value in program.outputs:
        low.call = value.call
        low.contiguous(value)
    return Graph(program, layout, tuple(low.nodes), low.regions, low.sees, low.images, low.labels)


def is_weight(value: Value) -> bool:
    """Whether a value exists before the run, or is such a value rounded to bfloat16."""
    call = value.call
    return call is None or (call.kernel == "bfloat16" and call.arguments[0].call is None)


def _reach(sweeps: Any, length: int) -> int:
    """How far outside of an axis of this length is seen."""
    return max(0, *(max(-s.reach[0], s.reach[1] - length + 1) for s in sweeps))


def _size(value: Value) -> tuple[int, int, int]:
    """Return (C, H, W) of one image as its elements lie; of features (F, 1, 1), of tokens (L, 1, E)."""
    if len(value.shape) == 3:
        return value.shape[1], 1, value.shape[2]
    channels, height, width = (*value.shape[1:], 1, 1)[:3]
    return channels, height, width


def _as_it_lies(value: Value, block: Block) -> Block:
    """Return the block of a value, or of tokens another, whose channels they are, as in their array."""
    return Block(*_size(value)) if len(value.shape) == 3 else block


def _edited_together(program: Program) -> dict[int, list[Value]]:
    """Return all Values in each memory that a call edits."""
    found: dict[int, dict[Value, None]] = {value.memory: {} for call in program.calls for value in call.writes()}
    for call in program.calls:
        for value in (*call.reads(), *call.outputs):
            if value.memory in found:
                found[value.memory][value] = None
    return {memory: list(values) for memory, values in found.items()}


class Lowering:
    """The nodes made so far, and where each Value is: in blocks, in a region, or in an array of its own."""

    def __init__(self, program: Program, machine: Any, layout: Layout) -> None:
        self.program, self.machine, self.layout = program, machine, layout
        self.batch = program.batch
        self.count = -(-self.batch // layout.images)  # of blocks
        self.parts = min(self.count, machine.PARTS)  # of the sums over them
        self.call: Call | None = None  # what new nodes are a part of
        self.nodes: list[Node] = []
        self.blocks: dict[Value, Block] = {}
        self.flattened: dict[Value, Value] = {}  # what is in no block: the same elements in another shape that are
        self.regions: dict[Value, Region] = {}
        self.sees: dict[Value, tuple[Value, ...]] = {}
        self.rounded: dict[Value, Value] = {}  # to bfloat16: from what; the instruction is made for the first reader
        self.activated: dict[tuple[Value, float], Value] = {}  # by the input and the alpha of an ELU its output
        self.images = next((v for v in program.inputs if len(v.shape) == 4 and self.is_batch(v)), None)
        self.labels = next((v for v in program.inputs if v.array.dtype == np.int64 and v.shape == (self.batch,)), None)
        self._copies: dict[Value, Region] = {}
        self._narrow: dict[Value, Block] = {}  # by what was rounded, the result
        self._present: dict[Block, Block] = {}  # by a block the same without what absent images have
        self.statistics: dict[Value, Block] = {}  # by the means of a layer norm, where its statistics are
        self.slopes: dict[Value, Block] = {}  # by the input of an activation, its derivative there
        self._pairs: dict[tuple[Block, int], Block] = {}  # by what was rounded and a multiple of channels
        self.filters_of_rows: dict[Value, Region] = {}  # those transformed for the rows
        self.transforms_of_rows: dict[tuple[Any, ...], Block] = {}  # by kind, value and padding, which settle the width
        self._results_of_calls: set[Value] = set()
        self._edited = _edited_together(program)

    # Nodes

    def add_instruction(
        self, kind: str, *, halos: Mapping[str, tuple[int, int]] | None = None, **operands: Any
    ) -> None:
        """Append an instruction, in this layout's form."""
        kind = self.layout.instructions.get(kind, kind)
        self._append(kind, operands, tuple(self.machine.INSTRUCTIONS[kind].results), halos or {})

    def add_call(self, kind: str, result: str | tuple[str, ...], **operands: Any) -> None:
        """Append what Python calls; ``result``: the names of the operands that it writes."""
        self._append(kind, operands, (result,) if isinstance(result, str) else result)

    def _append(
        self, kind: str, operands: Any, results: tuple[str, ...], halos: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        node = Node(kind, operands, results, self.call, halos or {})
        sees = tuple(seen for thing in node.reads if isinstance(thing, Value) for seen in self.sees.get(thing, ()))
        self.nodes.append(replace(node, sees=sees))

    def leave(self, call: Call) -> None:
        """Append a call of a kernel on contiguous arrays."""
        reads = [self.contiguous(v) for v in call.reads()]
        written = list(dict.fromkeys(v for value in call.writes() for v in self._edited[value.memory]))
        self.add_call("call", "writes", reads=reads, writes=[*call.outputs, *written])
        self._results_of_calls.update(call.outputs)
        for output in call.outputs:
            seen = [v for v in (*reads, *self.nodes[-1].sees) if np.may_share_memory(v.array, output.array)]
            self.sees[output] = tuple(seen)
        for value in written:  # other copies of it are out of date
            for copies in (self._copies, self.filters_of_rows, self.blocks, self.flattened, self.slopes):
                copies.pop(value, None)
            for key in [key for key in self.transforms_of_rows if value in key]:
                del self.transforms_of_rows[key]

    # Where Values are

    def is_edited(self, value: Value) -> bool:
        """Whether a call edits the memory of ``value``."""
        return value.memory in self._edited

    def is_edited_with_others(self, value: Value) -> bool:
        """Whether a call edits ``value`` in place, and other Values see that: it must be one array for all of them."""
        return len(self._edited.get(value.memory, ())) > 1

    def is_batch(self, value: Any) -> bool:
        """Whether ``value`` can live in blocks: float32, the batch first, two or four axes."""
        return (
            isinstance(value, Value)
            and value.array.dtype == np.float32
            and len(value.shape) in (2, 4)
            and value.shape[0] == self.batch
        )

    def block(self, value: Value) -> Block:
        """Return ``value`` in blocks; one that is not is interleaved first."""
        if value in self.rounded and value not in self.blocks:
            source = self.rounded[value]
            if source not in self._narrow:
                block = self._narrow[source] = self.layout.block_of(value)
                self.add_instruction("round_to_bfloat16", a=self.block(source), y=block)
            self.blocks[value] = self._narrow[source]
        elif value not in self.blocks:
            block = self.layout.block_of(value)
            lying = _as_it_lies(value, block)
            if value is self.images:
                self.add_instruction("feed", size=_size(value), y=lying)
            else:
                region = Region(value.shape)
                self.add_call("load", "region", source=self.contiguous(value), region=region)
                self.add_instruction("interleave", x=region, size=_size(value), y=lying)
            if lying is not block:
                self.add_instruction("turn", x=lying, size=block.size, y=block)
            self.blocks[value] = block
        return self.blocks[value]

    def gradient(self, value: Value) -> Block:
        """Return ``value`` in blocks where absent images are 0, for sums over images: a bias has made them others."""
        block = self.block(value)
        if self.batch % self.layout.images == 0:
            return block
        if block not in self._present:
            self._present[block] = Block(*block.size)
            self.add_instruction("present", a=block, y=self._present[block])
        return self._present[block]

    def note_absent_are_0(self, block: Block, source: Block | None = None) -> None:
        """Note that absent images are 0 in a block, if they are in the ``source`` that it was made of."""
        if source is None or self._present.get(source) is source:
            self._present[block] = block

    def new_block(self, value: Value) -> Block:
        """Return a block for a result."""
        block = self.blocks[value] = self.layout.block_of(value)
        return block

    def new_region(self, value: Value) -> Region:
        """Return a region for a result."""
        region = self.regions[value] = Region(value.shape)
        return region

    def contiguous(self, value: Value) -> Value:
        """Return ``value`` after seeing to it that it exists as a contiguous array."""
        known = value in self.regions or value in self._results_of_calls or value.call is None
        seen = self.flattened.get(value, value)
        if seen in self.rounded:
            self.block(seen)
        if seen in self.blocks and not known:
            block = self.blocks[seen]
            lying = _as_it_lies(seen, block)
            if lying is not block:
                self.add_instruction("turn", x=block, size=lying.size, y=lying)
            self.add_instruction("deinterleave", x=lying, size=_size(seen), y=self.new_region(value))
        return value

    def region(self, value: Value) -> Region:
        """Return ``value`` as a contiguous array in the plan's memory."""
        self.contiguous(value)
        return self.regions.get(value) or self.copy(value)

    def copy(self, value: Value) -> Region:
        """Return the plan's copy of an array, refreshed in every replay."""
        if value not in self._copies:
            region = self._copies[value] = Region(value.shape)
            self.add_call("load", "region", source=value, region=region)
        return self._copies[value]

    # Instructions that several rules need

    def total(self, value: Value, kind: str, terms: int = 1, **operands: Any) -> None:
        """Append an instruction that sums over images, ``terms`` for each part, and the sum over all: ``value``."""
        partial = Region(value.shape, terms * self.parts)
        self.add_instruction(kind, partial=partial, **operands)
        self.add_call("reduce", "region", partial=partial, region=self.new_region(value))

    def products(self, x: Value, y: Block, weight: Value, bias: Value | None, window: Any, adjoint: bool) -> None:
        """Append y = weight x + bias, over a window or (None) on single pixels, or the adjoint of that map."""
        offset, weight = None if bias is None else self.copy(bias), self.contiguous(weight)
        size = self.layout.block_of(x)
        is_rounded = x in self.rounded and weight.call is not None
        if is_rounded and amx.pays(self.machine, y.channels, size.channels):
            w = amx.weight_of(self, weight, adjoint)
            calls = self.program.calls if adjoint else []
            is_summed = any(x in call.reads() and call.kernel.endswith("_grad_weight") for call in calls)
            source = self.paired(x, self.machine.STEPS, is_gradient=is_summed)
            self.tiles(source, y, w, offset, window, adjoint, rows_first=True, kind="amx_products", framed=True)
            return
        wide = y.channels * size.channels > FILTERS_IN_CACHE and self.count > 1
        edge = self.edge_of_tiles(window, size, y, wide, _WORTH_BESIDE_PAIRS if is_rounded else _WORTH)
        is_of_rows = window is not None and winograd_rows.pays(self.machine, window, (size if adjoint else y).width)
        if is_rounded and not edge and not is_of_rows:
            outputs, inputs = weight.shape[:2][::-1] if adjoint else weight.shape[:2]
            w = Region((outputs, -(-inputs // 2), *weight.shape[2:]))
            self.add_call("paired", "region", source=weight, region=w, adjoint=adjoint)
            self.tiles(self.paired(x), y, w, offset, window, adjoint, rows_first=True, kind="pair_products")
            return
        source = self.block(x)
        if edge:
            w = Region(((edge + 2) ** 2, y.channels, source.channels))
            self.add_call("filters", "region", source=weight, region=w, adjoint=adjoint)
            if wide:
                self._wide_products(source, y, w, offset, edge)
                return
            operands = {"x": source, "y": y, "weight": w, "bias": offset, "floor": -np.inf}
            self.add_instruction("winograd", halos={"x": source.halo_for_tiles(edge, 1)}, edge=edge, **operands)
        elif is_of_rows:
            winograd_rows.products(self, x, y, weight, offset, window, adjoint)
        elif adjoint and window is not None and math.prod(weight.shape) > FILTERS_IN_CACHE:
            swapped = Region((weight.shape[1], weight.shape[0], *weight.shape[2:]))  # rows that lie together
            self.add_call("swapped", "region", source=weight, region=swapped)
            self.tiles(source, y, swapped, offset, window, adjoint, rows_first=True)
        else:
            self.tiles(source, y, self.copy(weight), offset, window, adjoint)

    def _wide_products(self, x: Block, y: Block, weight: Region, bias: Region | None, edge: int) -> None:
        """Append a convolution by 3 x 3 whose products are made for all blocks at once: the weight is in no cache."""
        points, outputs, inputs = weight.shape
        tiles = math.prod(y.tiles(edge))
        rows = self.machine.up(outputs, self.machine.tile_for_matrix(outputs, self.count * tiles)[1])
        vectors, gap = tiles * self.layout.lanes, self.machine.POINTS_APART
        x_points, y_points = (Region((points, self.count, n, vectors), gap=gap) for n in (inputs, rows))
        self.add_instruction("spread_tiles", halos={"x": x.halo_for_tiles(edge, 1)}, edge=edge, x=x, y=x_points)
        self.add_call("wide_products", "y", x=x_points, weight=weight, y=y_points, adjoint=False, rounded=False)
        self.add_instruction("gather_tiles", edge=edge, x=y_points, bias=bias, added=None, floor=-np.inf, y=y)

    def tiles(
        self, x: Block, y: Block, weight: Region, bias: Region | None, window: Any, adjoint: bool,
        rows_first: bool = False, kind: str = "products", framed: bool = False,
    ) -> None:  # fmt: skip
        """Append products by tiles: rows and columns of y by what they see of x.

        rows_first: whether the first axis of the weight is that of y, also in the adjoint; framed: whether zeros above
        and below the picture are read too, and not only those beside it.
        """
        if window is None:
            rows, columns, halo = (self.machine.ONE,), (self.machine.ONE,), (0, 0)
        else:
            vertical, horizontal = zip(*window, strict=True)
            rows = self.machine.sweeps(*vertical, x.height, y.height, adjoint, halo=framed)
            columns = self.machine.sweeps(*horizontal, x.width, y.width, adjoint, halo=True)
            halo = _reach(rows, x.height) if framed else 0, _reach(columns, x.width)
        operands: dict[str, Any] = {"x": x, "y": y, "weight": weight, "bias": bias, "sweeps": (rows, columns)}
        operands["adjoint"] = adjoint and not rows_first
        self.add_instruction(kind, halos={"x": halo}, floor=-np.inf, **operands)

    def paired(self, value: Value, multiple: int = 2, is_gradient: bool = False) -> Block:
        """Return what was rounded to bfloat16 with two channels in each element, up to a ``multiple`` of channels.

        is_gradient: whether absent images are 0.
        """
        x = self.gradient(self.rounded[value]) if is_gradient else self.block(self.rounded[value])
        if (x, multiple) not in self._pairs:
            y = self._pairs[x, multiple] = Block(self.machine.up(x.channels, multiple) // 2, x.height, x.width)
            self.add_instruction("pair", x=x, size=x.size, planes=y.channels, y=y)
        return self._pairs[x, multiple]

    def winograd_gradient(self, value: Value, gy: Block, x: Block, window: Any) -> bool:
        """Append the gradient for a filter, block by block where the sums stay in the cache, else as one product.

        Returns:
            Whether Winograd's method is faster; if not, nothing is appended.
        """
        outputs, inputs = gy.channels, x.channels
        in_cache = outputs * inputs <= FILTERS_IN_CACHE
        edge = self.edge_of_tiles(window, x, gy, not in_cache)
        if not edge or inputs % self.machine.LANES:
            return False
        halos = {"x": x.halo_for_tiles(edge, 1), "gy": gy.halo_for_tiles(edge, 0)}
        points = (edge + 2) ** 2
        if in_cache:
            rows = self.machine.up(outputs, self.machine.tile_for_matrix(outputs, inputs // self.machine.LANES)[1])
            sums = Region((points, rows, inputs), self.parts)
            self.add_instruction("winograd_gradient", halos=halos, edge=edge, x=x, gy=gy, partial=sums)
            self.add_call("unfilter", "region", sums=sums, region=self.new_region(value))
        else:
            length = self.count * self.machine.LANES * math.prod(gy.tiles(edge))
            x_points, gy_points = (
                Region((points, *size), gap=self.machine.POINTS_APART) for size in ((length, inputs), (outputs, length))
            )
            operands = {"x": x, "gy": gy, "x_points": x_points, "gy_points": gy_points}
            self.add_instruction("winograd_operands", halos=halos, edge=edge, **operands)
            self.add_call("matrices", "region", x_points=x_points, gy_points=gy_points, region=self.new_region(value))
        return True

    def edge_of_tiles(self, window: Any, x: Block, y: Block, all_at_once: bool, worth: float = _WORTH) -> int:
        """Return the edge of the tiles of y for Winograd's convolution: 2 or 4, or 0 where it gains nothing.

        all_at_once: whether the products of all blocks are made together, which have always columns enough; worth: the
        multiplications for an output that it must stay below.
        """
        if window != THREE or min(x.channels, y.channels) < 16:
            return 0
        tiles = {edge: math.prod(y.tiles(edge)) for edge in (2, 4)}
        large = 36 * tiles[4] < 16 * tiles[2] and (all_at_once or tiles[4] >= 3)
        edge = 4 if large else 2
        return edge if (edge + 2) ** 2 * tiles[edge] < worth * y.height * y.width else 0
