"""AMX: products in matrix registers, where operands are rounded to bfloat16: how they are lowered, and encoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from minicnn.compile.graph import FILTERS_IN_CACHE, Block, Region
from minicnn.compile.program import Value


def pays(machine: Any, outputs: int, inputs: int) -> bool:
    """Whether matrix registers are there, and full enough with channels to be faster than vectors of bfloat16."""
    side, steps = machine.SIDE, machine.STEPS
    return machine.has_amx() and -(-outputs // side) * -(-inputs // steps) * side <= outputs * inputs / 4


def weight_of(low: Any, weight: Value, adjoint: bool) -> Region:
    """Append what writes a weight (O, C, ...), which is read rounded to bfloat16, in registers; return where it is."""
    rows, columns = weight.shape[:2][::-1] if adjoint else weight.shape[:2]
    kernel = weight.shape[2:] or (1, 1)
    groups, steps = -(-rows // low.machine.SIDE), -(-columns // low.machine.STEPS)
    region = Region((groups, steps, *kernel, low.machine.REGISTER))
    assert weight.call is not None  # that rounds it; an edit in between would have raised while it was recorded
    source = low.contiguous(weight.call.arguments[0])
    low.add_call("in_registers", "region", source=source, region=region, adjoint=adjoint)
    return region


def weight_gradient(low: Any, value: Value, rounded_gy: Value, rounded_x: Value, window: Any) -> None:
    """Append the gradient for a weight from gy and x, both rounded to bfloat16."""
    machine = low.machine
    gy, x = (low.layout.block_of(value) for value in (rounded_gy, rounded_x))  # for their sizes
    kernel, stride, padding, dilation = window
    rows, columns = -(-gy.channels // machine.SIDE), -(-x.channels // machine.SIDE)
    across = -(-gy.width // _PIXELS)
    high = (gy.height - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1
    phase = across * _PIXELS + max(v * dilation[1] // stride[1] for v in range(kernel[1]))
    line = stride[1] * phase * machine.LANES // 2 * machine.SIDE
    left, right = (
        _opaque(words, low.layout.lanes)
        for words in (rows * gy.height * across * machine.REGISTER, columns * high * line)
    )
    pairs = low.paired(rounded_gy, machine.STEPS, is_gradient=True), low.paired(rounded_x, machine.STEPS)
    low.add_instruction("amx_rows", gy=pairs[0], size=gy.size, y=left)
    edges = {"rows": (high, padding[0]), "columns": (stride[1], padding[1]), "phase": phase}
    low.add_instruction("amx_columns", x=pairs[1], size=x.size, **edges, y=right)
    # of more filters the sums of a part are in no cache; of large pictures they still cost less memory than the factors
    geometry = {"size": (rows, gy.height, across), "window": window, "phase": phase, "high": high}
    if gy.channels * x.channels > FILTERS_IN_CACHE and gy.height * gy.width < 16 * math.prod(kernel) and low.count > 1:
        low.add_call("amx_sums", "region", gy=left, x=right, **geometry, region=low.new_region(value))
    else:
        sums = Region((rows * machine.SIDE, columns * math.prod(kernel) * machine.SIDE), low.parts)
        low.add_instruction("amx_gradient", gy=left, x=right, **geometry, partial=sums)
        low.add_call("from_registers", "region", sums=sums, region=low.new_region(value))


_FIRST_CACHE = 10_000
"""Words of a weight that stay in a core's first cache, with room for the pixels that they are multiplied with."""
_PIXELS = 4
"""Pixels of a row whose images are the steps of a register."""


