"""Matrices: how products are encoded that are made for all blocks at once, each as a program of its own."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minicnn.compile import amx
from minicnn.compile.graph import Node, Region
from minicnn.compile.planes import Operands
from minicnn.compile.program import Value

_AT_ONCE = 1 << 13
"""Filters at a point whose products a thread makes at a time: its scratch has them at all points."""
_IN_CACHE = 1 << 17
"""Floats that stay in half the second-level cache of a core."""

Instructions = tuple[list[tuple[str, Operands]], int]
"""Instructions of a product of matrices, and the number of its blocks: of some rows each, of which the tiles are."""


def rows_at_once(machine: Any, high: int, rows: int, most: int) -> int:
    """Return how many ``rows``, ``high`` a tile, a thread takes at a time: as many parts for it as there are threads.

    For each it reads the other factor from beginning to end, which is the longer and in no cache.
    """
    tiles = -(-rows // high)
    fitting = (n for n in range(1, tiles // machine.PARTS + 1) if tiles % n == 0 and n * high <= most)
    return high * max(fitting, default=1)


def _tile_of_matrices(machine: Any, x_points: Region, gy_points: Region) -> tuple[int, int, int]:
    """Return the index of the tile for gradients of filters, rows that a thread takes at once, and its columns."""
    (_, length, inputs), outputs = x_points.shape, gy_points.shape[1]
    shape, high, wide = machine.tile_for_matrix(outputs, inputs // machine.LANES)
    return shape, rows_at_once(machine, high, outputs, min(_AT_ONCE // inputs, _IN_CACHE // length)), wide


def _tile_of_wide_products(machine: Any, x: Region, y: Region) -> tuple[int, int, int]:
    """Return the same for products of all blocks."""
    _, count, inputs, plane = x.shape
    shape, high, wide = machine.tile_for_matrix(y.shape[2], count * plane // machine.LANES)
    return shape, rows_at_once(machine, high, y.shape[2], _AT_ONCE // inputs), wide


def work(machine: Any, node: Node) -> int:
    """Return the scratch that a thread needs for filters at all points, of the rows that it takes at a time."""
    operands: Any = node.operands
    if node.kind == "matrices":
        x = operands["x_points"]
        _, rows, _ = _tile_of_matrices(machine, x, operands["gy_points"])
    else:
        x = operands["x"]
        _, rows, _ = _tile_of_wide_products(machine, x, operands["y"])
    return machine.FILTER_WORK + x.shape[0] * (rows * x.shape[2] + machine.POINTS_APART)


def _matrices(encoder: Any, x_points: Region, gy_points: Region, region: Region) -> Instructions:
    """The gradient of a filter, from those at its points: gy_points[p] x_points[p], which is in the scratch alone."""
    offsets, places = encoder.offsets, encoder.allocation.places
    points, length, inputs = x_points.shape
    outputs = region.shape[0]
    shape, high, wide = _tile_of_matrices(encoder.machine, x_points, gy_points)
    sums, plane = encoder.made, high * inputs + encoder.machine.POINTS_APART
    matrix = encoder.machine.FILTERS[points]
    vectors = np.arange(0, inputs, encoder.lanes)
    common = {
        "shape": shape, "y_row": inputs, "weight_row": length, "y_columns": offsets(vectors, wide),
        "x_columns": offsets(vectors * length, wide), "weight_steps": offsets(np.arange(length)),
        "x_steps": offsets(np.arange(length) * encoder.lanes), "steps": length, "rows_inside": 1,
        "columns": inputs // encoder.lanes, "rows": high, "bias": None, "floor": -np.inf,
    }  # fmt: skip
    instructions: list[tuple[str, Operands]] = []
    for p in range(points):
        operands = {
            "y": (sums + p * plane, -1),
            "weight": (places[gy_points].at + p * gy_points.step, high * length),
            "x": (places[x_points].at + p * x_points.step, 0),
        }
        instructions.append(("products", common | operands))
    back = {
        "sums": (sums, -1), "parts": 1, "part": 0, "plane": plane, "columns": inputs, "rows": outputs, "at_once": high,
        "matrix": outside(matrix), "points": points, "taps": matrix.shape[1], "work": encoder.work,
        "y": (places[region].at, high * inputs * matrix.shape[1]),
    }  # fmt: skip
    return [*instructions, ("filter_gradient", back)], -(-outputs // high)


def _wide_products(
    encoder: Any, x: Region, weight: Region | Value, y: Region, adjoint: bool, rounded: bool
) -> Instructions:
    """y[p] = weight[p] x[p] for all positions, of the tiles of all blocks: a weight is read once.

    weight: of all positions, (points, outputs, inputs), or before its transform, which is then in the scratch alone.
    """
    offsets, places, lanes = encoder.offsets, encoder.allocation.places, encoder.lanes
    points, count, rows, plane = y.shape
    inputs = x.shape[2]
    tiles, blocks = np.arange(0, plane, lanes), np.arange(count)
    is_transformed = len(weight.shape) == 3
    outputs = weight.shape[1] if is_transformed or adjoint else weight.shape[0]
    shape, high, wide = _tile_of_wide_products(encoder.machine, x, y)
    instructions: list[tuple[str, Operands]] = []
    if is_transformed:
        weights, apart, step = encoder.inside(weight, 0), outputs * inputs, high * inputs
    else:
        weights, apart, step = encoder.made, high * inputs + encoder.machine.POINTS_APART, -1
        matrix = encoder.machine.FILTERS[points]
        spread = encoder.machine.filter_operands(matrix, (*weight.shape[:2], matrix.shape[1]), adjoint, rounded)
        spread |= {
            "weight": (encoder.inside(weight, 0), high * spread["row"]), "y": (weights, -1), "plane": apart,
            "at_once": high, "matrix": outside(matrix), "work": encoder.work,
        }  # fmt: skip
        instructions.append(("filter_points", spread))
    common = {
        "shape": shape, "y_row": plane, "weight_row": inputs, "steps": inputs, "columns": tiles.size * count,
        "y_columns": offsets(np.add.outer(blocks * rows * plane, tiles), wide), "bias": None, "rows": high,
        "x_columns": offsets(np.add.outer(blocks * inputs * plane, tiles), wide), "floor": -np.inf,
        "weight_steps": offsets(np.arange(inputs)), "x_steps": offsets(np.arange(inputs) * plane), "rows_inside": 1,
    }  # fmt: skip
    for p in range(points):
        operands = {
            "y": (places[y].at + p * y.step, high * plane),
            "weight": (encoder.moved(weights, p * apart), step),
            "x": (places[x].at + p * x.step, 0),
        }
        instructions.append(("products", common | operands))
    return instructions, rows // high


def outside(array: np.ndarray) -> int:
    """Return the address of an array of float32 that stays where it is."""
    return -(array.ctypes.data // 4)


def _matrix(encoder: Any, gy: Region, x: Region, region: Region) -> Instructions:
    """gy^T x."""
    offsets, lanes, batch = encoder.offsets, encoder.lanes, encoder.graph.program.batch
    outputs, inputs = region.shape
    at = {name: encoder.allocation.places[thing].at for name, thing in (("y", region), ("weight", gy), ("x", x))}
    high, wide = encoder.machine.TILES[0]
    columns = [*range(0, inputs - lanes + 1, lanes), *([inputs - lanes] if inputs % lanes else [])]
    vectors = offsets(columns, wide)
    operands = {
        "shape": 0, "y": (at["y"], high * inputs), "weight": (at["weight"], high), "x": (at["x"], 0), "y_row": inputs,
        "weight_row": 1, "y_columns": vectors, "x_columns": vectors,
        "weight_steps": offsets(np.arange(batch) * outputs), "x_steps": offsets(np.arange(batch) * inputs),
        "steps": batch, "columns": len(columns), "rows": high, "rows_inside": 0, "bias": None, "floor": -np.inf,
    }  # fmt: skip
    return [("products", operands)], -(-outputs // high)


PRODUCTS: dict[str, Callable[..., Instructions]] = {
    **amx.PRODUCTS,
    "matrix": _matrix,
    "matrices": _matrices,
    "wide_products": _wide_products,
}
"""Nodes that are programs of their own."""
