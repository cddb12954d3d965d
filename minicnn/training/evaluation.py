"""What a model answers on a labelled set."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

import minicnn.functional as F
from minicnn import backend
from minicnn.backend import to_numpy
from minicnn.data import Loader
from minicnn.data.dataset import check_labels
from minicnn.nn import Module
from minicnn.nn.module import evaluating
from minicnn.tensor import Tensor

_TINY = 1e-30  # of float32; keeps a logarithm finite


@dataclass(frozen=True)
class Evaluation:
    """loss: mean cross-entropy in nats; labels: (N,); probabilities: float32 (N, K)."""

    loss: float
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of every image, (N,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        """Share of the images whose most probable class is the true one."""
        return float((self.predictions == self.labels).mean())


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is in the answers
def evaluate(
    model: Module,
    loader: Loader,
    forward: Callable[[Tensor], Tensor] | None = None,
    tta: bool = False,
    shift: int = 0,
    *,
    batches: int = 0,
) -> Evaluation:
    """Run ``model`` in evaluation mode over one epoch of ``loader``, without a change to its modules.

    ``forward`` computes the logits instead of the model itself, as ``minicnn.compile(model)`` does. ``tta``: the
    probabilities are the mean of those for a picture and for its mirror image, and the loss is theirs. ``shift``: half
    of the mean is of such pairs for the picture shifted by so many pixels up and to the left, and down and to the
    right, with reflected edges. ``batches``: how many to look at, 0 for all.
    """
    answer = _answer(forward or model, tta, shift)
    losses: list[Any] = []
    labels: list[Any] = []
    probabilities: list[Any] = []
    with evaluating():
        for images, target in islice(loader.epoch(0), batches or None):
            logits = answer(Tensor(images))
            if not labels:
                check_labels(loader.dataset.labels, logits.shape[1], "evaluate")
            losses.append(F.cross_entropy(logits, target, reduction="sum", check_labels=False)._operand.reshape(1))
            labels.append(target)
            probabilities.append(F.softmax(logits, 1)._operand)
    xp = backend.of(images).xp  # read at the end, as a device has to be waited for
    each_loss, all_labels, answers = (to_numpy(xp.concatenate(parts)) for parts in (losses, labels, probabilities))
    loss = each_loss.cumsum(dtype=np.float64)[-1]  # in the order of the batches
    return Evaluation(float(loss) / len(all_labels), all_labels, answers)


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is in the answers
def predict(model: Module, images: Any, tta: bool = False, shift: int = 0) -> np.ndarray:
    """Return the class probabilities, float32 (N, K), of normalised images (N, C, H, W) on the model's backend.

    ``tta``, ``shift``: which views they are the mean of, as of :func:`evaluate`.
    """
    with evaluating():
        return F.softmax(_answer(model, tta, shift)(Tensor(images)), 1).numpy()


def _answer(forward: Callable[[Tensor], Tensor], tta: bool, shift: int) -> Callable[[Tensor], Tensor]:
    """``forward``, or what has the mean of its probabilities for all views as softmax: their logarithm."""

    def both(images: Tensor) -> Tensor:
        plain, mirrored = (F.softmax(forward(x), 1) for x in (images, images[..., ::-1]))
        return (plain + mirrored) / 2

    def mean(images: Tensor) -> Tensor:
        found = both(images)
        if shift:
            found = found / 2 + (both(_shifted(images, shift)) + both(_shifted(images, -shift))) / 4
        return (found + _TINY).log()

    return mean if tta else forward


def _shifted(images: Tensor, distance: int) -> Tensor:
    """Move pictures down and to the right; edges are reflected."""
    moved, xp = images._operand, images.backend.xp
    for axis in (2, 3):
        size = moved.shape[axis]
        if abs(distance) >= size:
            raise ValueError(
                f"tta: expected a shift smaller than the pictures, {images.shape[2:]}, received {distance}"
            )
        seen = abs(xp.arange(size) - distance)
        moved = moved.take(xp.minimum(seen, 2 * (size - 1) - seen), axis=axis)
    return Tensor(moved)
