"""Figures and pictures of a tested model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minicnn import plots
from minicnn.compile import compile
from minicnn.data import Loader
from minicnn.files import atomic_write
from minicnn.nn import Module
from minicnn.training import evaluate
from minicnn.training.metrics import classification_report


def test_reports(folder: Path | None, model: Module, loader: Loader) -> dict[str, Any]:
    """Evaluate ``model``; draw the confusion matrix, samples and worst mistakes into ``folder``. -> the figures."""
    result = evaluate(model, loader, compile(model))
    dataset = loader.dataset
    report = classification_report(result.labels, result.predictions, dataset.classes, result.probabilities)
    if folder is not None:
        answers = (dataset.images, result.labels, result.predictions, dataset.classes, result.probabilities)
        pictures = {
            "confusion_matrix": plots.confusion_matrix(report["confusion_matrix"], dataset.classes),
            "samples": plots.samples(*answers),
            "mistakes": plots.mistakes(*answers),
        }
        for name, figure in pictures.items():
            atomic_write(folder / f"{name}.png", plots.to_png(figure))
    return report


def write_curves(folder: Path, history: Sequence[dict[str, float]]) -> None:
    """Draw loss, accuracy and learning rate over the epochs into ``folder``."""
    columns = {name: [row[name] for row in history] for name in history[0]}
    atomic_write(folder / "curves.png", plots.to_png(plots.curves(columns)))
