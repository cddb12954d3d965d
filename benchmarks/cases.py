"""The cases of ``compare.py``: a model, trained or asked, and what all contenders start from.

A new case is a line in ``CASES``, and for a new model its twin in ``cases_torch.MODELS``; minicnn's side makes the
model by its name. The twins name their parameters' last part alike and hold them in the same order.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """``model``: a name that ``minicnn.models`` and ``cases_torch.MODELS`` know; ``eager``: without a compiled plan."""

    model: str
    train: bool
    eager: bool = False


CASES = {
    "lenet-train": Case("lenet", True),
    "lenet-infer": Case("lenet", False),
    "vgg-train": Case("vgg", True),
    "vgg-infer": Case("vgg", False),
    "resnet20-train": Case("resnet20", True),
    "resnet20-infer": Case("resnet20", False),
    "resnet18-train": Case("resnet18", True),
    "resnet18-infer": Case("resnet18", False),
    "vit-train": Case("vit", True),
    "vit-infer": Case("vit", False),
    "lenet-train-eager": Case("lenet", True, eager=True),
    "lenet-infer-eager": Case("lenet", False, eager=True),
}
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
SGEMM = 1536
"""Side of the square matrices whose product tells how fast the machine multiplies."""


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic normalised pictures, float32 (N, 3, 32, 32), and labels, int64 (N,)."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((size, 3, 32, 32), dtype=np.float32), rng.integers(0, 10, size)


def initial(position: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The first value, float32, of the parameter at ``position`` in the model, the same for all contenders."""
    if name.endswith("bias"):
        return np.zeros(shape, dtype=np.float32)
    if len(shape) == 1:  # the scale of a normalisation
        return np.ones(shape, dtype=np.float32)
    values = np.random.default_rng(position).standard_normal(shape, dtype=np.float32)
    return values * np.float32(math.sqrt(2 / math.prod(shape[1:])))
