"""Fuse and lower: from recorded kernel calls to block instructions, where the machine has them.

Each rule takes one call. What no rule takes stays a call of its kernel. A rule may change an instruction that is there
already: that is fusion (a ReLU becomes the floor of the convolution before it).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minicnn.compile.record import Call, Program, Value


@dataclass(eq=False)
class Block:
    """A value in blocks of images: (channels, height, width) each, with a halo of zeros around every channel."""

    channels: int
    height: int
    width: int
    halo: tuple[int, int] = (0, 0)
    at: int = 0
    step: int = -1  # -1: scratch of a thread; else the distance of a block to the next

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


def _block(value: Value) -> Block:
    """Blocks for a value (N, C, H, W), or (N, F) as F channels of one pixel."""
    channels, height, width = (*value.shape[1:], 1, 1)[:3]
    return Block(channels, height, width)


_IN_CACHE = 128 * 128
"""Filters up to which the sums of their gradient are kept part by part."""


class Lowering:
    """The nodes made so far, and where each Value is: in blocks, in a region, or in an array of its own."""

    def __init__(self, program: Program, machine: Any, count: int) -> None:
        self.program, self.machine = program, machine
        self.batch = program.inputs[0].shape[0]
        self.count, self.parts = count, min(count, machine.PARTS)  # of blocks, and of the sums over them
        self.nodes: list[Node] = []
        self.blocks: dict[Value, Block] = {}
        self.regions: dict[Value, Region] = {}
        self.weights: dict[Value, Region] = {}
        self.filters: dict[Value, Region] = {}  # what Winograd's convolution makes of a weight
        self.activated: dict[Value, Value] = {}  # by the input of an ELU its output
        self.makers: dict[Block, Node] = {}
        self.uses = Counter(v for call in program.calls for v in call.reads())
        self.uses.update(program.outputs)
        self.images = next((v for v in program.inputs if len(v.shape) == 4 and self.is_batch(v)), None)
        self.labels = next((v for v in program.inputs if v.array.dtype == np.int64 and v.shape == (self.batch,)), None)
        rules = RULES if program.backend.name == "numpy" else {}  # the machine works on the CPU
        for call in program.calls:
            rule = rules.get(call.kernel)
            if rule is None or not rule(self, call):
                self.call(call)
        for value in program.outputs:
            self.plain(value)

    # Building

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
        self.add("call", reads, [*call.outputs, *call.writes()], call=call)
        for value in call.writes():  # other copies of it are out of date
            self.weights.pop(value, None)
            self.filters.pop(value, None)
            self.blocks.pop(value, None)

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
            block = self.blocks[value] = _block(value)
            region = None
            if value is not self.images:
                region = Region(value.shape)
                self.add("load", [value], [region], source=value, region=region)
            self.add("interleave", [value if region is None else region], [block], y=block, region=region)
        return self.blocks[value]

    def plain(self, value: Value) -> Value:
        """Return ``value`` after seeing to it that it exists as a plain array."""
        if value in self.blocks and value not in self.regions and value.call is not None:
            region = self.regions[value] = Region(value.shape)
            self.add("deinterleave", [self.blocks[value]], [region, value], x=self.blocks[value], region=region)
        return value

    def weight(self, value: Value) -> Region:
        """Return the plan's copy of an array, refreshed in every replay."""
        if value not in self.weights:
            region = self.weights[value] = Region(value.shape)
            self.add("load", [value], [region], source=value, region=region)
        return self.weights[value]

    def total(self, value: Value, kind: str, reads: list[Any], **options: Any) -> None:
        """Append an instruction that sums over images, part by part, and the sum over the parts, which is ``value``."""
        partial = Region(value.shape, self.parts)
        self.add(kind, reads, [partial], partial=partial, **options)
        region = self.regions[value] = Region(value.shape)
        self.add("reduce", [partial], [region, value], partial=partial, region=region)

    def products(self, x: Block, y: Block, weight: Value, bias: Value | None, window: Any, turned: bool) -> None:
        """Append y = weight x + bias, over a window or (None) on single pixels; ``turned`` is its adjoint."""
        reads = [x] if bias is None else [x, self.weight(bias)]
        options: dict[str, Any] = {
            "x": x,
            "y": y,
            "bias": None if bias is None else self.weight(bias),
            "turned": turned,
        }
        if window is not None and self.is_winograd(window, x, y):
            x.halo = max(x.halo[0], 1), max(x.halo[1], 1)
            if weight not in self.filters:
                self.filters[weight] = Region((16, *weight.shape[:2]))
                self.add("filters", [weight], [self.filters[weight]], source=weight, region=self.filters[weight])
            w = self.filters[weight]
            self.add("winograd", [*reads, w], [y], weight=w, floor=-np.inf, **options)
            return
        rows, columns = [self.machine.ONE], [self.machine.ONE]
        if window is not None:
            vertical, horizontal = zip(*window, strict=True)
            rows = self.machine.sweeps(*vertical, x.height, y.height, turned, halo=False)
            columns = self.machine.sweeps(*horizontal, x.width, y.width, turned, halo=True)
            x.halo = x.halo[0], max(x.halo[1], *(max(-s.reach[0], s.reach[1] - x.width + 1) for s in columns))
        w = self.weight(weight)
        options |= {"rows": rows, "columns": columns, "weight": w}
        self.add("products", [*reads, w], [y], floor=-np.inf, **options)

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
            window == ((3, 3), (1, 1), (1, 1), (1, 1))
            and not (x.height % 2 or x.width % 2)
            and min(x.channels, y.channels) >= 16
        )

    def floor(self, value: Value, least: float) -> bool:
        """Raise the floor of what made ``value``, if nobody else sees it without; -> whether that could be done."""
        maker = self.makers.get(self.blocks.get(value))  # type: ignore[arg-type]
        if maker is None or "floor" not in maker.options or self.uses[value] > 1:
            return False
        maker.options["floor"] = max(maker.options["floor"], least)
        return True

    def in_place(self, value: Value, others: int = 0) -> Block:
        """Return a block for the result of the last use of ``value``: its own if nobody else has it, or a new one.

        others: uses of ``value`` that will not look at it.
        """
        block = self.blocks[value]
        alone = self.uses[value] == 1 + others and list(self.blocks.values()).count(block) == 1
        return block if alone and value.call is not None else Block(*block.size)

    def pointwise(self, kind: str, result: Value, y: Block, a: Block, b: Block | None = None, **options: Any) -> None:
        """Append y = kind(a, b), which is ``result``; terms: the region of numbers a channel."""
        self.blocks[result] = y
        reads = [thing for thing in (a, b, options.get("terms")) if thing is not None]
        self.add(kind, reads, [y], a=a, b=a if b is None else b, y=y, **options)


