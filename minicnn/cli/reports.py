"""Figures and pictures of a tested model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minicnn import backend, plots
from minicnn.compile import compile
from minicnn.data import Loader
from minicnn.files import atomic_write
from minicnn.nn import Module
from minicnn.tensor import Tensor
from minicnn.training import Evaluation, evaluate
from minicnn.training.explain import convolutions, feature_maps, grad_cam
from minicnn.training.metrics import classification_report

_EXPLAINED = 12  # pictures under a heat map


def test_reports(
    folder: Path | None, model: Module, loader: Loader, tta: bool = False, shift: int = 0
) -> dict[str, Any]:
    """Evaluate ``model`` and return the figures; with ``folder``, draw its pictures there.

    tta, shift: the views of :func:`minicnn.training.evaluate`; the accuracy for one view is then "plain_accuracy".

    These are the confusion matrix, samples, worst mistakes and, of a model with convolutions, the filters of the first,
    what it makes of a picture, and Grad-CAM overlays of right and wrong answers in the first batch of ``loader``.
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
        write_pictures(folder, pictures | _explained(model, loader, result))
    return report


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
    """The explanations of answers in the first batch, half of them wrong where there are so many."""
    dataset, predictions = loader.dataset, result.predictions
    inputs, _ = next(loader.epoch(0))
    right = result.labels[: len(inputs)] == predictions[: len(inputs)]
    wrong = np.flatnonzero(~right)[: _EXPLAINED // 2]
    shown = np.concatenate([np.flatnonzero(right)[: _EXPLAINED - len(wrong)], wrong])
    captions = []
    for index in shown:
        truth, guess = result.labels[index], predictions[index]
        answer = f"{dataset.classes[guess]} {result.probabilities[index, guess]:.0%}"
        captions.append(f"✓ {answer}" if truth == guess else f"✗ {answer}, is {dataset.classes[truth]}")
    chosen = Tensor(inputs[backend.of(inputs).asarray(shown)])
    return explanations(model, chosen, dataset.images[shown], predictions[shown], captions)
