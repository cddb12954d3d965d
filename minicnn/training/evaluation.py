"""What a model answers on pictures, and how often it is right."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

import minicnn.functional as F
from minicnn import backend
from minicnn.backend import Backend, to_numpy
from minicnn.data import Dataset, Loader
from minicnn.data.dataset import check_labels
from minicnn.nn import Module
from minicnn.nn.module import evaluating, tensors_of
from minicnn.tensor import Tensor
from minicnn.training.metrics import classification_report
from minicnn.training.preprocessing import (
    Preprocessing,
    as_array,
    as_dataset,
    as_labels,
    known,
    pair,
    preprocessing_of,
    unscaled,
)

_TINY = 1e-30  # of float32; keeps a logarithm finite


@dataclass(frozen=True)
class Evaluation:
    """loss: mean cross-entropy in nats; labels: (N,); probabilities: float32 (N, K); classes: K names."""

    loss: float
    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...] = ()

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of every image, (N,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        """Share of the images whose most probable class is the true one."""
        return float((self.predictions == self.labels).mean())

    @property
    def confusion_matrix(self) -> np.ndarray:
        """How many images of class i (rows) were predicted as class j (columns), int64 (K, K)."""
        return np.array(self.report()["confusion_matrix"])

    def report(self) -> dict[str, Any]:
        """Return accuracy, loss, and precision, recall and F1 of every class and their means.

        See :func:`minicnn.training.metrics.classification_report`.
        """
        classes = self.classes or tuple(map(str, range(self.probabilities.shape[1])))
        return classification_report(self.labels, self.predictions, classes, self.probabilities)


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is in the answers
def evaluate(
    model: Module,
    data: Any,
    forward: Callable[[Tensor], Tensor] | None = None,
    tta: bool = False,
    shift: int = 0,
    *,
    layout: str | None = None,
    batch_size: int = 500,
    batches: int = 0,
) -> Evaluation:
    """Run ``model`` in evaluation mode over labelled pictures, without a change to its modules.

    Args:
        model: of images (N, C, H, W) to logits (N, K).
        data: pictures and labels (x, y) as :func:`minicnn.fit` takes them, which become the model's input as in its
            training; a Dataset, likewise; or a Loader, whose batches are the input.
        forward: computes the logits instead of the model itself, as ``minicnn.compile(model)`` does.
        tta: whether the probabilities are the mean of those for a picture and for its mirror image; the loss is theirs.
        shift: with ``tta``, half of the mean is of such pairs for the picture shifted by so many pixels up and to the
            left, and down and to the right, with reflected edges.
        layout: of the pictures, "NCHW", "NHWC" or "NHW"; default: as in training, for a model that :func:`minicnn.fit`
            did not train NCHW.
        batch_size: images at once, but for a Loader.
        batches: how many to look at, 0 for all.

    Raises:
        ValueError: pictures or labels that are not for this model.

    Example:
        >>> model = nn.Sequential(nn.Flatten())  # the pixels are its logits
        >>> x = np.array([[[[3.0, 1.0]]], [[[1.0, 2.0]]]])  # two pictures of 1 x 2
        >>> minicnn.evaluate(model, (x, [0, 0])).accuracy
        0.5
    """
    loader = data if isinstance(data, Loader) else _loader_of(model, data, layout, batch_size)
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
    classes = loader.dataset.classes if len(loader.dataset.classes) == answers.shape[1] else ()
    return Evaluation(float(loss) / len(all_labels), all_labels, answers, classes)


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is in the answers
def predict(
    model: Module, x: Any, tta: bool = False, shift: int = 0, *, layout: str | None = None, batch_size: int = 500
) -> np.ndarray:
    """Return the probabilities of the classes of pictures, float32 (N, K), or (K,) for a single picture.

    Args:
        model: of images (N, C, H, W) to logits (N, K).
        x: pictures as :func:`minicnn.fit` takes them, which become the model's input as in its training; one axis less
            is a single picture. A model that was not trained by it takes floats as they are.
        tta, shift: which views the probabilities are the mean of, as of :func:`evaluate`.
        layout: of the pictures, as of :func:`evaluate`.
        batch_size: images at once.

    Raises:
        ValueError: pictures that are not for this model.

    Example:
        >>> model = nn.Sequential(nn.Flatten())  # the pixels are its logits
        >>> minicnn.predict(model, np.zeros((3, 1, 1, 2)))
        array([[0.5, 0.5],
               [0.5, 0.5],
               [0.5, 0.5]], dtype=float32)
        >>> minicnn.predict(model, np.zeros((1, 1, 2)))
        array([0.5, 0.5], dtype=float32)
    """
    found = preprocessing_of("predict", model)
    axes = len(layout or (found.layout if found else "NCHW"))
    array = as_array("predict", x)
    single = array.ndim == axes - 1
    preprocessing, images = known("predict", model, array[None] if single else array, layout)
    dataset = Dataset(images, np.zeros(len(images), np.int64), preprocessing.classes or ("0",), "arrays")
    answer = _answer(model, tta, shift)
    with evaluating():
        loader = _loader(model, dataset, preprocessing, batch_size)
        parts = [F.softmax(answer(Tensor(batch)), 1).numpy() for batch, _ in loader.epoch(0)]
    return parts[0][0] if single else np.concatenate(parts)


def backend_of(model: Module) -> Backend:
    """Return the backend on which a model is, for one without tensors the default."""
    return next((tensor.backend for tensor in tensors_of(model)), backend.default())


def _loader_of(model: Module, data: Any, layout: str | None, batch_size: int) -> Loader:
    """Return the batches of (x, y) or of a Dataset as the input of the model."""
    if isinstance(data, Dataset):
        preprocessing = preprocessing_of("evaluate", model) or unscaled("evaluate", data.images)
        if preprocessing.classes:
            as_dataset("evaluate", data, preprocessing)
        preprocessing.check("evaluate", data.images)
        return _loader(model, data, preprocessing, batch_size)
    x, y = pair("evaluate", data)
    preprocessing, images = known("evaluate", model, x, layout)
    labels = as_labels("evaluate", y, len(images), len(preprocessing.classes) or None)
    classes = preprocessing.classes or tuple(map(str, range(labels.max() + 1)))
    return _loader(model, Dataset(images, labels, classes, "arrays"), preprocessing, batch_size)


def _loader(model: Module, dataset: Dataset, preprocessing: Preprocessing, batch_size: int) -> Loader:
    return Loader(dataset, batch_size, mean=preprocessing.mean, std=preprocessing.std, backend=backend_of(model))


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