def _conv2d(low: Lowering, call: Call) -> bool:
    x, weight, bias, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(x) or groups != 1 or weight.call is not None:
        return False
    source = low.block(x)
    y = low.blocks[call.outputs[0]] = _block(call.outputs[0])
    low.products(source, y, weight, bias, (weight.shape[2:], stride, padding, dilation), turned=False)
    return True


def _conv2d_grad_input(low: Lowering, call: Call) -> bool:
    gy, weight, shape, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(gy) or groups != 1:
        return False
    source, gx = low.block(gy), Block(*shape[1:])
    low.blocks[call.outputs[0]] = gx
    low.products(source, gx, weight, None, (weight.shape[2:], stride, padding, dilation), turned=True)
    return True


def _conv2d_grad_weight(low: Lowering, call: Call) -> bool:
    gy, x, shape, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(gy) or not low.is_batch(x) or groups != 1:
        return False
    g, source = low.block(gy), low.block(x)
    source.halo = tuple(max(a, b) for a, b in zip(source.halo, padding, strict=True))
    window = (shape[2:], stride, padding, dilation)
    if low.is_winograd(window, source, g) and source.channels % low.machine.LANES == 0:
        low.winograd_gradient(call.outputs[0], g, source)
        return True
    low.total(call.outputs[0], "weight_gradient", [g, source], gy=g, x=source, window=window)
    return True


def _bias(low: Lowering, call: Call) -> bool:
    if not low.is_batch(call.arguments[0]):
        return False
    g = low.block(call.arguments[0])
    low.total(call.outputs[0], "channel_sums", [g], x=g)
    return True


def _linear(low: Lowering, call: Call) -> bool:
    x, weight, bias = call.arguments
    if not low.is_batch(x) or weight.call is not None:
        return False
    source, y = low.block(x), Block(weight.shape[0], 1, 1)
    low.blocks[call.outputs[0]] = y
    low.products(source, y, weight, bias, None, turned=False)
    return True


def _linear_grad_input(low: Lowering, call: Call) -> bool:
    gy, weight = call.arguments
    if not low.is_batch(gy) or weight.call is not None:
        return False
    source, gx = low.block(gy), Block(weight.shape[1], 1, 1)
    low.blocks[call.outputs[0]] = gx
    low.products(source, gx, weight, None, None, turned=True)
    return True


