"""What a network has learnt and where it looks: filters, feature maps, heat maps over pictures."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from minicnn.plots.style import GREEN, GRID, INK, RED, WIDTH, draw_picture, fonts, short

_HEAT = LinearSegmentedColormap.from_list("heat", [(0.3, 0.0, 0.4, 0.0), (0.85, 0.2, 0.1, 0.45), (1.0, 0.9, 0.2, 0.85)])


def filters(weights: np.ndarray, limit: int = 64) -> Figure:
    """The first `limit` filters of a convolution, each from its lowest weight to its highest.

    weights: (O, C, KH, KW). Filters of three channels are in colour, others grey, as the mean over their channels.
    """
    _check("filters", "weights (O, C, KH, KW)", weights, 4)
    coloured = weights.shape[1] == 3
    tiles = np.moveaxis(weights, 1, -1) if coloured else weights.mean(axis=1)  # (O, KH, KW, 3) or (O, KH, KW)
    shown = f"{min(limit, len(tiles))} of {len(tiles)}" if len(tiles) > limit else f"{len(tiles)}"
    height, width = weights.shape[2:]
    mean = "" if coloured else ", mean over the channels"
    return _grid(f"Filters: {shown} of {height} x {width}{mean}, each on a scale of its own", tiles[:limit])


def feature_maps(maps: np.ndarray, title: str = "Feature maps", limit: int = 64) -> Figure:
    """The first `limit` feature maps of one picture, (C, H, W), each from its lowest value (black) to its highest."""
    _check("feature_maps", "maps (C, H, W)", maps, 3)
    shown = f"{min(limit, len(maps))} of {len(maps)}" if len(maps) > limit else f"{len(maps)}"
    height, width = maps.shape[1:]
    return _grid(f"{title}: {shown} of {height} x {width}, each on a scale of its own", maps[:limit])


def overlays(images: np.ndarray, heat: np.ndarray, captions: Sequence[str], title: str = "") -> Figure:
    """Each picture beside itself in grey under its heat map, interpolated bilinearly to the size of the picture.

    images: (n, C, H, W) uint8. heat: (n, h, w), from 0, which leaves the picture as it is, to 1. captions: n lines;
    those that start with a tick are green, those with a cross red.
    """
    _check("overlays", "images (n, C, H, W)", images, 4)
    if heat.ndim != 3 or not len(images) == len(heat) == len(captions):
        raise ValueError(
            f"overlays expects heat (n, h, w) and n captions for {len(images)} images. "
            f"Received: {heat.shape} and {len(captions)}"
        )
    columns = min(4, len(images))
    rows = math.ceil(len(images) / columns)
    cell = WIDTH / 4
    side, gap, head, text = 1.06, 0.04, 0.42 if title else 0.08, 0.32  # inches
    width, height = max(cell * columns, 2 * cell if title else cell), head + rows * (side + text)
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(0.5, 1 - head / 2 / height, title, fontsize=11, color=INK, ha="center", va="center", parse_math=False)
    for index, (image, map_, caption) in enumerate(zip(images, heat, captions, strict=True)):
        row, column = divmod(index, columns)
        x = (width - columns * cell + cell - 2 * side - gap) / 2 + column * cell
        y = height - head - row * (side + text) - side
        grey = image.mean(axis=0, keepdims=True)  # so that all colour under the heat map is its own
        for place, picture in enumerate((image, grey)):
            axes = figure.add_axes(((x + place * (side + gap)) / width, y / height, side / width, side / height))
            draw_picture(axes, picture)
        high, wide = image.shape[1:]
        extent = (-0.5, wide - 0.5, high - 0.5, -0.5)
        axes.imshow(map_, cmap=_HEAT, vmin=0, vmax=1, interpolation="bilinear", extent=extent)
        colour = {"✓": GREEN, "✗": RED}.get(caption[:1], INK)
        font: dict[str, Any] = {"fontsize": 8, "color": colour, "parse_math": False, "fontfamily": fonts()}
        figure.text((x + side) / width, (y - 0.05) / height, short(caption, 34), ha="center", va="top", **font)
    return figure


def _grid(title: str, tiles: np.ndarray) -> Figure:
    """Tiles (n, H, W) in grey or (n, H, W, 3) in colour, each scaled to the whole range."""
    columns = min(len(tiles), 8) if len(tiles) <= 32 else 16
    rows = math.ceil(len(tiles) / columns)
    head, cell = 0.4, min(WIDTH / columns, 1.1)
    side = 0.92 * cell
    width, height = max(columns * cell, 5.0), head + rows * cell
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(0.5, 1 - head / 2 / height, title, fontsize=10, color=INK, ha="center", va="center", parse_math=False)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        x = (width - columns * cell + cell - side) / 2 + column * cell
        y = height - head - row * cell - side
        _tile(figure.add_axes((x / width, y / height, side / width, side / height)), tile)
    return figure


def _tile(axes: Axes, tile: np.ndarray) -> None:
    low, high = tile.min(), tile.max()
    scaled = (tile - low) / (high - low) if high > low else np.full_like(tile, 0.5, np.float64)
    axes.imshow(scaled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(GRID)


def _check(name: str, expected: str, array: np.ndarray, ndim: int) -> None:
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} expects {expected}, none of them 0. Received: {array.shape}")
