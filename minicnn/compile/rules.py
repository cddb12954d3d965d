"""The rules: each lowers one call and returns True, or returns False to leave it a kernel call."""

from typing import Any

import numpy as np

from minicnn.compile import amx, tokens, winograd_rows
from minicnn.compile.graph import Block, Layout, Region
from minicnn.compile.lower import Lowering, is_weight
from minicnn.compile.program import Call, Value


def _conv2d(low: Lowering, call: Call) -> bool:
    x, weight, bias, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(x) or groups != 1 or not is_weight(weight):
        return False
    window = (weight.shape[2:], stride, padding, dilation)
    low.products(x, low.new_block(call.outputs[0]), weight, bias, window, adjoint=False)
    return True


def _conv2d_grad_input(low: Lowering, call: Call) -> bool:
    gy, weight, shape, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(gy) or groups != 1:
        return False
    gx = low.blocks[call.outputs[0]] = Block(*shape[1:])
    low.products(gy, gx, weight, None, (weight.shape[2:], stride, padding, dilation), adjoint=True)
    return True


def _conv2d_grad_weight(low: Lowering, call: Call) -> bool:
    gy, x, shape, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(gy) or not low.is_batch(x) or groups != 1:
        return False
    window = (shape[2:], stride, padding, dilation)
    if gy in low.rounded and x in low.rounded and amx.pays(low.machine, *shape[:2]):
        amx.weight_gradient(low, call.outputs[0], gy, x, window)
        return True
    g, source = low.gradient(gy), low.block(x)
    if winograd_rows.pays(low.machine, window, g.width):
        winograd_rows.gradient(low, call.outputs[0], gy, x, window)
    elif not low.winograd_gradient(call.outputs[0], g, source, window):
        low.total(call.outputs[0], "weight_gradient", gy=g, x=source, window=window, halos={"x": padding})
    return True


def _bfloat16(low: Lowering, call: Call) -> bool:
    """Operands are rounded when somebody reads them; weights and other states by the kernel."""
    (x,), (y,) = call.arguments, call.outputs
    is_state = x.call is None and x not in low.program.inputs
    if is_state or low.is_edited(x) or not (low.is_batch(x) or x in low.flattened or x in low.blocks):
        return False
    low.machine.require_bfloat16()
    if x in low.flattened:
        x = low.flattened[x]
        seen = low.flattened[y] = Value(x.array)
        low.rounded[seen] = x
    else:
        low.rounded[y] = x
    return True


def _grad_bias(low: Lowering, call: Call) -> bool:
    gy = low.flattened.get(call.arguments[0], call.arguments[0])
    if gy not in low.blocks and not low.is_batch(gy):
        return False
    g = low.gradient(gy)
    low.total(call.outputs[0], "channel_sums", 2, x=g, size=g.size)  # of each part the sum, and what rounding lost
    return True


def _linear(low: Lowering, call: Call) -> bool:
    x, weight, bias = call.arguments
    if tokens.linear(low, call):
        return True
    if not low.is_batch(x) or not is_weight(weight):
        return False
    low.products(x, low.new_block(call.outputs[0]), weight, bias, None, adjoint=False)
    return True


def _linear_grad_input(low: Lowering, call: Call) -> bool:
    gy, weight = call.arguments
    if tokens.linear_grad_input(low, call):
        return True
    if not low.is_batch(gy) or not is_weight(weight):
        return False
    low.products(gy, low.new_block(call.outputs[0]), weight, None, None, adjoint=True)
    return True


def _linear_grad_weight(low: Lowering, call: Call) -> bool:
    gy, x = call.arguments
    if tokens.linear_grad_weight(low, call):
        return True
    if not low.is_batch(gy) or not low.is_batch(x) or x.shape[1] < low.machine.LANES:
        return False
    factors = low.region(gy), low.region(x)
    low.add_call("matrix", "region", gy=factors[0], x=factors[1], region=low.new_region(call.outputs[0]))
    return True


def _reshape(low: Lowering, call: Call) -> bool:
    x = call.arguments[0]
    (y,) = call.outputs
    if tokens.reshape(low, call):
        return True
    if x not in low.blocks or not (low.is_batch(x) and low.is_batch(y)):
        return False
    before, after = low.blocks[x], Block.of(y)
    if before.size == after.size:
        low.blocks[y] = before
    else:
        low.blocks[y] = after
        low.add_call("reshape", "y", x=before, y=after)
    return True


def _relu(low: Lowering, call: Call) -> bool:
    (x,) = call.arguments
    if x not in low.blocks:
        return False
    low.add_instruction("relu", a=low.blocks[x], y=low.new_block(call.outputs[0]))
    return True


def _relu_grad(low: Lowering, call: Call) -> bool:
    gy, y = call.arguments
    if gy not in low.blocks or y not in low.blocks:
        return False
    low.add_instruction("relu_grad", a=low.blocks[gy], b=low.blocks[y], y=low.new_block(call.outputs[0]))
    return True