def _linear_grad_weight(low: Lowering, call: Call) -> bool:
    gy, x = call.arguments
    if not low.is_batch(gy) or not low.is_batch(x) or x.shape[1] < 8:
        return False
    region = low.regions[call.outputs[0]] = Region(call.outputs[0].shape)
    low.block(gy), low.block(x)
    low.plain(gy), low.plain(x)
    low.add(
        "matrix",
        [low.regions[gy], low.regions[x]],
        [region, call.outputs[0]],
        gy=low.regions[gy],
        x=low.regions[x],
        region=region,
    )
    return True


def _reshape(low: Lowering, call: Call) -> bool:
    x = call.arguments[0]
    (y,) = call.outputs
    if x not in low.blocks or not low.is_batch(y):
        return False
    before = low.blocks[x]
    after = _block(y)
    if before.size == after.size:
        low.blocks[y] = before
        low.uses[y] += low.uses[x] - 1
        return True
    low.blocks[y] = after
    low.add("reshape", [before], [after], x=before, y=after)
    return True


def _relu(low: Lowering, call: Call) -> bool:
    (x,) = call.arguments
    (y,) = call.outputs
    if x not in low.blocks:
        return False
    if low.floor(x, 0.0):
        low.blocks[y] = low.blocks[x]
    else:
        low.pointwise("relu", y, low.in_place(x), low.blocks[x])
    return True


def _relu_grad(low: Lowering, call: Call) -> bool:
    gy, y = call.arguments
    (gx,) = call.outputs
    if gy not in low.blocks or y not in low.blocks:
        return False
    maker = low.makers[low.blocks[gy]]
    if maker.kind == "max_pool_grad" and maker.options["x"] is low.blocks[y] and low.uses[gy] == 1:
        maker.options["floor"] = 0.0
        low.blocks[gx] = low.blocks[gy]
    else:
        low.pointwise("relu_grad", gx, low.in_place(gy), low.blocks[gy], low.blocks[y])
    return True


def _elu(low: Lowering, call: Call) -> bool:
    x, alpha = call.arguments
    (y,) = call.outputs
    if x not in low.blocks or alpha < 0:
        return False
    later = [c for c in low.program.calls if c.kernel == "elu_grad" and c.arguments[1] is x]
    source = low.blocks[x]
    low.pointwise("elu", y, low.in_place(x, len(later)), source, number=alpha)
    if low.blocks[y] is source:
        del low.blocks[x]
    low.activated[x] = y
    return True


def _elu_grad(low: Lowering, call: Call) -> bool:
    gy, x, alpha = call.arguments
    if gy not in low.blocks or low.activated.get(x) not in low.blocks:
        return False
    y = low.blocks[low.activated[x]]
    low.pointwise("elu_grad", call.outputs[0], low.in_place(gy), low.blocks[gy], y, number=alpha)
    return True


def _add(low: Lowering, call: Call) -> bool:
    a, b = call.arguments
    if not (low.is_batch(a) and low.is_batch(b) and a.shape == b.shape) or not (a in low.blocks or b in low.blocks):
        return False
    first, second = low.block(a), low.block(b)
    y = low.in_place(a)
    if y is not first:
        y = low.in_place(b)
    low.pointwise("add", call.outputs[0], y, first, second, floor=-np.inf)
    return True


def _dropout(low: Lowering, call: Call) -> bool:
    x, key, p = call.arguments
    if x not in low.blocks:
        return False
    y = low.in_place(x)
    low.add("dropout", [low.blocks[x]], [y], x=low.blocks[x], y=y, key=key, p=p)
    low.blocks[call.outputs[0]] = y
    return True


def _batch_norm_statistics(low: Lowering, call: Call) -> bool:
    (x,) = call.arguments
    if x not in low.blocks:
        return False
    block, (mean, var) = low.blocks[x], call.outputs
    partial = Region((2, block.channels), low.count)
    low.add("moments", [block], [partial], x=block, partial=partial)
    regions = low.regions[mean], low.regions[var] = Region(mean.shape), Region(var.shape)
    low.add(
        "statistics", [partial], [*regions, mean, var], partial=partial, out=regions, pixels=block.height * block.width
    )
    return True


def _batch_norm(low: Lowering, call: Call) -> bool:
    x, *values = call.arguments
    if x not in low.blocks:
        return False
    terms = Region((2, x.shape[1]))
    low.add("affine_terms", [v for v in values if v is not None], [terms], values=values, out=terms)
    low.pointwise("affine", call.outputs[0], low.in_place(x), low.blocks[x], terms=terms, floor=-np.inf)
    return True


