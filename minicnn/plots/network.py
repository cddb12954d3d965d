"""What a network has learnt and where it looks: filters, feature maps, heat maps over pictures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from minicnn.plots.style import GREEN, INK, RED, WIDTH, Sheet, draw_picture, frame, short

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

    images: (n, C, H, W), uint8 or floats. heat: (n, h, w), from 0, which leaves the picture as it is, to 1.
    captions: n lines; those that start with a tick are green, those with a cross red.
    """
    _check("overlays", "images (n, C, H, W)", images, 4)
    if heat.ndim != 3 or not len(images) == len(heat) == len(captions):
        raise ValueError(
            f"overlays: expected heat (n, h, w) and n captions for {len(images)} images, "
            f"received {heat.shape} and {len(captions)}"
        )
    side, gap = 1.06, 0.04
    sheet = Sheet(len(images), 4, (WIDTH / 4, side + 0.32), title, width=WIDTH / 2 if title else 0)
    for (x, y), image, map_, caption in zip(sheet.middles, images, heat, captions, strict=True):
        draw_picture(sheet.axes(x - side - gap / 2, y, side), image)
        axes = sheet.axes(x + gap / 2, y, side)
        draw_picture(axes, image, grey=True)  # so that all colour under the heat map is its own
        high, wide = image.shape[1:]
        extent = (-0.5, wide - 0.5, high - 0.5, -0.5)
        axes.imshow(map_, cmap=_HEAT, vmin=0, vmax=1, interpolation="bilinear", extent=extent)
        sheet.text(x, y + side + 0.05, short(caption, 34), 8, {"✓": GREEN, "✗": RED}.get(caption[:1], INK))
    return sheet.figure


def _grid(title: str, tiles: np.ndarray) -> Figure:
    """Tiles (n, H, W) in grey or (n, H, W, 3) in colour, each scaled to the whole range."""
    columns = 8 if len(tiles) <= 32 else 16
    cell = min(WIDTH / min(columns, len(tiles)), 1.1)
    side, sheet = 0.92 * cell, Sheet(len(tiles), columns, (cell, cell), title, width=5.6)
    for (x, y), tile in zip(sheet.middles, tiles, strict=True):
        axes = sheet.axes(x - side / 2, y, side)
        low, high = tile.min(), tile.max()
        scaled = (tile - low) / (high - low) if high > low else np.full_like(tile, 0.5, np.float64)
        axes.imshow(scaled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        frame(axes)
    return sheet.figure


def _check(name: str, expected: str, array: np.ndarray, ndim: int) -> None:
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name}: expected {expected}, none of them 0, received {array.shape}")
