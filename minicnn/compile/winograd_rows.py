"""Winograd's F(4, 5) along the rows: how convolutions by kernels of five columns are lowered.

Pictures and filters are transformed along their rows, once for all that need them. At each point of the transform what
remains is a convolution by a kernel of one column.
"""

from typing import Any

import numpy as np

from minicnn.compile.graph import Block, Region
from minicnn.compile.program import Value


def pays(machine: Any, window: Any, width: int) -> bool:
    """Whether a convolution with results of ``width`` is one that the method does faster."""
    kernel, stride, _, dilation = (horizontal for _, horizontal in window)
    return kernel == 5 and stride == dilation == 1 and width >= machine.ROW_OUTPUTS


def products(low: Any, x: Value, y: Block, weight: Value, bias: Region | None, window: Any, adjoint: bool) -> None:
    """Append y = weight x + bias, or the adjoint of that map."""
    padding = window[2][1]
    if adjoint:
        source = _transformed(low, "gather_rows_grad", x, low.block(x).width)
    else:
        source = _transformed(low, "spread_rows", x, y.width, padding=padding)
    made = Block(y.channels, y.height, source.width, points=source.points)
    if weight not in low.filters_of_rows:
        w = low.filters_of_rows[weight] = Region((source.points, *weight.shape[:3], 1))
        low.add_call("filters", "region", source=weight, region=w, adjoint=False)
    low.tiles(source, made, low.filters_of_rows[weight], None, _one_column(window), adjoint)
    if adjoint:
        low.add_instruction("spread_rows_grad", x=made, size=y.size, tiles=made.width, padding=padding, y=y)
    else:
        low.add_instruction("gather_rows", x=made, size=y.size, tiles=made.width, bias=bias, floor=-np.inf, y=y)


def gradient(low: Any, value: Value, gy: Value, x: Value, window: Any) -> None:
    """Append the gradient for a filter from the points of both."""
    width = low.block(gy).width
    gy_points = _transformed(low, "gather_rows_grad", gy, width)
    x_points = _transformed(low, "spread_rows", x, width, padding=window[2][1])
    sums = Region((gy_points.points, gy_points.channels, x_points.channels * window[0][0]), low.parts)
    low.add_instruction(
        "weight_gradient", gy=gy_points, x=x_points, window=_one_column(window), partial=sums,
        halos={"x": (window[2][0], 0)},
    )  # fmt: skip
    low.add_call("unfilter", "region", sums=sums, region=low.new_region(value))


def _one_column(window: Any) -> Any:
    """The window that is left of one where a transform takes the columns."""
    return tuple((n, one) for (n, _), one in zip(window, (1, 1, 0, 1), strict=True))


def _transformed(low: Any, kind: str, value: Value, width: int, **operands: Any) -> Block:
    """Return the points of the rows of ``value`` for outputs of ``width``; they are made once."""
    key = kind, value, *operands.values()
    if key not in low.transforms_of_rows:
        x = low.gradient(value) if kind == "gather_rows_grad" else low.block(value)
        tiles = -(-width // low.machine.ROW_OUTPUTS)
        y = low.transforms_of_rows[key] = Block(x.channels, x.height, tiles, points=low.machine.ROW_POINTS)
        low.add_instruction(kind, x=x, size=x.size, tiles=tiles, y=y, **operands)
    made: Block = low.transforms_of_rows[key]
    return made
