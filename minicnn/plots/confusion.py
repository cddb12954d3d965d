"""Counts of right and wrong, class by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from minicnn.plots.style import BLUES, INK, fonts, new_figure, short


def confusion_matrix(matrix: Any, classes: Sequence[str]) -> Figure:
    """Counts of true class (row) against predicted class (column), coloured by the share of the row.

    matrix: (classes, classes) counts. The numbers are left out above 30 classes, where they could not be read.
    """
    counts = np.asarray(matrix)
    size = len(classes)
    if counts.shape != (size, size) or not size:
        raise ValueError(f"confusion_matrix: expected counts of shape {(size, size)}, received {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.6, 2.4 + 0.5 * size), 13.0)
    figure = new_figure(side + 1.0, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap=BLUES, vmin=0, vmax=1, interpolation="nearest")
    font = min(10.0, 72 * (side - 2.4) / size * 0.62)
    names = [short(name, 16) for name in classes]
    text: dict[str, Any] = {"fontsize": font, "parse_math": False, "fontfamily": fonts(), "color": INK}
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(size), names, **(slant if size <= 30 else {"rotation": 90}), **text)
    axes.set_yticks(range(size), names, **text)
    axes.set_xlabel("predicted class", fontsize=10, color=INK, labelpad=8)
    axes.set_ylabel("true class", fontsize=10, color=INK, labelpad=8)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"Confusion matrix: {accuracy:.1%} of {counts.sum():,} images right", fontsize=11, color=INK, pad=10)
    if size <= 30:
        digits = min(11, 72 * (side - 2.4) / size / 0.75 / len(str(counts.max())))
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.45 else INK if count else "#B8B8B8"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=digits)
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.03, 1)), format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the true class", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, length=0, colors=INK)
    bar.outline.set_visible(False)
    return figure
