"""Pictures with what a model says of them, and with what augmentation makes of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minicnn.plots.style import BLUE, FAINT, GREEN, INK, RED, WIDTH, Sheet, draw_picture, fonts, new_figure, short


def samples(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    predictions: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    probabilities: np.ndarray | None = None,
    limit: int = 32,
) -> Figure:
    """The first `limit` images, each with its prediction, the confidence where given, and the true class where wrong.

    images: (N, C, H, W), uint8 or of floats in [0, 1]. labels, predictions: (N,) class indices.
    probabilities: (N, classes).
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
    """A picture beside the bars of its most probable classes. image: (C, H, W); probabilities: (classes,)."""
    values = np.asarray(probabilities, np.float64)
    if values.shape != (len(classes),) or not len(classes):
        raise ValueError(f"probability_bars: expected {len(classes)} probabilities, received shape {values.shape}")
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
            "before_after: expected two batches (n, C, H, W) of one shape with n > 0, and n captions, "
            f"received {before.shape}, {after.shape}, {len(captions)}"
        )
    side, gap, left = 1.0, 0.06, 0.7
    sheet = Sheet(len(before), 8, (side + gap, 2 * (side + gap) + 0.34), left=left)
    for index, (x, y) in enumerate(sheet.middles):
        for top, images, word in ((y, before, "before"), (y + side + gap, after, "after")):
            draw_picture(sheet.axes(x - side / 2, top, side), images[index])
            if index % 8 == 0:
                sheet.text(left - 0.08, top + side / 2, word, 9, FAINT, ha="right", va="center")
        sheet.text(x, y + 2 * (side + gap), short(captions[index], 15), 8)
    return sheet.figure


def _check(images: np.ndarray, labels: Any, predictions: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if images.ndim != 4 or not len(images) or not len(images) == len(labels) == len(predictions):
        raise ValueError(
            "samples and mistakes: expected images (N, C, H, W) with N > 0, N labels and N predictions, "
            f"received {images.shape}, {labels.shape}, {predictions.shape}"
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
    cell, side = WIDTH / 8, 1.05
    sheet = Sheet(len(shown), 8, (cell, side + 0.4), title, width=5 * cell)
    for (x, y), index in zip(sheet.middles, shown, strict=True):
        truth, guess = labels[index], predictions[index]
        mark, colour = ("✓", GREEN) if truth == guess else ("✗", RED)
        draw_picture(sheet.axes(x - side / 2, y, side), images[index], colour)
        notes = [] if probabilities is None else [f"{probabilities[index][guess]:.0%}"]
        if truth != guess:
            notes.append(f"is {short(classes[truth], 10)}")
        sheet.text(x, y + side + 0.04, f"{mark} {short(classes[guess], 11)}", 8.5, colour, fontweight="bold")
        sheet.text(x, y + side + 0.19, ", ".join(notes), 7.6)
    return sheet.figure
