"""The rules: how a call of a kernel becomes block instructions. Each takes one call, or leaves it by returning False.

A rule may change an instruction that is there already: that is fusion (a ReLU becomes the floor of the convolution
before it).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minicnn.compile.lower import Block, Lowering, Region
from minicnn.compile.program import Call, Program


def lower(program: Program, machine: Any, lanes: int) -> Lowering:
    """Apply the rules to the calls of a program, for blocks of ``lanes`` images; what has no rule stays a call."""
    low = Lowering(program, machine, lanes)
    rules = RULES if lanes > 1 else SINGLE
    if program.backend.name != "numpy":  # the machine stands for the kernels of the CPU
        rules = {}
    for call in program.calls:
        rule = rules.get(call.kernel)
        if rule is None or any(map(low.is_edited_with_others, call.outputs)) or not rule(low, call):
            low.call(call)
    for value in program.outputs:
        low.plain(value)
    return low


def _conv2d(low: Lowering, call: Call) -> bool:
    x, weight, bias, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(x) or groups != 1 or weight.call is not None:
        return False
    narrow = call.outputs[0].shape[3] < low.machine.LANES or x.shape[2:] == (1, 1)
    if low.lanes == 1 and (stride[1] != 1 or narrow):
        return False
    y = low.blocks[call.outputs[0]] = Block.of(call.outputs[0])
    low.products(x, y, weight, bias, (weight.shape[2:], stride, padding, dilation), turned=False)
    return True


def _conv2d_grad_input(low: Lowering, call: Call) -> bool:
    gy, weight, shape, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(gy) or groups != 1:
        return False
    gx = low.blocks[call.outputs[0]] = Block(*shape[1:])
    low.products(gy, gx, weight, None, (weight.shape[2:], stride, padding, dilation), turned=True)
    return True


def _conv2d_grad_weight(low: Lowering, call: Call) -> bool:
    gy, x, shape, stride, padding, dilation, groups = call.arguments
    if not low.is_batch(gy) or not low.is_batch(x) or groups != 1:
        return False
    g, source = low.block(gy), low.block(x)
    window = (shape[2:], stride, padding, dilation)
    if low.is_of_rows(window, g.width):
        low.gradient_of_rows(call.outputs[0], gy, x, window)
        return True
    source.halo = tuple(max(a, b) for a, b in zip(source.halo, padding, strict=True))
    if low.is_winograd(window, source, g) and source.channels % low.machine.LANES == 0:
        low.winograd_gradient(call.outputs[0], g, source)
        return True
    low.total(call.outputs[0], "weight_gradient", [g, source], gy=g, x=source, window=window)
    return True


def _bias(low: Lowering, call: Call) -> bool:
    if not low.is_batch(call.arguments[0]):
        return False
    g = low.block(call.arguments[0])
    low.total(call.outputs[0], "channel_sums", [g], 2, x=g)  # of each part the sum, and what rounding lost
    return True


def _linear(low: Lowering, call: Call) -> bool:
    x, weight, bias = call.arguments
    if not low.is_batch(x) or weight.call is not None:
        return False
    y = low.blocks[call.outputs[0]] = Block(weight.shape[0], 1, 1)
    low.products(x, y, weight, bias, None, turned=False)
    return True


def _linear_grad_input(low: Lowering, call: Call) -> bool:
    gy, weight = call.arguments
    if not low.is_batch(gy) or weight.call is not None:
        return False
    gx = low.blocks[call.outputs[0]] = Block(weight.shape[1], 1, 1)
    low.products(gy, gx, weight, None, None, turned=True)
    return True


def _linear_grad_weight(low: Lowering, call: Call) -> bool:
    gy, x = call.arguments
    if not low.is_batch(gy) or not low.is_batch(x) or x.shape[1] < 8:
        return False
    factors = [low.region(gy), low.region(x)]
    region = low.regions[call.outputs[0]] = Region(call.outputs[0].shape)
    low.add("matrix", factors, [region, call.outputs[0]], gy=factors[0], x=factors[1], region=region)
    return True


def _reshape(low: Lowering, call: Call) -> bool:
    x = call.arguments[0]
    (y,) = call.outputs
    if x not in low.blocks or not low.is_batch(y):
        return False
    before = low.blocks[x]
    after = Block.of(y)
    if before.size == after.size:
        low.alias(y, x)
        return True
    low.blocks[y] = after
    low.origins[after] = low.origins.get(before, before)
    via = Region(y.shape) if low.lanes == 1 else None  # a pixel of one image is no vector that could be copied
    low.add("reshape", [before], [after] if via is None else [after, via], x=before, y=after, via=via)
    return True


def _relu(low: Lowering, call: Call) -> bool:
    (x,) = call.arguments
    (y,) = call.outputs
    if x not in low.blocks:
        return False
    if low.floor(x, 0.0):
        low.blocks[y] = low.blocks[x]
    elif low.lanes == 1:
        return False
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
    low.activated[x, alpha] = y
    low.uses[y] += len(later)
    return True


def _elu_grad(low: Lowering, call: Call) -> bool:
    gy, x, alpha = call.arguments
    if low.activated.get((x, alpha)) not in low.blocks:
        return False
    g, y = low.block(gy), low.blocks[low.activated[x, alpha]]  # x may be gone: no call could take over
    low.pointwise("elu_grad", call.outputs[0], low.in_place(gy), g, y, number=alpha)
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


def _sum_to(low: Lowering, call: Call) -> bool:
    return call.outputs[0] is call.arguments[0]  # of the same shape: it returned its argument


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
    partial = Region((2, channels), 2 * low.parts)  # of each part the sum, and what rounding lost
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
    block = low.blocks[y] = Block.of(y)
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


def _avg_pool2d(low: Lowering, call: Call) -> bool:
    """Of the pooling to one pixel, and its gradient, which is pooling from one pixel."""
    x, rows, columns = call.arguments
    (y,) = call.outputs
    if not low.is_batch(x) or (1, 1) not in (x.shape[2:], y.shape[2:]):
        return False
    source, block = low.block(x), Block.of(y)
    low.blocks[y] = block
    factors = [low.weight(rows), low.weight(columns)]
    kind = "avg_pool" if y.shape[2:] == (1, 1) else "avg_pool_grad"
    low.add(kind, [source, *factors], [block], x=source, y=block, rows=factors[0], columns=factors[1])
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
    "sum_to": _sum_to,
    "dropout": _dropout,
    "batch_norm_statistics": _batch_norm_statistics,
    "batch_norm": _batch_norm,
    "batch_norm_grad": _batch_norm_grad,
    "max_pool2d": _max_pool2d,
    "max_pool2d_grad": _max_pool2d_grad,
    "avg_pool2d": _avg_pool2d,
    "cross_entropy": _cross_entropy,
    "cross_entropy_grad": _cross_entropy_grad,
}

SINGLE = {kernel: RULES[kernel] for kernel in ("conv2d", "linear", "reshape", "relu", "max_pool2d")}
"""The rules for images one by one."""
