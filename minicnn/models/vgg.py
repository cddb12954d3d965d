"""A VGG-like network for 32 x 32 pictures: pairs of 3 x 3 convolutions (after Simonyan and Zisserman, 2015)."""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn import nn
from minicnn.tensor import Tensor


class VGG(nn.Module):
    """Stages of two convolutions, each with ELU and batch norm; max-pooling and dropout after each stage.

    With the default widths 308,394 parameters for 10 classes.

    Args:
        num_classes: number of logits.
        widths: output channels of each stage; a stage halves height and width.
        dropout: probability after each stage.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[int] = (32, 64, 128),
        dropout: Sequence[float] = (0.2, 0.3, 0.4),
    ) -> None:
        super().__init__()
        if len(widths) != len(dropout) or not 1 <= len(widths) <= 5:
            raise ValueError(f"VGG: expected 1 to 5 widths and as many dropouts, received {widths} and {dropout}")
        layers: list[nn.Module] = []
        channels = 3
        for width, p in zip(widths, dropout, strict=True):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ELU(), nn.BatchNorm2d(width)]
                channels = width
            layers += [nn.MaxPool2d(2), nn.Dropout(p)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * (32 >> len(widths)) ** 2, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, num_classes)."""
        return self.classifier(F.flatten(self.features(input), 1))
