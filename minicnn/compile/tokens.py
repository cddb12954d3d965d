"""Rules for tokens, (N, L, E): in a block their vectors are channels and they are pixels, of one row.

A linear layer takes rows of vectors, (N L, E), and is there a convolution by 1 x 1.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnn.compile import amx
from minicnn.compile.graph import Block
from minicnn.compile.lower import Lowering, is_weight
from minicnn.compile.program import Call, Value

_ONE_PIXEL = ((1, 1), (1, 1), (0, 0), (1, 1))


def is_tokens(low: Lowering, value: Any) -> bool:
    """Whether ``value`` can live in blocks as tokens: float32, (N, L, E), of images that fill most lanes."""
    return (
        isinstance(value, Value)
        and value.array.dtype == np.float32
        and len(value.shape) == 3
        and value.shape[0] == low.batch
        and value.array.size > 0
        and 2 * low.count * low.layout.images <= 3 * low.batch
    )


def _as_tokens(low: Lowering, rows: Value) -> Value:
    """Return rows of vectors (N L, E), one image after the other, as the tokens (N, L, E) that they are."""
    tokens = low.flattened[rows] = Value(rows.array.reshape(low.batch, -1, rows.shape[1]))
    return tokens


def reshape(low: Lowering, call: Call) -> bool:
    """Between tokens and rows of vectors nothing moves."""
    (x, _), (y,) = call.arguments, call.outputs
    tokens = low.flattened.get(x, x)
    if tokens not in low.blocks and is_tokens(low, x) and _is_read_by_linear(low, y):
        low.block(x)
    if tokens not in low.blocks or len(tokens.shape) != 3:
        return False
    batch, length, width = tokens.shape
    if y.shape == tokens.shape:
        low.blocks[y] = low.blocks[tokens]
    elif y.shape == (batch * length, width):
        low.flattened[y] = tokens
    else:
        return False
    return True


def _is_read_by_linear(low: Lowering, y: Value) -> bool:
    readers = [call for call in low.program.calls if y in call.reads()]
    rounded = [call.outputs[0] for call in readers if call.kernel == "bfloat16"]
    linear = ("linear", "linear_grad_input", "linear_grad_weight")
    return any(call.kernel in linear for call in readers) or any(_is_read_by_linear(low, z) for z in rounded)


def linear(low: Lowering, call: Call) -> bool:
    """A convolution by 1 x 1 of rows of vectors."""
    x, weight, bias = call.arguments
    if x not in low.flattened or not is_weight(weight):
        return False
    y = low.new_block(_as_tokens(low, call.outputs[0]))
    low.products(low.flattened[x], y, weight, bias, _ONE_PIXEL, adjoint=False)
    return True


def linear_grad_input(low: Lowering, call: Call) -> bool:
    """Its adjoint."""
    gy, weight = call.arguments
    if gy not in low.flattened or not is_weight(weight):
        return False
    gx = low.new_block(_as_tokens(low, call.outputs[0]))
    low.products(low.flattened[gy], gx, weight, None, _ONE_PIXEL, adjoint=True)
    return True


def linear_grad_weight(low: Lowering, call: Call) -> bool:
    """The gradient for its weight, a sum over tokens and images."""
    gy, x = (low.flattened.get(value) for value in call.arguments)
    if gy is None or x is None:
        return False
    (result,) = call.outputs
    if gy in low.rounded and x in low.rounded and amx.pays(low.machine, *result.shape):
        amx.weight_gradient(low, result, gy, x, _ONE_PIXEL)
    else:
        low.total(result, "weight_gradient", gy=low.gradient(gy), x=low.block(x), window=_ONE_PIXEL)
    return True


def layer_norm(low: Lowering, call: Call) -> bool:
    """Of each vector."""
    x, dims, weight, bias, eps = call.arguments
    y, mean, inverse_std = call.outputs
    readers = [c.kernel for c in low.program.calls if {mean, inverse_std} & {*c.reads()}]
    if not is_tokens(low, x) or dims != 1 or weight is None or bias is None or set(readers) - {"layer_norm_grad"}:
        return False
    source, made = low.block(x), low.new_block(y)
    statistics = low.statistics[mean] = Block(2, 1, made.width)
    low.add_instruction(
        "layer_norm", x=source, weight=low.copy(weight), bias=low.copy(bias), eps=eps, size=made.size, y=made,
        statistics=statistics,
    )  # fmt: skip
    return True


def layer_norm_grad(low: Lowering, call: Call) -> bool:
    """The gradients of that."""
    gy, x, _, mean, _, weight = call.arguments
    gx, gweight, gbias = call.outputs
    if mean not in low.statistics:
        return False
    g = low.gradient(gy)
    operands: dict[str, Any] = {"gy": g, "x": low.block(x), "statistics": low.statistics[mean], "size": g.size}
    low.total(gweight, "layer_norm_sums", 2, **operands)
    low.total(gbias, "channel_sums", 2, x=g, size=g.size)
    low.add_instruction("layer_norm_grad", weight=low.copy(weight), gx=low.new_block(gx), **operands)
    return True


def attention(low: Lowering, call: Call) -> bool:
    """Head by head, where a head has the channels and the tokens of a tile at least."""
    qkv, heads = call.arguments
    y, weights = call.outputs
    length, width = y.shape[1], y.shape[2] // heads
    shape, high, _ = low.machine.tile_for_matrix(width, length)
    if not is_tokens(low, qkv) or min(length, width) < high:
        return False
    low.add_instruction(
        "attention", shape=shape, x=low.block(qkv), size=(heads, width, length), scale=1 / math.sqrt(width),
        y=low.new_block(y), weights=low.new_block(weights),
    )  # fmt: skip
    return True


def attention_grad(low: Lowering, call: Call) -> bool:
    """The gradient of that."""
    qkv, gy, weights = call.arguments
    if weights not in low.blocks:
        return False
    _, heads, length, _ = weights.shape
    width = gy.shape[2] // heads
    low.add_instruction(
        "attention_grad", shape=low.machine.tile_for_matrix(width, length)[0], gy=low.block(gy), x=low.block(qkv),
        weights=low.blocks[weights], size=(heads, width, length), scale=1 / math.sqrt(width),
        gx=low.new_block(call.outputs[0]),
    )  # fmt: skip
    return True


def _attention(encoder: Any, shape: int, x: Block, weights: Block, size: Any, **operands: Any) -> Iterator[Any]:
    """With the tables of places; those of columns are whole tiles."""
    _, width, length = size
    wide, row = encoder.machine.TILES[shape][1], encoder.allocation.row(weights)
    tables = {
        "tokens": encoder.offsets(np.arange(length) * encoder.lanes, wide),
        "lines": encoder.offsets(np.arange(length) * row, wide),
        "channels": encoder.offsets(np.arange(width) * encoder.allocation.plane(x)),
    }
    if "gy" in operands:
        tables |= {
            "gy_channels": encoder.offsets(np.arange(width) * encoder.allocation.plane(operands["gy"])),
            "work_lines": encoder.offsets(np.arange(length) * length * encoder.lanes, wide),
            "work": encoder.work,
        }
    yield operands | tables | {"shape": shape, "x": x, "weights": weights, "size": size, "zeros": 0}


RULES = {
    "attention": attention,
    "attention_grad": attention_grad,
    "layer_norm": layer_norm,
    "layer_norm_grad": layer_norm_grad,
}
EXPANDED = {"attention": _attention, "attention_grad": _attention}
"""Nodes whose operands follow from places: what gives them."""
