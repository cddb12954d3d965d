"""Figures, pictures and mistakes of a tested model."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minicnn import plots
from minicnn.compile import compile
from minicnn.data import Dataset, Loader
from minicnn.files import atomic_write
from minicnn.nn import Module
from minicnn.tensor import Tensor
from minicnn.text import shown
from minicnn.training import Evaluation, evaluate
from minicnn.training.explain import convolutions, feature_maps, grad_cam
from minicnn.training.metrics import classification_report

_EXPLAINED = 12  # pictures under a heat map
_OF_CONVOLUTIONS = ("filters", "feature_maps", "grad_cam")
_FORMULA = tuple("=+-@")  # begin one in a spreadsheet


def test_reports(
    folder: Path | None, model: Module, loader: Loader, tta: bool = False, shift: int = 0
) -> dict[str, Any]:
    """Evaluate ``model`` and return the figures; with ``folder``, draw its pictures and list its mistakes there.

    tta, shift: the views of :func:`minicnn.training.evaluate`; the accuracy for one view is then "plain_accuracy".

    The pictures are the confusion matrix, samples, worst mistakes and, of a model with convolutions, the filters of the
    first, what it makes of a picture, and Grad-CAM overlays of right and wrong answers. The list is mistakes.csv.
    """
    forward = compile(model)
    result = evaluate(model, loader, forward, tta, shift)
    dataset = loader.dataset
    check_finite(result.probabilities)
    report = classification_report(result.labels, result.predictions, dataset.classes, result.probabilities)
    if tta:
        report["plain_accuracy"] = evaluate(model, loader, forward).accuracy
    if folder is not None:
        answers: tuple[Any, ...] = (
            dataset.images,
            result.labels,
            result.predictions,
            dataset.classes,
            result.probabilities,
        )
        pictures = {
            "confusion_matrix": plots.confusion_matrix(report["confusion_matrix"], dataset.classes),
            "samples": plots.samples(*answers),
            "mistakes": plots.mistakes(*answers),
        }
        pictures |= _explained(model, loader, result)
        write_pictures(folder, pictures)
        for name in set(_OF_CONVOLUTIONS) - set(pictures):  # those of another model, which was tested here before
            (folder / f"{name}.png").unlink(missing_ok=True)
        atomic_write(folder / "mistakes.csv", mistakes_table(result, dataset))
    return report


def mistakes_table(result: Evaluation, dataset: Dataset) -> str:
    """Return every wrong answer as a line of CSV (RFC 4180), the surest first.

    Columns: number of the record, from 0, its file where it has one, true and predicted class, their probabilities.
    What a spreadsheet would take for a formula gets an apostrophe before it; what would break a line, and bytes of a
    file's name that are no UTF-8, are escaped.
    """
    wrong = np.flatnonzero(result.predictions != result.labels)
    sureness = result.probabilities[wrong, result.predictions[wrong]]
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["record", *["file"] * bool(dataset.files), "true", "predicted", "p_true", "p_predicted"])
    for index in wrong[np.argsort(-sureness, kind="stable")]:
        truth, guess = result.labels[index], result.predictions[index]
        names = [*dataset.files[index : index + 1], dataset.classes[truth], dataset.classes[guess]]
        figures = [f"{result.probabilities[index, label]:.4f}" for label in (truth, guess)]
        writer.writerow([index, *map(_inert, names), *figures])
    return lines.getvalue()


def _inert(name: str) -> str:
    return f"'{shown(name)}" if name[:1] in _FORMULA else shown(name)


def check_finite(probabilities: np.ndarray) -> None:
    """Raise ValueError for answers (N, K) of which some are NaN."""
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        raise ValueError(
            f"the answers to {broken:,} of {len(probabilities):,} pictures are not finite: "
            "the weights are too large; train the model anew"
        )


def write_curves(folder: Path, history: Sequence[dict[str, float]]) -> None:
    """Draw loss, accuracy and learning rate over the epochs into ``folder``."""
    columns = {name: [row[name] for row in history] for name in history[0]}
    write_pictures(folder, {"curves": plots.curves(columns)})


def write_pictures(folder: Path, pictures: Mapping[str, Figure]) -> None:
    """Write each figure as NAME.png into ``folder``."""
    for name, figure in pictures.items():
        atomic_write(folder / f"{name}.png", plots.to_png(figure))


def explanations(
    model: Module,
    inputs: Tensor,
    images: np.ndarray,
    classes: Sequence[int] | np.ndarray,
    captions: Sequence[str],
    layer: str = "",
) -> dict[str, Figure]:
    """Draw filters, feature maps and Grad-CAM; {} for a model without a convolution, where no ``layer`` is named.

    inputs: (N, C, H, W), the normalised ``images``. classes, captions: N, of the Grad-CAM overlays. layer: of
    the feature maps of the first picture (default: the first convolution) and of Grad-CAM (default: the last one).
    """
    names = convolutions(model, inputs)
    pictures = {}
    if names:
        pictures["filters"] = plots.filters(dict(model.named_parameters())[f"{names[0]}.weight"].numpy())
    if names or layer:
        first, last = layer or names[0], layer or names[-1]
        maps = feature_maps(model, inputs[:1])[first][0]
        pictures["feature_maps"] = plots.feature_maps(maps, f"Feature maps, layer {first}")
        heat = grad_cam(model, inputs, classes, last)
        pictures["grad_cam"] = plots.overlays(images, heat, captions, f"Grad-CAM, layer {last}")
    return pictures


def _explained(model: Module, loader: Loader, result: Evaluation) -> dict[str, Figure]:
    """The explanations of right and of wrong answers, half of each where there are so many, of all classes in turn."""
    dataset, predictions = loader.dataset, result.predictions
    right, wrong = (np.flatnonzero((result.labels == predictions) == kind) for kind in (True, False))
    right, wrong = (records[plots.in_turn(result.labels[records])] for records in (right, wrong))
    wrong = wrong[: _EXPLAINED // 2]
    chosen = np.concatenate([right[: _EXPLAINED - len(wrong)], wrong])
    captions = []
    for index in chosen:
        truth, guess = result.labels[index], predictions[index]
        answer = f"{dataset.classes[guess]} {result.probabilities[index, guess]:.0%}"
        captions.append(f"✓ {answer}" if truth == guess else f"✗ {answer}, is {dataset.classes[truth]}")
    inputs = Tensor(loader.pictures_of(chosen))
    return explanations(model, inputs, dataset.images[chosen], predictions[chosen], captions)
