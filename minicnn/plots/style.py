"""What all pictures share: colours, fonts, frames, and the way to a PNG file.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart;
right and wrong differ by a mark as well.
"""

import io
import math
import re
import unicodedata
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, FAINT, GRID = "#222222", "#767676", "#E4E4E4"
BLUES = LinearSegmentedColormap.from_list("counts", ["#FFFFFF", "#9CC9E6", BLUE, "#003A5C"])
_SHOWN = 20  # characters without a glyph that a warning names
WIDTH = 9.0  # inches, the width of every figure but the large confusion matrices
_OTHER_SCRIPTS = ("Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as the bytes of a PNG file, the same bytes for the same figure."""
    buffer, lacking = io.BytesIO(), set[str]()
    with warnings.catch_warnings(record=True) as caught:
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    for warning in caught:
        if found := re.match(r"Glyph (\d+) ", str(warning.message)):
            lacking.add(chr(int(found[1])))
        else:
            warnings.warn(warning.message, stacklevel=2)
    if lacking:
        shown = "".join(sorted(lacking)[:_SHOWN]) + "…" * (len(lacking) > _SHOWN)
        warnings.warn(f"the font of pictures has no {shown}: they are drawn as boxes", stacklevel=2)
    return buffer.getvalue()


class Picture(Figure):
    """A figure that a notebook shows although matplotlib's global state does not know it."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Answer a notebook: a PNG file, and at which width in pixels to show it; dense screens have use for more."""
        return to_png(self), {"width": round(96 * self.get_figwidth())}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches whose axes make room for their labels."""
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09, wspace=0.02)
    return Picture(figsize=(width, height), layout=layout, facecolor="white")


class Sheet:
    """A figure of cells in rows, each with pictures and text, under a title; measures are inches, from the top left.

    ``middles``: of each cell the middle of its upper edge, (x, y). ``width``: of the page, at least.
    """

    def __init__(
        self, number: int, columns: int, cell: tuple[float, float], title: str = "", left: float = 0, width: float = 0
    ) -> None:
        columns, head = min(columns, number), 0.42 if title else 0.06
        self.size = max(left + columns * cell[0], width), head + math.ceil(number / columns) * cell[1]
        self.figure = Picture(figsize=self.size, facecolor="white")
        start = (self.size[0] + left - (columns - 1) * cell[0]) / 2
        places = (divmod(index, columns) for index in range(number))
        self.middles = [(start + column * cell[0], head + row * cell[1]) for row, column in places]
        if title:
            self.text(self.size[0] / 2, head / 2, title, 11, va="center")

    def axes(self, x: float, y: float, side: float) -> Axes:
        """Return axes in a square whose upper left corner is (x, y)."""
        width, height = self.size
        return self.figure.add_axes((x / width, 1 - (y + side) / height, side / width, side / height))

    def text(self, x: float, y: float, words: str, size: float, color: str = INK, **looks: Any) -> None:
        """Write words below the point (x, y)."""
        style: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False, "fontfamily": fonts()}
        at = x / self.size[0], 1 - y / self.size[1]
        self.figure.text(*at, words, fontsize=size, color=color, **(style | looks))


def frame(axes: Axes, color: str = GRID) -> None:
    """A line around a picture, without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(color)
    axes.spines[:].set_linewidth(2 if color != GRID else 1)


def draw_picture(axes: Axes, image: np.ndarray, color: str = GRID, grey: bool = False) -> None:
    """Draw a picture (C, H, W) of uint8 or floats in a frame of this colour.

    Three channels are red, green and blue; of any other number, or where ``grey`` says so, their mean is drawn in grey.
    """
    shown = image if image.dtype == np.uint8 else _levels(image)
    if len(image) == 3 and not grey:
        axes.imshow(np.moveaxis(shown, 0, -1), interpolation="nearest")  # (3, H, W) -> (H, W, 3)
    else:
        white = 255 if image.dtype == np.uint8 else 1
        axes.imshow(shown.mean(axis=0), cmap="gray", vmin=0, vmax=white, interpolation="nearest")
    frame(axes, color)


def _levels(image: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] as they are; others, as of a normalised picture, scaled: the lowest is 0, the highest 1."""
    low, high = image.min(), image.max()
    return image if low >= 0 and high <= 1 else (image - low) / (high - low or 1)


def short(name: str, limit: int) -> str:
    """The name on one line, cut to about `limit` columns; wide characters count as two.

    What no font draws is shown as a replacement character: controls, what turns the direction of writing, bytes of a
    file name that are not UTF-8.
    """
    name = " ".join(str(name).split())
    width, short = 0, ""
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\u200c\u200d":
            character = "\ufffd"
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > limit:
            return short[:-1].rstrip() + "…"
        short += character
    return short


def fonts() -> list[str]:
    """The font that comes with matplotlib, then those found here that have other scripts."""
    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(font for font in _OTHER_SCRIPTS if font in installed)]


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str], columns: int = 4) -> None:
    """Put a legend below the panels, where it covers no curve; the names are shown as they are."""
    looks: dict[str, Any] = {"fontsize": 8.5, "labelcolor": INK, "handlelength": 2.2, "frameon": False}
    places = [str(number) for number in range(len(names))]
    legend = figure.legend(handles, places, loc="outside lower center", ncols=min(columns, len(names)), **looks)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)  # as a label it would be read as maths, or hidden by a _
        text.set_parse_math(False)


def plain(axes: Axes, title: str, below: str) -> None:
    """Lines on a faint grid, without ticks and box, with a title and a label below."""
    axes.set_title(title, fontsize=10.5, color=INK, loc="left")
    axes.set_xlabel(below, fontsize=9, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")
    axes.tick_params(labelsize=8.5, which="both", length=0, colors=INK)
