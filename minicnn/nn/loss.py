"""Loss layers."""

from typing import Any

import minicnn.functional as F
from minicnn.nn.module import Module
from minicnn.tensor import Tensor


class CrossEntropyLoss(Module):
    """Cross-entropy of softmax(logits) with labels or probabilities; see :func:`minicnn.functional.cross_entropy`.

    Attributes:
        weight: (K,), a buffer that is saved, moved and converted with the module; or None.

    Example:
        >>> nn.CrossEntropyLoss()(tensor([[1000.0, 0.0], [1000.0, 0.0]]), tensor([0, 1]))
        tensor(500., dtype=float32)
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.reduction, self.label_smoothing = reduction, label_smoothing

    def forward(self, input: Tensor, target: Tensor | Any) -> Tensor:
        return F.cross_entropy(
            input, target, self.weight, reduction=self.reduction, label_smoothing=self.label_smoothing
        )


class MSELoss(Module):
    """Mean squared error; see :func:`minicnn.functional.mse_loss`.

    Example:
        >>> nn.MSELoss()(tensor([1.0, 2.0]), tensor([1.0, 4.0]))
        tensor(2., dtype=float32)
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, self.reduction)