def _elu(low: Lowering, call: Call) -> bool:
    x, alpha = call.arguments
    (y,) = call.outputs
    if x not in low.blocks or alpha < 0:
        return False
    low.add_instruction("elu", a=low.blocks[x], alpha=alpha, y=low.new_block(y))
    low.activated[x, alpha] = y
    return True


def _elu_grad(low: Lowering, call: Call) -> bool:
    gy, x, alpha = call.arguments
    if low.activated.get((x, alpha)) not in low.blocks:
        return False
    y = low.blocks[low.activated[x, alpha]]  # the sign of the output is that of the input
    low.add_instruction("elu_grad", a=low.block(gy), b=y, alpha=alpha, y=low.new_block(call.outputs[0]))
    return True


def _gelu(low: Lowering, call: Call) -> bool:
    x, approximate = call.arguments
    if x not in low.blocks or approximate != "none":
        return False
    y = low.new_block(call.outputs[0])
    calls = low.program.calls if "gelu_grad" in low.layout.rules else []
    if any(c.kernel == "gelu_grad" and c.arguments[1] is x for c in calls):
        low.slopes[x] = Block(*y.size)
        low.add_instruction("gelu_and_slope", a=low.blocks[x], terms=None, y=y, slope=low.slopes[x])
    else:
        low.add_instruction("gelu", a=low.blocks[x], terms=None, y=y)
    return True


def _gelu_grad(low: Lowering, call: Call) -> bool:
    gy, x, approximate = call.arguments
    if x not in low.slopes or approximate != "none":
        return False
    low.add_instruction("multiply", a=low.block(gy), b=low.slopes[x], y=low.new_block(call.outputs[0]))
    return True


def _add(low: Lowering, call: Call) -> bool:
    a, b = call.arguments
    if not all(low.is_batch(v) or tokens.is_tokens(low, v) for v in (a, b)) or a.shape != b.shape:
        return False
    if a not in low.blocks and b not in low.blocks:
        return False
    low.add_instruction("add", a=low.block(a), b=low.block(b), floor=-np.inf, y=low.new_block(call.outputs[0]))
    return True


def _sum_to(low: Lowering, call: Call) -> bool:
    return call.outputs[0] is call.arguments[0]  # of the same shape: it returned its argument


def _dropout(low: Lowering, call: Call) -> bool:
    x, key, p = call.arguments
    if x not in low.blocks or not low.is_batch(x):  # in tokens the elements lie in another order than they are drawn
        return False
    threshold, scale = round(p * 2**24), 1 / (1 - p)
    block = low.blocks[x]
    y = low.new_block(call.outputs[0])
    low.add_instruction("dropout", x=block, size=block.size, key=key, threshold=threshold, scale=scale, y=y)
    return True


def _batch_norm_statistics(low: Lowering, call: Call) -> bool:
    (x,) = call.arguments
    if x not in low.blocks or not low.is_batch(x):
        return False
    block, (mean, var) = low.blocks[x], call.outputs
    partial = Region((2, block.channels), low.count)
    low.add_instruction("moments", x=block, partial=partial)
    out = low.new_region(mean), low.new_region(var)
    low.add_call("statistics", "out", partial=partial, out=out, pixels=block.height * block.width)
    return True


def _batch_norm(low: Lowering, call: Call) -> bool:
    x, *values = call.arguments
    if x not in low.blocks or not low.is_batch(x):
        return False
    shared = low.layout.is_shared  # then whole vectors of channels
    terms = Region((2, low.machine.up(x.shape[1], low.layout.lanes if shared else 1)))
    low.add_call("affine_terms", "out", values=values, out=terms)
    low.add_instruction("affine", a=low.blocks[x], terms=terms, floor=-np.inf, y=low.new_block(call.outputs[0]))
    return True


def _batch_norm_grad(low: Lowering, call: Call) -> bool:
    gy, x, mean, inverse_std, weight, training = call.arguments
    if gy not in low.blocks or x not in low.blocks or not low.is_batch(x):
        return False
    g, source, channels = low.gradient(gy), low.blocks[x], x.shape[1]
    means = low.regions.get(mean) or low.copy(mean)
    partial = Region((2, channels), 2 * low.parts)  # of each part the sum, and what rounding lost
    low.add_instruction("norm_sums", gy=g, x=source, means=means, partial=partial)
    gx, *sums = call.outputs
    terms = Region((3, channels))
    out = [terms, *(low.regions[v] if v in low.regions else low.new_region(v) for v in sums)]
    count = x.array.size // channels if training else None
    low.add_call("norm_terms", "out", partial=partial, values=[mean, inverse_std, weight], out=out, count=count)
    low.add_instruction("norm_grad", a=g, b=source, terms=terms, y=low.new_block(gx))
    low.note_absent_are_0(low.blocks[gx])
    return True


