"""Fuse and lower: from recorded kernel calls to block instructions, where the machine has them.

The rules (:mod:`minicnn.compile.rules`) take one call each. What no rule takes stays a call of its kernel.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minicnn.compile.program import Call, Program, Value


@dataclass(eq=False)
class Block:
    """A value in blocks of images: (channels, height, width) each, with a halo of zeros around every channel.

    points: how many of these there are, one after the other: the values of a transform.
    """

    channels: int
    height: int
    width: int
    halo: tuple[int, int] = (0, 0)
    at: int = 0
    step: int = -1  # -1: scratch of a thread; else the distance of a block to the next
    points: int = 1

    @classmethod
    def of(cls, value: Value) -> "Block":
        """Return blocks for a value (N, C, H, W), or (N, F) as F channels of one pixel."""
        channels, height, width = (*value.shape[1:], 1, 1)[:3]
        return cls(channels, height, width)

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


@dataclass(eq=False)
class Region:
    """``size`` float32 in the plan's memory in plain order; ``shape`` of the array that a call sees there.

    parts: how many partial results are kept there, one a part or a block of the batch; 0 for a plain array.
    """

    shape: tuple[int, ...]
    parts: int = 0
    at: int = 0

    @property
    def size(self) -> int:
        """Elements of one array."""
        return int(np.prod(self.shape))


@dataclass(eq=False)
class Node:
    """A step of the plan. kind: the name of a block instruction, "call", or one of the planner's own.

    reads, writes: Blocks, Regions and Values, for the order; options: everything else.
    """

    kind: str
    reads: list[Any]
    writes: list[Any]
    options: dict[str, Any] = field(default_factory=dict)
    phase: int = 0


_IN_CACHE = 128 * 128
"""Filters up to which the sums of their gradient are kept part by part."""


def _one_column(window: Any) -> Any:
    """The window that is left of one where a transform takes the columns."""
    return tuple((n, one) for (n, _), one in zip(window, (1, 1, 0, 1), strict=True))


def _together(program: Program) -> dict[int, list[Value]]:
    """Return all Values in each memory that a call edits."""
    found: dict[int, dict[Value, None]] = {value.memory: {} for call in program.calls for value in call.writes()}
    for call in program.calls:
        for value in (*call.reads(), *call.outputs):
            if value.memory in found:
                found[value.memory][value] = None
    return {memory: list(values) for memory, values in found.items()}


class Lowering:
    """The nodes made so far, and where each Value is: in blocks, in a region, or in an array of its own."""

    def __init__(self, program: Program, machine: Any, lanes: int) -> None:
        self.program, self.machine, self.lanes = program, machine, lanes
        self.batch = program.batch
        self.count = -(-self.batch // lanes)  # of blocks
        self.parts = min(self.count, machine.PARTS)  # of the sums over them
        self.nodes: list[Node] = []
        self.blocks: dict[Value, Block] = {}
        self.regions: dict[Value, Region] = {}
        self.weights: dict[Value, Region] = {}
        self.filters: dict[Value, Region] = {}  # those transformed for the rows
        self.transforms: dict[tuple[Any, ...], Block] = {}  # by kind, value and padding, which settle the width
        self.activated: dict[tuple[Value, float], Value] = {}  # by the input and the alpha of an ELU its output
        self.origins: dict[Block, Block] = {}  # by the result of a reshape the block that it may share
        self.makers: dict[Block, Node] = {}
        self.called: set[Value] = set()  # the results of calls: they are plain
        self.uses = Counter(v for call in program.calls for v in call.reads())
        self.uses.update(program.outputs)
        self.together = _together(program)
        self.images = next((v for v in program.inputs if len(v.shape) == 4 and self.is_batch(v)), None)
        self.labels = next((v for v in program.inputs if v.array.dtype == np.int64 and v.shape == (self.batch,)), None)

    def add(self, kind: str, reads: list[Any], writes: list[Any], **options: Any) -> Node:
        """Append a node."""
        node = Node(kind, reads, writes, options)
        self.nodes.append(node)
        for written in writes:
            if isinstance(written, Block):
                self.makers[written] = node
        return node

    def call(self, call: Call) -> None:
        """Append a call of a kernel on plain arrays."""
        reads = [self.plain(v) for v in call.reads()]
        written = list(dict.fromkeys(v for value in call.writes() for v in self.together[value.memory]))
        self.add("call", reads, [*call.outputs, *written], call=call)
        self.called.update(call.outputs)
        for value in written:  # other copies of it are out of date
            for copies in (self.weights, self.filters, self.blocks):
                copies.pop(value, None)
            for key in [key for key in self.transforms if value in key]:
                del self.transforms[key]

    def is_edited_with_others(self, value: Value) -> bool:
        """Whether a call edits ``value`` in place, and other Values see that: it must be one array for all of them."""
        return len(self.together.get(value.memory, ())) > 1

    def is_batch(self, value: Any) -> bool:
        """Whether ``value`` can live in blocks: float32, the batch first, two or four axes."""
        return (
            isinstance(value, Value)
            and value.array.dtype == np.float32
            and len(value.shape) in (2, 4)
            and value.shape[0] == self.batch
        )

    def block(self, value: Value) -> Block:
        """Return ``value`` in blocks; a plain one is interleaved first."""
        if value not in self.blocks:
            block = self.blocks[value] = Block.of(value)
            region = None
            if value is not self.images:
                region = Region(value.shape)
                self.add("load", [value], [region], source=value, region=region)
            self.add("interleave", [value if region is None else region], [block], y=block, region=region)
        return self.blocks[value]

    def plain(self, value: Value) -> Value:
        """Return ``value`` after seeing to it that it exists as a plain array."""
        if value in self.blocks and value not in self.regions and value not in self.called and value.call is not None:
            region = self.regions[value] = Region(value.shape)
            self.add("deinterleave", [self.blocks[value]], [region, value], x=self.blocks[value], region=region)
        return value

    def region(self, value: Value) -> Region:
        """Return ``value`` as a plain array in the plan's memory."""
        self.plain(value)
        return self.regions.get(value) or self.weight(value)

    def weight(self, value: Value) -> Region:
        """Return the plan's copy of an array, refreshed in every replay."""
        if value not in self.weights:
            region = self.weights[value] = Region(value.shape)
            self.add("load", [value], [region], source=value, region=region)
        return self.weights[value]

    def total(self, value: Value, kind: str, reads: list[Any], terms: int = 1, **options: Any) -> None:
        """Append an instruction that sums over images, ``terms`` a part, and the sum over all, which is ``value``."""
        partial = Region(value.shape, terms * self.parts)
        self.add(kind, reads, [partial], partial=partial, **options)
        region = self.regions[value] = Region(value.shape)
        self.add("reduce", [partial], [region, value], partial=partial, region=region)

    def products(self, x: Value, y: Block, weight: Value, bias: Value | None, window: Any, turned: bool) -> None:
        """Append y = weight x + bias, over a window or (None) on single pixels; ``turned`` is its adjoint."""
        source, offset = self.block(x), None if bias is None else self.weight(bias)
        reads: list[Any] = [source] if offset is None else [source, offset]
        options: dict[str, Any] = {"x": source, "y": y, "bias": offset, "floor": -np.inf}
        if window is not None and self.is_winograd(window, source, y):
            source.halo = max(source.halo[0], 1), max(source.halo[1], 1)
            w = Region((16, *weight.shape[:2]))  # made anew for the gradient: it is larger than the weight
            self.add("filters", [weight], [w], source=weight, region=w)
            self.add("winograd", [*reads, w], [y], weight=w, turned=turned, **options)
        elif window is not None and self.is_of_rows(window, (source if turned else y).width):
            self._products_of_rows(x, weight, window, turned, options)
        elif window is None and self.lanes == 1:
            w = self.weight(weight)
            self.add("linear_single", [*reads, w], [y], weight=w, **options)
        else:
            sweeps = self._sweeps(window, source, y, turned)
            w = self.weight(weight)
            self.add("products", [*reads, w], [y], weight=w, turned=turned, **sweeps, **options)

    def _sweeps(self, window: Any, x: Block, y: Block, turned: bool) -> dict[str, Any]:
        """Rows and columns of y by what they see of x, which gets the halo that is read."""
        if window is None:
            return {"rows": [self.machine.ONE], "columns": [self.machine.ONE]}
        vertical, horizontal = zip(*window, strict=True)
        rows = self.machine.sweeps(*vertical, x.height, y.height, turned, halo=False)
        columns = self.machine.sweeps(*horizontal, x.width, y.width, turned, halo=True)
        x.halo = x.halo[0], max(x.halo[1], *(max(-s.reach[0], s.reach[1] - x.width + 1) for s in columns))
        return {"rows": rows, "columns": columns}

    def _products_of_rows(self, x: Value, weight: Value, window: Any, turned: bool, options: dict[str, Any]) -> None:
        """Append the same by F(4, 5) along the rows: products at each point, where the kernel has one column."""
        y, bias, padding = options["y"], options["bias"], window[2][1]
        if turned:
            source = self.transformed("gather_rows_grad", x, options["x"].width)
        else:
            source = self.transformed("spread_rows", x, y.width, padding=padding)
        made = Block(y.channels, y.height, source.width, points=source.points)
        if weight not in self.filters:
            w = self.filters[weight] = Region((source.points, *weight.shape[:3], 1))
            self.add("filters", [weight], [w], source=weight, region=w)
        w = self.filters[weight]
        sweeps = self._sweeps(_one_column(window), source, made, turned)
        self.add(
            "products", [source, w], [made],
            x=source, y=made, weight=w, bias=None, turned=turned, floor=-np.inf, **sweeps,
        )  # fmt: skip
        if turned:
            self.add("spread_rows_grad", [made], [y], x=made, y=y, padding=padding)
        else:
            self.add("gather_rows", [made] if bias is None else [made, bias], [y], **(options | {"x": made}))

    def gradient_of_rows(self, value: Value, gy: Value, x: Value, window: Any) -> None:
        """Append the gradient for a filter from the points of both."""
        width = self.block(gy).width
        made = self.transformed("gather_rows_grad", gy, width)
        seen = self.transformed("spread_rows", x, width, padding=window[2][1])
        seen.halo = max(seen.halo[0], window[2][0]), 0
        sums = Region((made.points, made.channels, seen.channels * window[0][0]), self.parts)
        options = {"gy": made, "x": seen, "window": _one_column(window), "partial": sums}
        self.add("weight_gradient", [made, seen], [sums], **options)
        region = self.regions[value] = Region(value.shape)
        self.add("unfilter", [sums], [region, value], sums=sums, region=region)

    def transformed(self, kind: str, value: Value, width: int, **options: int) -> Block:
        """Return the points of the rows of ``value`` for outputs of ``width``; they are made once."""
        key = kind, value, *options.values()
        if key not in self.transforms:
            x, tiles = self.block(value), -(-width // self.machine.OUTPUTS)
            y = self.transforms[key] = Block(x.channels, x.height, tiles, points=self.machine.POINTS)
            self.add(kind, [x], [y], x=x, y=y, **options)
        return self.transforms[key]

    def winograd_gradient(self, value: Value, gy: Block, x: Block) -> None:
        """Append the gradient for a filter, block by block where the sums stay in the cache, else as one product."""
        outputs, inputs = gy.channels, x.channels
        region = self.regions[value] = Region(value.shape)
        rows = self.machine.up(outputs, self.machine.tile_for_matrix(outputs, inputs // self.machine.LANES)[1])
        if outputs * inputs <= _IN_CACHE:
            sums = Region((16, rows, inputs), self.parts)
            self.add("winograd_gradient", [x, gy], [sums], x=x, gy=gy, sums=sums)
        else:
            length = self.count * self.machine.LANES * x.height * x.width // 4
            seen, made = Region((16, length, inputs)), Region((16, outputs, length))
            self.add("winograd_operands", [x, gy], [seen, made], x=x, gy=gy, seen=seen, made=made)
            sums = Region((16, rows, inputs))
            self.add("matrices", [seen, made], [sums], seen=seen, made=made, sums=sums)
        self.add("unfilter", [sums], [region, value], sums=sums, region=region)

    def is_winograd(self, window: Any, x: Block, y: Block) -> bool:
        """Whether a convolution is one that F(2 x 2, 3 x 3) does faster."""
        return (
            self.lanes > 1
            and window == ((3, 3), (1, 1), (1, 1), (1, 1))
            and not (x.height % 2 or x.width % 2)
            and min(x.channels, y.channels) >= 16
        )

    def is_of_rows(self, window: Any, width: int) -> bool:
        """Whether a convolution with results of ``width`` is one that F(4, 5) along the rows does faster."""
        kernel, stride, _, dilation = (horizontal for _, horizontal in window)
        return self.lanes > 1 and kernel == 5 and stride == dilation == 1 and width >= self.machine.OUTPUTS

    def floor(self, value: Value, least: float) -> bool:
        """Raise the floor of what made ``value``, if nobody else sees it without; -> whether that could be done."""
        maker = self.makers.get(self.blocks.get(value))  # type: ignore[arg-type]
        if maker is None or "floor" not in maker.options or self.uses[value] > 1:
            return False
        maker.options["floor"] = max(maker.options["floor"], least)
        return True

    def alias(self, value: Value, source: Value) -> None:
        """Let ``value`` be what ``source`` is."""
        self.blocks[value] = self.blocks[source]
        self.uses[value] += self.uses[source] - 1

    def in_place(self, value: Value, others: int = 0) -> Block:
        """Return a block for the result of the last use of ``value``: its own if nobody else has it, or a new one.

        others: uses of ``value`` that will not look at it.
        """
        block = self.blocks[value]
        origins = [self.origins.get(b, b) for b in self.blocks.values()]
        alone = self.uses[value] == 1 + others and origins.count(self.origins.get(block, block)) == 1
        return block if alone and value.call is not None else Block(*block.size)

    def pointwise(self, kind: str, result: Value, y: Block, a: Block, b: Block | None = None, **options: Any) -> None:
        """Append y = kind(a, b), which is ``result``; terms: the region of numbers a channel."""
        self.blocks[result] = y
        reads = [thing for thing in (a, b, options.get("terms")) if thing is not None]
        self.add(kind, reads, [y], a=a, b=a if b is None else b, y=y, **options)
