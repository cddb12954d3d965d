"""Pictures of a run, drawn from plain arrays on figures of their own: no global state of matplotlib is read or changed.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart;
right and wrong differ by a mark as well.
"""

import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, FAINT, GRID = "#222222", "#767676", "#E4E4E4"
_BLUES = LinearSegmentedColormap.from_list("counts", ["#FFFFFF", "#9CC9E6", BLUE, "#003A5C"])
_WIDTH = 9.0  # inches, the width of every figure but the large confusion matrices
_PANELS = {
    "Loss": ("train_loss", "validation_loss"),
    "Accuracy": ("train_accuracy", "validation_accuracy"),
    "Learning rate": ("learning_rate",),
}
_STYLES = {
    "train_loss": (ORANGE, "training"),
    "train_accuracy": (ORANGE, "training"),
    "validation_loss": (BLUE, "validation"),
    "validation_accuracy": (BLUE, "validation"),
    "learning_rate": (FAINT, "learning rate"),
}
_OTHER_SCRIPTS = ("Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as the bytes of a PNG file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss, accuracy and learning rate over the epochs, with the best epoch marked.

    history: columns of one length, any of epoch, train_loss, validation_loss, train_accuracy, validation_accuracy
    (0 to 1) and learning_rate; others are ignored. The best epoch has the highest validation accuracy,
    and of equals the lowest validation loss.
    """
    lengths = {len(column) for column in history.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"curves expects columns of one length, at least 1. Received lengths: {sorted(lengths)}")
    epochs = history.get("epoch", range(1, lengths.pop() + 1))
    panels = {title: _drawable(history, keys) for title, keys in _PANELS.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    figure = _figure(_WIDTH * max(len(panels), 1) / 3, 3.0)
    best = _best(history)
    for axes, (title, lines) in zip(np.ravel(figure.subplots(1, max(len(panels), 1))), panels.items(), strict=False):
        _panel(axes, title, epochs, lines, best)
    return figure


def confusion_matrix(matrix: Any, classes: Sequence[str]) -> Figure:
    """Counts of true class (row) against predicted class (column), coloured by the share of the row.

    matrix: (classes, classes) counts. The numbers are left out above 30 classes, where they could not be read.
    """
    counts = np.asarray(matrix)
    size = len(classes)
    if counts.shape != (size, size) or not size:
        raise ValueError(f"confusion_matrix expects counts of shape {(size, size)}. Received: {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.6, 2.4 + 0.5 * size), 13.0)
    figure = _figure(side + 1.0, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap=_BLUES, vmin=0, vmax=1, interpolation="nearest")
    font = min(10.0, 72 * (side - 2.4) / size * 0.62)
    names = [_name(name, 16) for name in classes]
    text: dict[str, Any] = {"fontsize": font, "parse_math": False, "fontfamily": _fonts(), "color": INK}
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
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def samples(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    predictions: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    probabilities: np.ndarray | None = None,
    limit: int = 32,
) -> Figure:
    """The first `limit` images, each with its prediction, the confidence where given, and the true class where wrong.

    images: (N, 3, H, W) uint8. labels, predictions: (N,) class indices. probabilities: (N, classes).
    """
    labels, predictions = _check(images, labels, predictions)
    shown = np.arange(min(limit, len(images)))
    right = int((labels[shown] == predictions[shown]).sum())
    title = f"Samples: {right} of {len(shown)} right"
    return _gallery(title, shown, images, labels, predictions, classes, probabilities)


def mistakes(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    predictions: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    probabilities: np.ndarray,
    limit: int = 24,
) -> Figure:
    """The wrongly classified images that the model was surest about, the surest first. Arguments as in `samples`."""
    labels, predictions = _check(images, labels, predictions)
    wrong = np.flatnonzero(labels != predictions)
    if not len(wrong):
        figure = _figure(_WIDTH, 1.2)
        figure.text(0.5, 0.5, f"No mistakes among {len(images):,} images", fontsize=12, color=INK, ha="center")
        return figure
    sureness = np.asarray(probabilities)[wrong, predictions[wrong]]
    shown = wrong[np.argsort(-sureness, kind="stable")][:limit]
    title = f"Worst mistakes: the {len(shown)} surest of {len(wrong):,} wrong among {len(images):,} images"
    return _gallery(title, shown, images, labels, predictions, classes, probabilities)


def probability_bars(image: np.ndarray, probabilities: Any, classes: Sequence[str], limit: int = 10) -> Figure:
    """A picture beside the bars of its most probable classes. image: (3, H, W) uint8; probabilities: (classes,)."""
    values = np.asarray(probabilities, np.float64)
    if values.shape != (len(classes),) or not len(classes):
        raise ValueError(f"probability_bars expects {len(classes)} probabilities. Received shape: {values.shape}")
    top = np.argsort(-values, kind="stable")[:limit]
    figure = _figure(7.2, 3.2)
    picture, axes = figure.subplots(1, 2, width_ratios=(1, 1.35))
    _picture(picture, image)
    axes.barh(range(len(top)), values[top], color=[BLUE, *["#A9CCE3"] * (len(top) - 1)], height=0.72)
    names = [_name(classes[index], 20) for index in top]
    axes.set_yticks(range(len(top)), names, fontsize=9, color=INK, parse_math=False, fontfamily=_fonts())
    for row, index in enumerate(top):
        axes.text(values[index] + 0.015, row, f"{values[index]:.1%}", va="center", fontsize=8.5, color=INK)
    axes.set_xlim(0, 1.17)
    middle, half = (len(top) - 1) / 2, max(len(top), 4) / 2
    axes.set_ylim(middle + half, middle - half)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _figure(width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09, wspace=0.02)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def _best(history: Mapping[str, Sequence[float]]) -> int | None:
    """The index of the best epoch, None without a finite validation figure."""
    size = max(map(len, history.values()))
    merits = np.full((2, size), -np.inf)
    for merit, key, sign in zip(merits, ("validation_accuracy", "validation_loss"), (1, -1), strict=True):
        column = sign * np.asarray(history.get(key, [np.nan] * size), np.float64)
        merit[np.isfinite(column)] = column[np.isfinite(column)]
    return int(np.lexsort((-np.arange(size), *merits[::-1]))[-1]) if np.isfinite(merits).any() else None


def _drawable(history: Mapping[str, Sequence[float]], keys: Sequence[str]) -> dict[str, Sequence[float]]:
    return {key: history[key] for key in keys if key in history and np.isfinite(history[key]).any()}


def _panel(
    axes: Axes, title: str, epochs: Sequence[float], lines: Mapping[str, Sequence[float]], best: int | None
) -> None:
    marker = "o" if len(epochs) <= 3 else None
    for key, values in lines.items():
        colour, label = _STYLES[key]
        axes.plot(epochs, values, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)
        if best is not None and label == "validation" and math.isfinite(values[best]):
            axes.plot(epochs[best], values[best], "o", color=colour, markeredgecolor=INK, markersize=7, zorder=5)
            figure = f"{values[best]:.1%}" if title == "Accuracy" else f"{values[best]:.3f}"
            axes.set_title(f"{figure} at best epoch {epochs[best]}", fontsize=8.5, color=colour, loc="right")
    axes.set_title(title, fontsize=10.5, color=INK, loc="left")
    axes.set_xlabel("epoch", fontsize=9, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")
    axes.tick_params(labelsize=8.5, length=0, colors=INK)
    margin = 0.04 * (max(epochs) - min(epochs)) or 1
    axes.set_xlim(min(epochs) - margin, max(epochs) + margin)
    axes.xaxis.set_major_locator(FixedLocator(epochs) if len(epochs) <= 5 else MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    if title == "Learning rate":
        axes.set_ylim(0, 1.08 * np.nanmax(lines["learning_rate"]) or 1)
        return
    if title == "Accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.legend(fontsize=8.5, labelcolor=INK, handlelength=1.4, edgecolor="none", framealpha=0.85)


def _check(images: np.ndarray, labels: Any, predictions: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if images.ndim != 4 or not len(images) or not len(images) == len(labels) == len(predictions):
        raise ValueError(
            "samples and mistakes expect images (N, 3, H, W) with N > 0, N labels and N predictions. "
            f"Received: {images.shape}, {labels.shape}, {predictions.shape}"
        )
    return labels, predictions


def _gallery(
    title: str,
    shown: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: Sequence[str],
    probabilities: np.ndarray | None,
) -> Figure:
    columns = min(8, len(shown))
    rows = math.ceil(len(shown) / columns)
    cell, side, head, text = _WIDTH / 8, 1.05, 0.45, 0.4  # inches: a column, its picture, the title, two lines
    width, height = cell * max(columns, 4), head + (side + text) * rows
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(0.5, 1 - head / 2 / height, title, fontsize=11, color=INK, ha="center", va="center")
    for place, index in enumerate(shown):
        row, column = divmod(place, columns)
        x = (width - cell * columns + cell - side) / 2 + column * cell
        y = height - head - row * (side + text) - side
        axes = figure.add_axes((x / width, y / height, side / width, side / height))
        truth, guess = labels[index], predictions[index]
        colour = GREEN if truth == guess else RED
        _picture(axes, images[index], colour)
        notes = [] if probabilities is None else [f"{probabilities[index][guess]:.0%}"]
        if truth != guess:
            notes.append(f"is {_name(classes[truth], 10)}")
        verdict = f"{'✓' if truth == guess else '✗'} {_name(classes[guess], 11)}"
        font: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False, "fontfamily": _fonts()}
        middle = (x + side / 2) / width
        figure.text(middle, (y - 0.04) / height, verdict, color=colour, fontweight="bold", fontsize=8.5, **font)
        figure.text(middle, (y - 0.19) / height, ", ".join(notes), color=INK, fontsize=7.6, **font)
    return figure


def _picture(axes: Axes, image: np.ndarray, frame: str = GRID) -> None:
    axes.set_axis_on()
    axes.imshow(np.moveaxis(image, 0, -1), interpolation="nearest")  # (3, H, W) -> (H, W, 3)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(frame)
    axes.spines[:].set_linewidth(2 if frame != GRID else 1)


def _name(name: str, limit: int) -> str:
    """The name on one line, cut to about `limit` columns; wide characters count as two."""
    name = " ".join(str(name).split())
    width, short = 0, ""
    for character in name:
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > limit:
            return short[:-1].rstrip() + "…"
        short += character
    return short


def _fonts() -> list[str]:
    """The font that comes with matplotlib, then those found here that have other scripts."""
    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(font for font in _OTHER_SCRIPTS if font in installed)]
