"""A VGG-like network: pairs of 3 x 3 convolutions (after Simonyan and Zisserman, 2015)."""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn import nn
from minicnn.functional.arguments import check_count, check_option
from minicnn.tensor import Tensor


class VGG(nn.Module):
    """Stages of two convolutions, each with an activation and batch norm; max-pooling and dropout after each stage.

    Args:
        num_classes: number of logits.
        widths: output channels of each stage, 1 to 5 of them; a stage halves height and width.
        dropout: probability after each stage, or one number for all; where it is 0 there is no such layer.
        batch_norm: whether there is batch norm after the activations.
        activation: "elu" or "relu".
        image_size: height and width of the pictures, from 2 to the power of the stages. Of more than 32 pixels what
            the stages make is averaged down to its size for 32, and so the parameters are those for 32.
        in_channels: channels of the pictures.

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
        image_size: int = 32,
        in_channels: int = 3,
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
        check_count("VGG", image_size=image_size, in_channels=in_channels)
        side, most = image_size >> len(widths), 32 >> len(widths)
        if not side:
            raise ValueError(
                f"VGG: expected image_size from {2 ** len(widths)}, as each of the {len(widths)} stages halves it, "
                f"received {image_size}; take fewer widths"
            )
        layers: list[nn.Module] = []
        channels = in_channels
        for width, p in zip(widths, rates, strict=True):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ELU() if activation == "elu" else nn.ReLU()]
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                channels = width
            layers += [nn.MaxPool2d(2), nn.Dropout(p)] if p else [nn.MaxPool2d(2)]
        if side > most:
            layers.append(nn.AdaptiveAvgPool2d(most))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * min(side, most) ** 2, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, image_size, image_size) -> logits (N, num_classes)."""
        return self.classifier(F.flatten(self.features(input), 1))