def _batch_norm_grad(low: Lowering, call: Call) -> bool:
    gy, x, mean, inverse_std, weight, training = call.arguments
    if gy not in low.blocks or x not in low.blocks:
        return False
    g, source, channels = low.blocks[gy], low.blocks[x], x.shape[1]
    means = low.regions.get(mean) or low.weight(mean)
    partial = Region((2, channels), low.parts)
    low.add("norm_sums", [g, source, means], [partial], gy=g, x=source, means=means, partial=partial)
    gx, *sums = call.outputs
    regions = [low.regions.setdefault(value, Region(value.shape)) for value in sums]
    terms = Region((3, channels))
    values = [mean, inverse_std, weight]
    low.add(
        "norm_terms", [partial, *(v for v in values if v is not None)], [terms, *regions, *sums],
        partial=partial, values=values, out=[terms, *regions], count=x.array.size // channels if training else None,
    )  # fmt: skip
    low.pointwise("norm_grad", gx, low.in_place(gy), g, source, terms=terms)
    return True


def _max_pool2d(low: Lowering, call: Call) -> bool:
    x, window, stride, padding, dilation, output_size = call.arguments
    y, taps = call.outputs
    inside = all((o - 1) * s + k <= n for o, s, k, n in zip(output_size, stride, window, x.shape[2:], strict=True))
    if x not in low.blocks or padding != (0, 0) or dilation != (1, 1) or not inside:
        return False
    if any(c.kernel != "max_pool2d_grad" for c in low.program.calls if taps in c.reads()):
        return False
    block = low.blocks[y] = _block(y)
    low.add("max_pool", [low.blocks[x]], [block], x=low.blocks[x], y=block, window=window, stride=stride, floor=-np.inf)
    low.blocks[taps] = block
    return True


def _max_pool2d_grad(low: Lowering, call: Call) -> bool:
    gy, taps, shape, window, stride, _, _ = call.arguments
    if taps not in low.blocks:
        return False
    y = low.blocks[taps]
    x, g, gx = low.makers[y].options["x"], low.block(gy), Block(*shape[1:])
    low.blocks[call.outputs[0]] = gx
    low.add("max_pool_grad", [g, x, y], [gx], gy=g, x=x, y=y, gx=gx, window=window, stride=stride, floor=-np.inf)
    return True


def _cross_entropy(low: Lowering, call: Call) -> bool:
    logits, labels, weight, smoothing = call.arguments
    while labels.call is not None and labels.call.kernel == "copy":
        labels = labels.call.arguments[0]
    if not low.is_batch(logits) or weight is not None or labels is not low.labels:
        return False
    losses, probabilities = call.outputs
    source, block = low.block(logits), Block(logits.shape[1], 1, 1)
    low.blocks[probabilities] = block
    region = low.regions[losses] = Region(losses.shape)
    options = {"x": source, "y": block, "losses": region, "smoothing": smoothing}
    low.add("cross_entropy", [source, labels], [block, region, losses], **options)
    return True


def _cross_entropy_grad(low: Lowering, call: Call) -> bool:
    glosses, probabilities, labels, weight, smoothing = call.arguments
    if probabilities not in low.blocks or weight is not None:
        return False
    block = low.blocks[call.outputs[0]] = Block(probabilities.shape[1], 1, 1)
    source = low.blocks[probabilities]
    scale = Region(glosses.shape)
    low.add("load", [low.plain(glosses)], [scale], source=glosses, region=scale)
    low.add(
        "cross_entropy_grad", [source, scale, labels], [block], x=source, y=block, glosses=scale, smoothing=smoothing
    )
    return True


RULES: dict[str, Callable[[Lowering, Call], bool]] = {
    "conv2d": _conv2d,
    "conv2d_grad_input": _conv2d_grad_input,
    "conv2d_grad_weight": _conv2d_grad_weight,
    "conv2d_grad_bias": _bias,
    "linear": _linear,
    "linear_grad_input": _linear_grad_input,
    "linear_grad_weight": _linear_grad_weight,
    "linear_grad_bias": _bias,
    "reshape": _reshape,
    "relu": _relu,
    "relu_grad": _relu_grad,
    "elu": _elu,
    "elu_grad": _elu_grad,
    "add": _add,
    "dropout": _dropout,
    "batch_norm_statistics": _batch_norm_statistics,
    "batch_norm": _batch_norm,
    "batch_norm_grad": _batch_norm_grad,
    "max_pool2d": _max_pool2d,
    "max_pool2d_grad": _max_pool2d_grad,
    "cross_entropy": _cross_entropy,
    "cross_entropy_grad": _cross_entropy_grad,
}
