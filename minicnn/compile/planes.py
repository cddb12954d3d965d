"""Planes: how nodes are encoded where lanes are channels, in pieces that the threads share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from minicnn.compile.graph import Block, Region

Operands = dict[str, Any]

_SHARED = 1 << 13
"""Vectors of multiply-adds, or of pixels, from which work is divided among threads that share a program."""
_TILES = 8
"""Tiles that a thread takes at a time, at least."""
_PIECES = 8
"""Into how many pieces at most: many enough for a thread that is late, and the same whatever the threads."""


@dataclass(frozen=True)
class _Planes:
    """Where planes begin, how many an image has, how far they and their rows are apart, and their size."""

    at: int
    count: int
    plane: int
    row: int
    height: int
    width: int

    @classmethod
    def of(cls, encoder: Any, block: Block) -> _Planes:
        at, _, plane, row = encoder.allocation.view(block)
        return cls(at, block.channels // encoder.graph.program.batch, plane, row, block.height, block.width)


def _image_by_image(encoder: Any, **operands: Any) -> Iterator[Operands]:
    """Between images and planes: an instruction for each image."""
    name, block = next((name, v) for name, v in operands.items() if isinstance(v, Block))
    at, step, plane, row = encoder.allocation.view(block)
    for image in range(batch := encoder.graph.program.batch):
        view = at + image * block.channels // batch * plane, step, plane, row
        yield operands | {"image": image, name: view}


def _channel_affine(encoder: Any, terms: Region, **operands: Any) -> Iterator[Operands]:
    yield operands | {"terms": terms, "groups": terms.shape[1] // encoder.lanes}


def rows_of_tiles(block: Block, edge: int) -> int:
    """Return how many rows of tiles a thread takes at a time: enough tiles for a weight that it reads for them."""
    down, across = block.tiles(edge)
    return min(down, -(-_TILES // across))


def _channel_winograd(
    encoder: Any, edge: int, x: Block, weight: Region, inputs: int, bias: Region | None, added: Block | None,
    floor: float, y: Block,
) -> Iterator[Operands]:  # fmt: skip
    """An instruction for some rows of tiles of an image."""
    machine, lanes, source, result = encoder.machine, encoder.lanes, _Planes.of(encoder, x), _Planes.of(encoder, y)
    (down, across), at_once, channels = y.tiles(edge), rows_of_tiles(y, edge), np.arange(inputs)
    for image in range(encoder.graph.program.batch):
        for i in range(0, down, at_once):
            rows = min(at_once, down - i)
            tiles = rows * across
            ((_, _, shape),) = machine.tiles_for_channels(4, tiles)
            x_at, y_at = (p.at + image * p.count * p.plane + i * edge * p.row for p in (source, result))
            yield {
                "edge": edge, "shape": shape, "x": (x_at, 0, source.plane, source.row),
                "size": (source.count, rows, across), "weight": weight, "weight_point": weight.shape[1],
                "weight_row": inputs * lanes, "bias": bias, "groups": result.count,
                "columns": encoder.offsets([*range(0, tiles * lanes, lanes), *[(tiles - 1) * lanes] * lanes]),
                "weight_steps": encoder.offsets(channels * lanes),
                "x_steps": encoder.offsets(channels // lanes * tiles * lanes + channels % lanes), "steps": inputs,
                "is_sum": int(added is not None), "floor": floor, "work": encoder.work,
                "height": y.height - i * edge, "width": y.width, "y": (y_at, 0, result.plane, result.row),
            }  # fmt: skip


def _spread_tiles(encoder: Any, edge: int, x: Block, y: Region) -> Iterator[Operands]:
    for _, _, size, step, plane, view, at in _parts_of_tiles(encoder, edge, x, y):
        yield {"edge": edge, "x": view, "size": size, "step": step, "plane": plane, "y": at}


def _gather_tiles(
    encoder: Any, edge: int, x: Region, bias: Region | None, added: Block | None, floor: float, y: Block
) -> Iterator[Operands]:
    groups = y.channels // encoder.graph.program.batch if encoder.graph.layout.is_shared else 0
    for first, above, size, step, plane, view, at in _parts_of_tiles(encoder, edge, y, x):
        yield {
            "edge": edge, "x": at, "size": size, "step": step, "plane": plane, "groups": groups, "bias": bias,
            "first": first, "is_sum": int(added is not None), "floor": floor, "work": encoder.work,
            "height": y.height - above, "width": y.width, "y": view,
        }  # fmt: skip


def _parts_of_tiles(encoder: Any, edge: int, block: Block, points: Region) -> Iterator[tuple[Any, ...]]:
    """Yield tiles in pieces, where threads share them, else all of a block.

    Of each the first plane, and the rows of pixels above; planes, and rows and columns of tiles; how far points and
    their planes are apart; the view of the planes, and where their points are.
    """
    at, step, plane, row = encoder.allocation.view(block)
    (down, across), lanes = block.tiles(edge), encoder.lanes
    whole = down * across * lanes
    each = math.prod(points.shape[1:]) // encoder.graph.count  # block
    pieces = min(_PIECES, block.channels * down * across * points.shape[0] // _SHARED * 4)
    parts = _divided(block.channels, 1, pieces if encoder.graph.layout.is_shared else 1)
    for first, planes in parts:
        # the rows of several planes do not follow one another
        for i, rows in _divided(down, 1, -(-pieces // len(parts)) if planes == 1 else 1):
            view = at + first * plane + i * edge * row, step, plane, row
            place = encoder.inside(points, first * whole + i * across * lanes), each
            yield first, i * edge, (planes, rows, across), points.step, whole, view, place


def _channel_products(encoder: Any, x: Block | Region, **operands: Any) -> Iterator[Operands]:
    """Instructions for pixels of blocks, or for all points of a transform, whose tiles are pixels of one row."""
    return _at_points(encoder, x, **operands) if isinstance(x, Region) else _of_blocks(encoder, x, **operands)


def _of_blocks(encoder: Any, x: Block, y: Block, **operands: Any) -> Iterator[Operands]:
    alone = {"points": 1, "weight_point": 0, "x_point": 0, "y_point": 0}
    for row in _products(encoder, _Planes.of(encoder, x), _Planes.of(encoder, y), pieces=_PIECES, **operands):
        yield row | alone


def _at_points(
    encoder: Any, x: Region, y: Region, weight: Region, size: tuple[int, int, int], weight_shape: tuple[int, ...],
    **operands: Any,
) -> Iterator[Operands]:  # fmt: skip
    lanes, (points, _), (inputs, _, tiles) = encoder.lanes, x.shape, size
    sources, results = (
        _Planes(encoder.inside(region, 0), -(-channels // lanes), tiles * lanes, tiles * lanes, 1, tiles)
        for region, channels in ((x, inputs), (y, weight_shape[0]))
    )
    apart = {"weight_point": weight.step, "x_point": x.step, "y_point": y.step}
    pieces = min(_PIECES, points * tiles * encoder.graph.program.batch * results.count * inputs // _SHARED)
    for row in _products(encoder, sources, results, weight, size, weight_shape, pieces=1, **operands):
        x_at, y_at, weight_at = (row[name][0] for name in ("x", "y", "weight"))
        for point, count in _divided(points, 1, pieces):
            yield row | apart | {
                "points": count, "x": (x_at + point * x.step, 0), "y": (y_at + point * y.step, 0),
                "weight": (encoder.moved(weight_at, point * weight.step), 0),
                "bias": encoder.moved(row["bias"], point * weight.step),
            }  # fmt: skip


def _products(
    encoder: Any, x: _Planes, y: _Planes, weight: Region, size: tuple[int, int, int], weight_shape: tuple[int, ...],
    window: Any, framed: bool, groups: int, added: Block | None, floor: float, pieces: int,
) -> Iterator[Operands]:  # fmt: skip
    """Instructions for each group of pixels that see the same taps, and each run of planes that see the same channels.

    A large weight is divided by planes, so that each thread reads a part of it; else pixels are.
    """
    machine, offsets, lanes = encoder.machine, encoder.offsets, encoder.lanes
    images = np.arange(encoder.graph.program.batch)
    steps = machine.steps(weight_shape, groups)
    for places, starts, seen in _pixels_and_taps(machine, x, y, size, window, framed):
        results = np.add.outer(images * y.count * y.plane, places).ravel()
        begins = np.add.outer(images * x.count * x.plane, starts).ravel()
        for first, count, channels in machine.runs(weight_shape, groups):
            factors, distances = np.array(seen or [(0, 0)]).T
            if window is None:
                channels = range(size[0])
            if channels:
                numbers, taps = np.arange(len(channels))[:, None], math.prod(size[1:] if window is None else window[0])
                factors, inputs = numbers * taps + factors, numbers + channels.start
                distances = inputs // lanes * x.plane + inputs % lanes + distances
            x_at = x.at if channels else x.at + first * x.plane
            if not seen:  # the bias alone
                factors, distances, begins, x_at = np.zeros(1), np.zeros(1), 0 * begins, 0
            common: Operands = {
                "weight_row": steps * lanes if seen else 0, "x": (x_at, 0), "y_row": y.plane,
                "is_sum": int(added is not None),
                "weight_steps": offsets(factors * lanes), "x_steps": offsets(distances), "steps": np.size(distances),
                "floor": floor,
            }  # fmt: skip
            for start, rows, shape in machine.tiles_for_channels(count, len(results)):
                high, wide = machine.CHANNEL_TILES[shape]
                number = min(pieces, rows * len(results) * np.size(distances) // _SHARED)
                by_planes = rows * steps > _SHARED and rows > high
                down = _divided(rows, high, number if by_planes else 1)
                right = _divided(len(results), wide, 1 if by_planes else number)
                for (i, planes), (j, pixels) in product(down, right):
                    plane = first + start + i
                    yield common | {
                        "shape": shape if channels else machine.DEPTHWISE, "rows": planes, "columns": pixels,
                        "weight": (encoder.inside(weight, plane * steps * lanes) if seen else 0, 0),
                        "bias": encoder.inside(weight, (y.count * steps + plane) * lanes),
                        "y": (y.at + plane * y.plane, 0),
                        "y_columns": offsets(results[j : j + pixels], wide),
                        "x_columns": offsets(begins[j : j + pixels], wide),
                    }  # fmt: skip


def _pixels_and_taps(
    machine: Any, x: _Planes, y: _Planes, size: tuple[int, int, int], window: Any, framed: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]]:
    """Yield groups of pixels of an image: where they are in y, where they begin in x, and the taps that they see."""
    lanes = machine.LANES
    if window is None:
        _, height, width = size
        taps = [(i * width + j, i * x.row + j * lanes) for i in range(height) for j in range(width)]
        yield np.zeros(1, dtype=int), np.zeros(1, dtype=int), taps
        return
    (_, width), *_ = window
    vertical, horizontal = zip(*window, strict=True)
    rows = machine.sweeps(*vertical, size[1], y.height, adjoint=False, halo=framed)
    columns = machine.sweeps(*horizontal, size[2], y.width, adjoint=False, halo=True)
    for down, right in product(rows, columns):
        yield (
            np.add.outer(np.array(down.places) * y.row, np.array(right.places) * lanes).ravel(),
            np.add.outer(np.array(down.starts) * x.row, np.array(right.starts) * lanes).ravel(),
            [(u * width + v, i * x.row + j * lanes) for u, i in down.taps for v, j in right.taps],
        )


def _divided(length: int, multiple: int, pieces: int) -> list[tuple[int, int]]:
    """Return first and number of each of some pieces, in whole multiples but for the last."""
    wholes, pieces = -(-length // multiple), max(pieces, 1)
    ends = [min(length, multiple * (wholes * (i + 1) // pieces)) for i in range(pieces)]
    return [(start, end - start) for start, end in zip([0, *ends], ends, strict=False) if end > start]


EXPANDED: dict[str, Callable[..., Any]] = {
    "channel_affine": _channel_affine,
    "channel_products": _channel_products,
    "channel_winograd": _channel_winograd,
    "feed_channels": _image_by_image,
    "gather_tiles": _gather_tiles,
    "read_channels": _image_by_image,
    "spread_tiles": _spread_tiles,
    "write_channels": _image_by_image,
}
"""Nodes whose operands follow from places: what gives them."""