def _opaque(words: int, lanes: int) -> Block:
    """Return a block for so many words, whose order only the instructions know that write and read it."""
    return Block(16, 1, -(-words // (16 * lanes)))


def _products(
    encoder: Any, x: Block, y: Block, weight: Region, bias: Region | None, sweeps: Any, adjoint: bool, floor: float
) -> Iterator[dict[str, Any]]:
    """One instruction for each group of pixels that see the same taps: pairs of pixels where two follow each other."""
    places, lanes, offsets, register = encoder.allocation, encoder.lanes, encoder.offsets, encoder.machine.REGISTER
    _, groups, _, kernel_width, _ = weight.shape
    taps = math.prod(weight.shape[2:4])
    _, _, plane, row = places.view(x)
    half = encoder.machine.STEPS // 2  # planes of a register
    whole = bias is None and floor == -math.inf and y.channels % encoder.machine.SIDE == 0
    row_size = groups * taps * register
    # two rows of registers that stay in the first cache; or a weight that is in no cache, and is read once
    by_rows = 2 * row_size <= _FIRST_CACHE or weight.size > x.channels * plane
    for down, right in product(*sweeps):
        starts, results = [], []
        for (to, start), (first, one, other) in product(zip(down.places, down.starts, strict=True), _pairs(right)):
            starts.append(start * row + first * lanes)
            results += [to * places.row(y) + j * lanes if j is not None else -1 for j in (one, other)]
        seen = [(u * kernel_width + v, i * row + j * lanes) for u, i in down.taps for v, j in right.taps]
        factors, distances = np.array(seen).reshape(-1, 2).T
        number = np.arange(groups)[:, None]
        direct = whole and all(j == i + lanes for i, j in zip(results[::2], results[1::2], strict=True))
        steps = (number * taps + factors) * register, number * half * plane + distances
        yield {
            "weight": (encoder.inside(weight, 0), 0), "weight_row": row_size, "x": x, "x_plane": plane,
            "x_columns": offsets(starts, 2), "y_columns": offsets(results),
            "weight_steps": offsets(steps[0]) if seen else 0, "x_steps": offsets(steps[1]) if seen else 0,
            "steps": steps[0].size, "columns": len(starts), "rows": y.channels, "bias": bias, "floor": floor,
            "direct": int(direct), "by_rows": int(by_rows), "work": encoder.work, "y": y, "y_row": places.plane(y),
        }  # fmt: skip


def _pairs(sweep: Any) -> Iterator[tuple[int, int, int | None]]:
    """Yield where pairs of places begin in the source, and both; or one, where the next begins elsewhere."""
    i = 0
    while i < len(sweep.places):
        follows = i + 1 < len(sweep.places) and sweep.starts[i + 1] == sweep.starts[i] + 1
        yield sweep.starts[i], sweep.places[i], sweep.places[i + 1] if follows else None
        i += 1 + follows


def _gradient(encoder: Any, partial: Region, **operands: Any) -> Iterator[dict[str, Any]]:
    yield _of_gradient(encoder, partial.shape[1], 1, **operands) | {"partial": partial}


def _matrix(encoder: Any, region: Region, **operands: Any) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """The gradient of a weight for all blocks at once: two registers of rows at a time, whose sums are scratch."""
    machine = encoder.machine
    outputs, inputs, *kernel = region.shape
    taps, columns = math.prod(kernel), -(-inputs // machine.SIDE)
    row, made = columns * taps * machine.SIDE, (encoder.made, -1)
    rows = _of_gradient(encoder, row, encoder.graph.count, **operands)
    places = encoder.allocation.places
    rows |= {
        "gy": (places[rows["gy"]].at, _AT_ONCE * rows["gy_row"]), "x": (places[rows["x"]].at, 0), "y": made,
        "at_once": _AT_ONCE,
    }  # fmt: skip
    at_once = _AT_ONCE * machine.SIDE
    gathered = {
        "sums": made, "parts": 1, "part": 0, "row": row, "columns": inputs, "rows": outputs, "at_once": at_once,
        "taps": taps, "work": encoder.work, "y": (places[region].at, at_once * inputs * taps),
    }  # fmt: skip
    return [("amx_matrix", rows), ("amx_gathered", gathered)], -(-outputs // at_once)


_AT_ONCE = 2
"""Registers of rows of a gradient that a thread makes at a time."""


def work(machine: Any, region: Region) -> int:
    """Return the scratch that the gradient for all blocks needs."""
    _, inputs, *kernel = region.shape
    return machine.FILTER_WORK + _AT_ONCE * machine.SIDE * machine.up(inputs, machine.SIDE) * math.prod(kernel)


def _of_gradient(
    encoder: Any, row: int, blocks: int, gy: Block, x: Block, size: tuple[int, int, int], window: Any, phase: int,
    high: int,
) -> dict[str, Any]:  # fmt: skip
    """Operands of a gradient whose rows of sums are ``row`` words long, over so many ``blocks`` of images."""
    kernel, stride, _, dilation = window
    machine, offsets = encoder.machine, encoder.offsets
    rows, height, across = size
    pixel = encoder.lanes // 2 * machine.SIDE
    line = stride[1] * phase * pixel
    columns = row // machine.SIDE // math.prod(kernel)
    taps = [
        u * dilation[0] * line + (v * dilation[1] % stride[1] * phase + v * dilation[1] // stride[1]) * pixel
        for u in range(kernel[0]) for v in range(kernel[1])
    ]  # fmt: skip
    pixels = np.add.outer(np.arange(height) * stride[0] * line, np.arange(across) * _PIXELS * pixel)
    numbers = np.arange(blocks)[:, None] * machine.LANES
    gy_size, x_size = (math.prod(block.size) for block in (gy, x))
    return {
        "gy": gy, "gy_row": height * across * machine.REGISTER, "x": x,
        "x_columns": offsets(np.add.outer(np.arange(columns) * high * line, taps), 2),
        "gy_steps": offsets(numbers * gy_size + np.arange(height * across) * machine.REGISTER),
        "x_steps": offsets(numbers * x_size + pixels.ravel()), "steps": blocks * height * across,
        "columns": row // machine.SIDE, "groups": rows, "row": row,
    }  # fmt: skip


EXPANDED: dict[str, Callable[..., Any]] = {
    "amx_gradient": _gradient,
    "amx_products": _products,
}
"""Nodes whose operands follow from places: what gives them."""
PRODUCTS = {"amx_sums": _matrix}
"""Nodes that are programs of their own."""
