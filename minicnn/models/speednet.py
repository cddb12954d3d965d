"""A network that learns CIFAR-10 to 94% in twelve epochs: that of airbench94 (Jordan, 2024)."""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn import nn
from minicnn.functional.arguments import check_count, check_option
from minicnn.nn import init
from minicnn.tensor import Tensor


class SpeedNet(nn.Module):
    """A 2 x 2 convolution, stages of two 3 x 3 convolutions, pooled after the first of them, and a linear layer.

    The 2 x 2 convolution has 24 filters for colour pictures, so that :func:`minicnn.nn.init.whitening_` fills it: one
    for each direction of a patch, and its negative. In a stage batch norm comes before the activation, and its weight
    stays 1. The linear layer sees the maximum of each channel, so that pictures may have any size.

    Args:
        num_classes: number of logits.
        widths: output channels of each stage, 1 to 4 of them; a stage halves height and width, rounded down.
        scale: factor of the logits.
        dirac: whether the first filters of each 3 x 3 convolution start as copies of its inputs.
        activation: "gelu", "elu" or "relu".
        in_channels: channels of the pictures.

    Example:
        >>> sum(p.numel() for p in models.SpeedNet().parameters())
        1972792
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[int] = (64, 256, 256),
        scale: float = 1 / 9,
        dirac: bool = True,
        activation: str = "gelu",
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        listed = isinstance(widths, Sequence) and 1 <= len(widths) <= 4
        if not listed or not all(isinstance(w, int) and w > 0 for w in widths):
            raise ValueError(f"SpeedNet: expected widths as 1 to 4 integers from 1, received {widths!r}")
        if not isinstance(scale, int | float) or not scale > 0:
            raise ValueError(f"SpeedNet: expected scale as a number above 0, received {scale!r}")
        if not isinstance(dirac, bool):
            raise ValueError(f"SpeedNet: expected dirac as true or false, received {dirac!r}")
        check_option("SpeedNet", "activation", activation, "gelu", "elu", "relu")
        check_count("SpeedNet", in_channels=in_channels)
        act = {"gelu": nn.GELU, "elu": nn.ELU, "relu": nn.ReLU}[activation]
        channels = 2 * 4 * in_channels
        self.whitening = nn.Conv2d(in_channels, channels, 2)
        layers: list[nn.Module] = [act()]
        for width in widths:
            layers += [_convolution(channels, width, dirac), nn.MaxPool2d(2), _norm(width), act()]
            layers += [_convolution(width, width, dirac), _norm(width), act()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes, bias=False)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        x = self.features(self.whitening(input))
        x = F.max_pool2d(x, (x.shape[2], x.shape[3]))
        return self.classifier(F.flatten(x, 1)) * self.scale


def _convolution(inputs: int, outputs: int, dirac: bool) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    if dirac:
        init.dirac_(layer.weight[:inputs])
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, momentum=0.4)
    assert layer.weight is not None
    layer.weight.requires_grad_(False)
    return layer
