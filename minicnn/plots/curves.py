"""Figures over the course of training."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from minicnn.plots.spikes import limits, ordinary, point_at
from minicnn.plots.style import BLUE, FAINT, GREEN, INK, ORANGE, RED, WIDTH, legend_below, new_figure, plain, short

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
_SHEET = {
    "Validation accuracy": "validation_accuracy",
    "Validation loss": "validation_loss",
    "Training less validation accuracy": "train_accuracy",
    "Learning rate": "learning_rate",
}
_POINTED_AT, _ROWS = 3, 6  # spikes of a line; lines of words below an edge
_COLOURS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", INK, "#8A6FB0")


def curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss, accuracy and learning rate over the epochs, with the best epoch marked.

    history: columns of one length, any of epoch, train_loss, validation_loss, train_accuracy, validation_accuracy
    (0 to 1) and learning_rate; others are ignored. The best epoch has the highest validation accuracy,
    and of equals the lowest validation loss. A spike that would flatten the rest is cut, and its value written there.
    """
    lengths = {len(column) for column in history.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"curves: expected columns of one length, at least 1, received lengths {sorted(lengths)}")
    epochs = history.get("epoch", range(1, lengths.pop() + 1))
    panels = {title: _drawable(history, keys) for title, keys in _PANELS.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    figure = new_figure(WIDTH * max(len(panels), 1) / 3, 3.3)
    best = _best(history)
    for axes, (title, lines) in zip(np.ravel(figure.subplots(1, max(len(panels), 1))), panels.items(), strict=False):
        _panel(axes, title, epochs, lines, best)
    entries = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    names = [name for name in ("training", "validation") if name in entries]  # the rate is alone in its panel
    if names:
        legend_below(figure, [entries[name] for name in names], names)
    return figure


def learning_rates(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float
) -> Figure:
    """The loss while the learning rate rises step by step, as it was and smoothed, and the rate to train with.

    rates: above 0, on a logarithmic axis. losses: as many; those that are not finite are left out, and those far above
    the first are cut off by the axis. smoothed: the line through them, as many.
    """
    shown = np.isfinite(losses)
    if not len(rates) == len(losses) == len(smoothed) or not shown.any():
        raise ValueError(
            f"learning_rates: expected as many rates as losses and smoothed losses, and one finite loss, "
            f"received {len(rates)}, {len(losses)} and {len(smoothed)}, {shown.sum()} finite"
        )
    x, y, smooth = (np.asarray(column, np.float64)[shown] for column in (rates, losses, smoothed))
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    axes.plot(x, y, color=BLUE, linewidth=0.8, alpha=0.35, label="loss of a step", marker="o" if len(y) == 1 else None)
    axes.plot(x, smooth, color=BLUE, linewidth=1.8, label="smoothed")
    axes.axvline(suggestion, color=RED, linewidth=1.4, linestyle="--", label=f"suggestion: {suggestion:.2g}")
    axes.set_xscale("log")
    low, start = min(smooth.min(), y.min()), smooth[: max(len(y) // 10, 1)].max()
    span = max(start - low, 1e-3 * abs(start), 1e-12)
    axes.set_ylim(low - 0.08 * span, start + 0.6 * span)
    plain(axes, "Loss as the learning rate rises", "learning rate")
    legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def runs(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Several runs on one sheet: validation accuracy and loss, overfitting, and learning rate over the epochs.

    histories: by name of the run, the columns that `curves` takes. Overfitting is what the accuracy on training images
    has above that on validation images. A dot marks the best epoch of a run, which the legend names. Spikes are cut.
    """
    if not histories or not all(any(map(len, h.values())) for h in histories.values()):
        raise ValueError("runs: expected one history at least, each with epochs and what was measured in them")
    figure = new_figure(WIDTH, 6.0 + 0.18 * math.ceil(len(histories) / 2))
    panels = dict(zip(_SHEET, figure.subplots(2, 2).flat, strict=True))
    entries, handles = [], []  # of the legend
    drawn: dict[str, list[tuple[Any, np.ndarray, str]]] = {title: [] for title in panels}  # epochs, values, colour
    for number, (name, history) in enumerate(histories.items()):
        size, best = max(map(len, history.values())), _best(history)
        epochs = history.get("epoch", range(1, size + 1))
        style: dict[str, Any] = {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": ("-", "--", ":")[number // len(_COLOURS) % 3],
            "linewidth": 1.5,
            "marker": "o" if size == 1 else None,
            "markersize": 3,
        }
        for title, column in _sheet_columns(history).items():
            panels[title].plot(epochs, column, **style)
            drawn[title].append((epochs, column, style["color"]))
            if best is not None and title != "Learning rate":
                panels[title].plot(epochs[best], column[best], "o", color=style["color"], markersize=4.5, zorder=5)
        score = "" if best is None else f": {history['validation_accuracy'][best]:.1%} at epoch {epochs[best]:.0f}"
        entries.append(f"{short(name, 36)}{score}")
        handles.append(Line2D([], [], **style))
    for title, axes in panels.items():
        plain(axes, title, "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if title != "Learning rate":
            _cut_spikes(axes, title, drawn[title])
    highest = [max(history["learning_rate"]) for history in histories.values() if "learning_rate" in history]
    if highest and max(highest) > 20 * min(highest) > 0:
        panels["Learning rate"].set_yscale("log")
        panels["Learning rate"].set_ylim(bottom=min(highest) / 1000)  # cosines end near 0
    elif highest:
        panels["Learning rate"].set_ylim(0, 1.08 * max(highest) or 1)
    for title in ("Validation accuracy", "Training less validation accuracy"):
        panels[title].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    panels["Training less validation accuracy"].axhline(0, color=FAINT, linewidth=0.8)
    legend_below(figure, handles, entries, columns=2)
    return figure


def _sheet_columns(history: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """The lines of one run by panel; a column that the history lacks is left out."""
    columns = {title: np.asarray(history[key], np.float64) for title, key in _SHEET.items() if key in history}
    gap = "Training less validation accuracy"
    if "Validation accuracy" in columns and gap in columns:
        columns[gap] = columns[gap] - columns["Validation accuracy"]
    else:
        columns.pop(gap, None)
    return columns


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
    plain(axes, title, "epoch")
    margin = 0.04 * (max(epochs) - min(epochs)) or 1
    axes.set_xlim(min(epochs) - margin, max(epochs) + margin)
    axes.xaxis.set_major_locator(FixedLocator(epochs) if len(epochs) <= 5 else MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    if title == "Learning rate":
        axes.set_ylim(0, 1.08 * np.nanmax(lines["learning_rate"]) or 1)
        return
    if title == "Accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _cut_spikes(axes, title, [(epochs, np.asarray(values), _STYLES[key][0]) for key, values in lines.items()])


def _cut_spikes(axes: Axes, title: str, lines: Sequence[tuple[Any, np.ndarray, str]]) -> None:
    """Let the axis end where the curves do without their spikes, and write the value of each spike at its place."""
    loss, gap = "loss" in title.lower(), title.startswith("Training less")
    kept = [ordinary(values, (1,) if loss else (1, -1) if gap else (-1,)) for _, values, _ in lines]
    if all(keep[np.isfinite(values)].all() for keep, (_, values, _) in zip(kept, lines, strict=True)):
        return
    axes.set_ylim(*limits([values[keep] for keep, (_, values, _) in zip(kept, lines, strict=True)]))
    rows = itertools.count()  # each has its words in a line of its own
    for keep, (epochs, values, colour) in zip(kept, lines, strict=True):
        cut = np.flatnonzero(~keep & np.isfinite(values))
        for place in sorted(cut, key=lambda index: -abs(values[index]))[:_POINTED_AT]:
            words = f"{values[place]:.3g}" if loss else f"{values[place]:.0%}"
            point_at(axes, epochs[place], values[place], words, colour, next(rows) % _ROWS)
