"""A VGG-like network for 32 x 32 pictures: pairs of 3 x 3 convolutions (after Simonyan and Zisserman, 2015)."""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn import nn
from minicnn.functional.arguments import check_option
from minicnn.tensor import Tensor


class VGG(nn.Module):
    """Stages of two convolutions, each with an activation and batch norm; max-pooling and dropout after each stage.

    Args:
        num_classes: number of logits.
        widths: output channels of each stage, 1 to 5 of them; a stage halves height and width.
        dropout: probability after each stage, or one number for all; where it is 0 there is no such layer.
        batch_norm: whether there is batch norm after the activations.
        activation: "elu" or "relu".

    Example:
        >>> sum(p.numel() for p in models.VGG().parameters())
        308394
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[int] = (32, 64, 128),
        dropout: Sequence[float] | float = (0.2, 0.3, 0.4),
        batch_norm: bool = True,
        activation: str = "elu",
    ) -> None:
        super().__init__()
        listed = isinstance(widths, Sequence) and 1 <= len(widths) <= 5
        if not listed or not all(isinstance(w, int) and w > 0 for w in widths):
            raise ValueError(f"VGG: expected widths as 1 to 5 integers from 1, received {widths!r}")
        rates = dropout if isinstance(dropout, Sequence) else [dropout] * len(widths)
        if len(rates) != len(widths) or not all(isinstance(p, int | float) and 0 <= p < 1 for p in rates):
            raise ValueError(
                f"VGG: expected dropout as a number in [0, 1) or {len(widths)} of them, received {dropout!r}"
            )
        if not isinstance(batch_norm, bool):
            raise ValueError(f"VGG: expected batch_norm as true or false, received {batch_norm!r}")
        check_option("VGG", "activation", activation, "elu", "relu")
        layers: list[nn.Module] = []
        channels = 3
        for width, p in zip(widths, rates, strict=True):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ELU() if activation == "elu" else nn.ReLU()]
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                channels = width
            layers += [nn.MaxPool2d(2), nn.Dropout(p)] if p else [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * (32 >> len(widths)) ** 2, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, num_classes)."""
        return self.classifier(F.flatten(self.features(input), 1))
