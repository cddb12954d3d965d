"""Pictures with what a model says of them, and with what augmentation makes of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minicnn.plots.style import BLUE, FAINT, GREEN, INK, RED, WIDTH, draw_picture, fonts, new_figure, short


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
        figure = new_figure(WIDTH, 1.2)
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
    figure = new_figure(7.2, 3.2)
    picture, axes = figure.subplots(1, 2, width_ratios=(1, 1.35))
    draw_picture(picture, image)
    axes.barh(range(len(top)), values[top], color=[BLUE, *["#A9CCE3"] * (len(top) - 1)], height=0.72)
    names = [short(classes[index], 20) for index in top]
    axes.set_yticks(range(len(top)), names, fontsize=9, color=INK, parse_math=False, fontfamily=fonts())
    for row, index in enumerate(top):
        axes.text(values[index] + 0.015, row, f"{values[index]:.1%}", va="center", fontsize=8.5, color=INK)
    axes.set_xlim(0, 1.17)
    middle, half = (len(top) - 1) / 2, max(len(top), 4) / 2
    axes.set_ylim(middle + half, middle - half)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def before_after(before: np.ndarray, after: np.ndarray, captions: Sequence[str]) -> Figure:
    """Pairs of pictures, one above the other: as they are, and what augmentation made of them.

    before, after: (n, C, H, W) uint8, C 1 or 3, n from 1. captions: n lines, each below its pair.
    """
    if before.shape != after.shape or before.ndim != 4 or not len(before) or len(captions) != len(before):
        raise ValueError(
            "before_after expects two batches (n, C, H, W) of one shape with n > 0, and n captions. "
            f"Received: {before.shape}, {after.shape}, {len(captions)}"
        )
    columns = min(8, len(before))
    rows = math.ceil(len(before) / columns)
    side, gap, left, text = 1.0, 0.06, 0.7, 0.34  # inches: a picture, its distance, the words left, the caption below
    width, height = left + columns * (side + gap) + gap, rows * (2 * (side + gap) + text)
    figure = Figure(figsize=(width, height), facecolor="white")
    for index, (pair, caption) in enumerate(zip(zip(before, after, strict=True), captions, strict=True)):
        row, column = divmod(index, columns)
        x = left + column * (side + gap)
        top = height - row * (2 * (side + gap) + text) - gap
        for place, (image, word) in enumerate(zip(pair, ("before", "after"), strict=True)):
            y = top - side - place * (side + gap)
            draw_picture(figure.add_axes((x / width, y / height, side / width, side / height)), image)
            if column == 0:
                figure.text(
                    0.62 / width, (y + side / 2) / height, word, fontsize=9, color=FAINT, ha="right", va="center"
                )
        font: dict[str, Any] = {"fontsize": 8, "color": INK, "parse_math": False, "fontfamily": fonts()}
        figure.text((x + side / 2) / width, (y - 0.06) / height, short(caption, 15), ha="center", va="top", **font)
    return figure


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
    cell, side, head, text = WIDTH / 8, 1.05, 0.45, 0.4  # inches: a column, its picture, the title, two lines
    width, height = cell * max(columns, 5), head + (side + text) * rows
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(0.5, 1 - head / 2 / height, title, fontsize=11, color=INK, ha="center", va="center")
    for place, index in enumerate(shown):
        row, column = divmod(place, columns)
        x = (width - cell * columns + cell - side) / 2 + column * cell
        y = height - head - row * (side + text) - side
        axes = figure.add_axes((x / width, y / height, side / width, side / height))
        truth, guess = labels[index], predictions[index]
        colour = GREEN if truth == guess else RED
        draw_picture(axes, images[index], colour)
        notes = [] if probabilities is None else [f"{probabilities[index][guess]:.0%}"]
        if truth != guess:
            notes.append(f"is {short(classes[truth], 10)}")
        verdict = f"{'✓' if truth == guess else '✗'} {short(classes[guess], 11)}"
        font: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False, "fontfamily": fonts()}
        middle = (x + side / 2) / width
        figure.text(middle, (y - 0.04) / height, verdict, color=colour, fontweight="bold", fontsize=8.5, **font)
        figure.text(middle, (y - 0.19) / height, ", ".join(notes), color=INK, fontsize=7.6, **font)
    return figure