def _max_pool2d(low: Lowering, call: Call) -> bool:
    x, window, stride, padding, dilation, output_size = call.arguments
    y, taps = call.outputs
    inside = all((o - 1) * s + k <= n for o, s, k, n in zip(output_size, stride, window, x.shape[2:], strict=True))
    if x not in low.blocks or padding != (0, 0) or dilation != (1, 1) or not inside:
        return False
    readers = [c for c in low.program.calls if taps in c.reads()]
    for reader in readers:  # all know taps of blocks
        known = reader.kernel == "max_pool2d_grad" and reader.kernel in low.layout.rules
        if not known or any(map(low.is_edited_with_others, reader.outputs)):
            return False
    block = low.new_block(y)
    operands = {"x": low.blocks[x], "size": block.size, "window": window, "stride": stride, "floor": -np.inf}
    if readers:
        low.blocks[taps] = Block(*block.size)
        low.add_instruction("max_pool_and_taps", **operands, y=block, taps=low.blocks[taps])
    else:
        low.add_instruction("max_pool", **operands, y=block)
    return True


def _max_pool2d_grad(low: Lowering, call: Call) -> bool:
    gy, taps, shape, window, stride, _, _ = call.arguments
    if taps not in low.blocks:
        return False
    g, gx = low.block(gy), low.new_block(call.outputs[0])
    options = {"size": g.size, "x_size": gx.size, "window": window, "stride": stride}
    low.add_instruction("max_pool_grad", gy=g, taps=low.blocks[taps], gx=gx, **options)
    low.note_absent_are_0(gx, g)
    return True


def _avg_pool2d(low: Lowering, call: Call) -> bool:
    """Pooling to one pixel; or its gradient, which spreads one pixel."""
    x, rows, columns = call.arguments
    (y,) = call.outputs
    if not low.is_batch(x) or (1, 1) not in (x.shape[2:], y.shape[2:]):
        return False
    source, block = low.block(x), low.new_block(y)
    factors: dict[str, Any] = {"rows": low.copy(rows), "columns": low.copy(columns)}
    if y.shape[2:] == (1, 1):
        low.add_instruction("avg_pool", x=source, size=source.size, y=block, **factors)
    else:
        low.add_instruction("avg_pool_grad", gy=source, size=block.size, gx=block, **factors)
    return True


def _cross_entropy(low: Lowering, call: Call) -> bool:
    logits, labels, weight, smoothing = call.arguments
    while labels.call is not None and labels.call.kernel == "copy" and not low.is_edited(labels):
        labels = labels.call.arguments[0]
    if not low.is_batch(logits) or weight is not None or labels is not low.labels:
        return False
    losses, probabilities = call.outputs
    options: dict[str, Any] = {"classes": logits.shape[1], "smoothing": smoothing}
    x, y = low.block(logits), low.new_block(probabilities)
    low.add_instruction("cross_entropy", x=x, y=y, losses=low.new_region(losses), **options)
    return True


def _cross_entropy_grad(low: Lowering, call: Call) -> bool:
    glosses, probabilities, _, weight, smoothing = call.arguments
    if probabilities not in low.blocks or weight is not None:
        return False
    scale = Region(glosses.shape)
    low.add_call("load", "region", source=low.contiguous(glosses), region=scale)
    y = low.new_block(call.outputs[0])
    options: dict[str, Any] = {"classes": y.channels, "smoothing": smoothing, "glosses": scale}
    low.add_instruction("cross_entropy_grad", x=low.blocks[probabilities], y=y, **options)
    return True


MANY = {
    **tokens.RULES,
    "conv2d": _conv2d,
    "conv2d_grad_input": _conv2d_grad_input,
    "conv2d_grad_weight": _conv2d_grad_weight,
    "conv2d_grad_bias": _grad_bias,
    "linear": _linear,
    "linear_grad_input": _linear_grad_input,
    "linear_grad_weight": _linear_grad_weight,
    "linear_grad_bias": _grad_bias,
    "reshape": _reshape,
    "relu": _relu,
    "relu_grad": _relu_grad,
    "elu": _elu,
    "elu_grad": _elu_grad,
    "gelu": _gelu,
    "gelu_grad": _gelu_grad,
    "add": _add,
    "sum_to": _sum_to,
    "dropout": _dropout,
    "batch_norm_statistics": _batch_norm_statistics,
    "bfloat16": _bfloat16,
    "batch_norm": _batch_norm,
    "batch_norm_grad": _batch_norm_grad,
    "max_pool2d": _max_pool2d,
    "max_pool2d_grad": _max_pool2d_grad,
    "avg_pool2d": _avg_pool2d,
    "cross_entropy": _cross_entropy,
    "cross_entropy_grad": _cross_entropy_grad,
}
"""The rules where lanes are images."""


def interleaved(lanes: int) -> Layout:
    """Return the layout for many images: ``lanes`` of them a block, pixel by pixel."""
    return Layout(lanes, lanes, MANY, Block.of)
