"""The layout for few images: lanes are channels, the batch is one block, and the threads share its instructions."""

import numpy as np

from minicnn.compile import rules
from minicnn.compile.graph import Block, Layout, Region
from minicnn.compile.lower import Lowering
from minicnn.compile.program import Call, Value

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
    if not low.is_batch(x) or weight.call is not None:
        return False
    window = weight.shape[2:], stride, padding, dilation
    _products(low, low.block(x), x.shape[1:], weight, bias, call.outputs[0], window, groups)
    return True


def _linear(low: Lowering, call: Call) -> bool:
    x, weight, bias = call.arguments
    if not low.is_batch(x) or weight.call is not None:
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
    low.add_call("packed", "region", source=weight, bias=bias, groups=groups, region=packed)
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
    **{name: rules.MANY[name] for name in ("relu", "elu", "add", "sum_to", "batch_norm", "max_pool2d", "avg_pool2d")},
}
