"""Spikes of a curve: single values so far from the rest that an axis which holds them flattens it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

_TIMES = 4  # as much as the curve without bumps spans, and as all but a tenth of its bumps are high
_FAR = 100  # the same of the ends and four fifths of the values
_FEWEST = 5  # values of which one can be a spike


def ordinary(values: np.ndarray, signs: Sequence[int]) -> np.ndarray:
    """Return which of the values (n,) are finite and no spikes: upwards with 1 in ``signs``, downwards with -1.

    The height of a value is that above the higher of the lowest before and the lowest behind it, itself included: 0
    along a curve that falls or rises all the way, as that of a loss at its beginning does. A spike is more than four
    times as high as the whole curve without heights spans, and as nine tenths of the heights are. At both ends, where a
    curve may be steep, it lies a hundred times as far above four fifths of the values as these span.
    """
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    kept = finite.copy()
    if finite.sum() >= _FEWEST:
        for sign in signs:
            kept[finite] &= _without_peaks(sign * values[finite]) & ~_wild_ends(sign * values[finite])
    return kept


def limits(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the limits of an axis for finite values, with a margin."""
    values = np.concatenate(columns)
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - margin, high + margin


def point_at(axes: Axes, x: float, y: float, words: str, color: str, row: int) -> None:
    """Draw an arrow to the edge of the axes beyond which (x, y) lies, with words at its beginning.

    row: how many lines of words to leave free between them and the edge.
    """
    low, high = axes.get_ylim()
    edge, away = (high, -1) if y > high else (low, 1)
    side = -1 if x > sum(axes.get_xlim()) / 2 else 1  # towards the middle, where there is room
    axes.annotate(
        words, (x, edge), (side * 10, away * (12 + 11 * row)), textcoords="offset points", color=color, fontsize=8,
        ha="left" if side > 0 else "right", va="center",
        arrowprops={"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def _wild_ends(values: np.ndarray) -> np.ndarray:
    usual = float(np.quantile(values, 0.8, method="lower"))
    wild = values > usual + _FAR * (usual - values.min())
    if usual == values.min():  # nothing is to be seen of a curve without any height
        return np.zeros_like(wild)
    return np.logical_and.accumulate(wild) | np.logical_and.accumulate(wild[::-1])[::-1]


def _without_peaks(values: np.ndarray) -> np.ndarray:
    before = np.minimum.accumulate(values)
    behind = np.minimum.accumulate(values[::-1])[::-1]
    base = np.maximum(before, behind)
    heights = values - base
    usual = max(float(np.ptp(base)), float(np.quantile(heights, 0.9, method="lower")))
    return (heights <= _TIMES * usual) | (usual == 0)  # nothing is to be seen of a curve without any height
