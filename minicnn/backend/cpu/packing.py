"""Weights in the order in which :func:`~minicnn.backend.cpu.tile.channel_tile` walks them.

A vector of LANES output channels lies together, step by step: (vectors, steps, LANES), and behind all of them the bias,
(vectors, LANES). A step is a tap of an input channel.
"""

import math
from typing import Any

from minicnn.backend.cpu.jit import LANES


def input_channels(outputs: int, inputs: int, groups: int) -> list[range]:
    """Return for each vector of outputs the input channels that it sees, ``inputs`` a group."""
    share = outputs // groups
    lasts = [min(first + LANES, outputs) - 1 for first in range(0, outputs, LANES)]
    return [range(i * LANES // share * inputs, (last // share + 1) * inputs) for i, last in enumerate(lasts)]


def is_depthwise(shape: tuple[int, ...], groups: int) -> bool:
    """Whether each output channel sees one input channel, the one of its number."""
    return shape[0] == groups > 1 and shape[1] == 1


def runs(shape: tuple[int, ...], groups: int) -> list[tuple[int, int, range]]:
    """Return runs of vectors that see the same input channels: the first, their number, and these channels.

    None of them for a depthwise convolution, whose vectors each see their own.
    """
    if is_depthwise(shape, groups):
        return [(i, 1, range(0)) for i in range(-(-shape[0] // LANES))]
    seen = input_channels(shape[0], shape[1], groups)
    starts = [i for i, channels in enumerate(seen) if i == 0 or channels != seen[i - 1]]
    return [(i, end - i, seen[i]) for i, end in zip(starts, [*starts[1:], len(seen)], strict=True)]


def steps(shape: tuple[int, ...], groups: int) -> int:
    """Return how many steps a vector of outputs has, for a weight of ``shape``, (O, C, ...)."""
    taps = math.prod(shape[2:])
    if is_depthwise(shape, groups):
        return taps
    return taps * max(map(len, input_channels(shape[0], shape[1], groups)))


def packed_size(shape: tuple[int, ...], groups: int) -> int:
    """Return the elements of a packed weight of ``shape`` with its bias."""
    return -(-shape[0] // LANES) * (steps(shape, groups) + 1) * LANES


def pack(weight: Any, bias: Any, groups: int, out: Any) -> None:
    """Write a weight (O, C, ...) and a bias (O,) or None to ``out``, of :func:`packed_size`, zeros at first."""
    outputs, inputs, *kernel = weight.shape
    taps, length = math.prod(kernel), steps(weight.shape, groups)
    vectors = -(-outputs // LANES)
    weights, biases = out[: -vectors * LANES].reshape(vectors, length, LANES), out[-vectors * LANES :]
    rows = weight.reshape(outputs, -1)
    if groups == 1 or is_depthwise(weight.shape, groups):
        whole = outputs // LANES * LANES
        weights[: whole // LANES] = rows[:whole].reshape(-1, LANES, length).transpose(0, 2, 1)
        if whole < outputs:
            weights[-1, :, : outputs - whole] = rows[whole:].T
    else:
        seen = input_channels(outputs, inputs, groups)
        for o in range(outputs):
            first = (o // (outputs // groups) * inputs - seen[o // LANES].start) * taps
            weights[o // LANES, first : first + inputs * taps, o % LANES] = rows[o]
    biases[:outputs] = 0 if bias is None else bias
