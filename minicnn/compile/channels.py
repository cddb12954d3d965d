"""The layout for few images: lanes are channels, the batch is one block, and the threads share its instructions."""

import math

import numpy as np

from minicnn.compile import rules
from minicnn.compile.graph import Block, Layout, Region
from minicnn.compile.lower import THREE, Lowering, is_weight
from minicnn.compile.program import Call, Value

_TILES = 16
"""Tiles of an image from which threads take some of them each, from the pixels to the results; of fewer, all planes."""
_CYCLES_A_FLOAT = 0.6
"""What a weight from the memory takes, which is read once a batch."""
_ONE_TAP = ((1, 1), (1, 1), (0, 0), (1, 1))
_PIXELS = 8
"""Pixels in a row of all images from which the zeros above and below a picture are left out, not multiplied."""


def channels(lanes: int, batch: int) -> Layout:
    """Return the layout for ``batch`` images with ``lanes`` channels in a vector."""

    def block_of(value: Value) -> Block:
        planes, height, width = (*value.shape[1:], 1, 1)[:3]
        return Block(batch * -(-planes // lanes), height, width)

    names = {
        "affine": "channel_affine",
        "deinterleave": "write_channels",
        "feed": "feed_channels",
        "interleave": "read_channels",
    }
    return Layout(lanes, batch, _RULES, block_of, names, is_shared=True)


def _conv2d(low: Lowering, call: Call) -> bool:
    x, weight, bias, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(x) or not is_weight(weight):
        return False
    window = weight.shape[2:], stride, padding, dilation
    y = call.outputs[0]
    edge = _edge(low, weight.shape, y.shape) if window == THREE and groups == 1 else 0
    if edge:
        _winograd(low, low.block(x), weight, bias, y, edge)
    else:
        _products(low, low.block(x), x.shape[1:], weight, bias, y, window, groups)
    return True


def _edge(low: Lowering, weight: tuple[int, ...], result: tuple[int, ...]) -> int:
    """Return the outputs along one axis of the tiles that are estimated to be fastest, 0 for none.

    In cycles of two threads, which all shapes of a model agree on whatever the threads are: products run at the
    processor's rate or wait for the weights, and the transforms take some cycles for each vector.
    """
    outputs, inputs, *_ = weight
    batch, _, height, width = result
    vectors = -(-outputs // low.layout.lanes)

    def cycles(points: int, tiles: int) -> float:
        return points * inputs * max(tiles * vectors / 4, outputs * _CYCLES_A_FLOAT)

    costs = {0: cycles(9, batch * height * width)}
    for edge in (2, 4):
        points, tiles = (edge + 2) ** 2, batch * -(-height // edge) * -(-width // edge)
        if min(inputs, outputs) >= 16:
            transforms = 3 * points * tiles * (vectors + -(-inputs // low.layout.lanes))
            costs[edge] = cycles(points, low.machine.up(tiles, 4)) + transforms
    return min(costs, key=costs.__getitem__)


def _winograd(low: Lowering, x: Block, weight: Value, bias: Value | None, y: Value, edge: int) -> None:
    """Append a convolution by 3 x 3: the points of x, products at each of them, and what they are in y."""
    outputs, inputs, *_ = weight.shape
    points, block = (edge + 2) ** 2, low.new_block(y)
    filters = Region((points, outputs, inputs))
    packed = Region((points, low.machine.packed_size((outputs, inputs), 1)))
    low.add_call("filters", "region", source=low.contiguous(weight), region=filters, adjoint=False)
    low.add_call("packed", "region", source=filters, bias=None, groups=1, region=packed)
    offset = None
    if bias is not None:
        offset = Region((low.machine.up(outputs, low.layout.lanes),))
        low.add_call("load", "region", source=bias, region=offset)
    tiles, halos = math.prod(block.tiles(edge)), {"x": x.halo_for_tiles(edge, 1)}
    if tiles >= _TILES:
        low.add_instruction(
            "channel_winograd", halos=halos, edge=edge, x=x, weight=packed, inputs=inputs, bias=offset,
            added=None, floor=-np.inf, y=block,
        )  # fmt: skip
        return
    x_points, y_points = (
        Region((points, b.channels * tiles * low.layout.lanes), gap=low.machine.POINTS_APART) for b in (x, block)
    )
    low.add_instruction("spread_tiles", halos=halos, edge=edge, x=x, y=x_points)
    low.add_instruction(
        "channel_products", x=x_points, weight=packed, size=(inputs, 1, tiles), weight_shape=(outputs, inputs),
        window=_ONE_TAP, framed=False, groups=1, added=None, floor=-np.inf, y=y_points,
    )  # fmt: skip
    low.add_instruction(
        "gather_tiles", edge=edge, x=y_points, bias=offset, added=None, floor=-np.inf, y=block,
    )  # fmt: skip


def _linear(low: Lowering, call: Call) -> bool:
    x, weight, bias = call.arguments
    if not low.is_batch(x) or not is_weight(weight):
        return False
    seen = low.flattened.get(x, x)
    size = (*seen.shape[1:], 1, 1)[:3]
    _products(low, low.block(seen), size, weight, bias, call.outputs[0], None, 1)
    return True


def _products(
    low: Lowering, x: Block, size: tuple[int, ...], weight: Value, bias: Value | None, y: Value, window: object,
    groups: int,
) -> None:  # fmt: skip
    """Append y = weight x + bias over a window, or (None) over all of x; size: (C, H, W) of x."""
    packed = Region((low.machine.packed_size(weight.shape, groups),))
    low.add_call("packed", "region", source=low.contiguous(weight), bias=bias, groups=groups, region=packed)
    framed, halos = False, {}
    if window is not None:
        rows, columns = low.machine.reach(window, size[1:], y.shape[2:])
        framed = low.batch * y.shape[3] < _PIXELS
        halos = {"x": (rows if framed else 0, columns)}
    low.add_instruction(
        "channel_products", halos=halos, x=x, weight=packed, size=size, weight_shape=weight.shape, window=window,
        framed=framed, groups=groups, added=None, floor=-np.inf, y=low.new_block(y),
    )  # fmt: skip


def _reshape(low: Lowering, call: Call) -> bool:
    """The same block if it is, or one whose features a linear layer finds where they are."""
    (x, _), (y,) = call.arguments, call.outputs
    x = low.flattened.get(x, x) if y.shape == x.shape else x
    if x not in low.blocks or not low.is_batch(y):
        return False
    if low.layout.block_of(y).size == low.blocks[x].size and x.shape[1] == y.shape[1]:
        low.blocks[y] = low.blocks[x]
    elif len(y.shape) == 2:
        low.flattened[y] = x
    else:
        return False
    return True


_RULES = {
    "conv2d": _conv2d,
    "linear": _linear,
    "reshape": _reshape,
    **{
        name: rules.MANY[name]
        for name in ("relu", "elu", "gelu", "add", "sum_to", "batch_norm", "bfloat16", "max_pool2d", "avg_pool2d")
    },
}
