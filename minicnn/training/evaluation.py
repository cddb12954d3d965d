"""What a model answers on a labelled set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minicnn.functional as F
from minicnn.backend import to_numpy
from minicnn.data import Loader
from minicnn.nn import Module
from minicnn.nn.module import evaluating
from minicnn.tensor import Tensor


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


def evaluate(model: Module, loader: Loader, forward: Callable[[Tensor], Tensor] | None = None) -> Evaluation:
    """Run ``model`` in evaluation mode over one epoch of ``loader``; the modes of its modules are restored.

    ``forward`` computes the logits instead of the model itself, as ``minicnn.compile(model)`` does.
    """
    loss, labels, probabilities = 0.0, [], []
    with evaluating(model):
        for images, target in loader.epoch(0):
            logits = (forward or model)(Tensor(images))
            loss += F.cross_entropy(logits, target, reduction="sum").item()
            labels.append(to_numpy(target))
            probabilities.append(to_numpy(F.softmax(logits, 1).data))
    all_labels = np.concatenate(labels)
    return Evaluation(loss / len(all_labels), all_labels, np.concatenate(probabilities))


def predict(model: Module, images: Any) -> np.ndarray:
    """Return the class probabilities, float32 (N, K), of normalised images (N, 3, H, W) on the model's backend."""
    with evaluating(model):
        return F.softmax(model(Tensor(images)), 1).numpy()
