"""Residual networks (He et al., 2016) with the stem for 32 x 32 pictures: one 3 x 3 convolution, no pooling."""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn import nn
from minicnn.tensor import Tensor


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))); x passes a 1 x 1 convolution where channels or stride change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(input)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(input))


class ResNet(nn.Module):
    """Stages of residual blocks; each stage but the first halves height and width.

    Args:
        num_classes: number of logits.
        blocks: number of blocks of each stage.
        widths: output channels of each stage.
    """

    def __init__(self, num_classes: int, blocks: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        channels = widths[0]
        layers = []
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            for index in range(count):
                layers.append(BasicBlock(channels, width, 2 if stage and not index else 1))
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, num_classes)."""
        x = self.blocks(F.relu(self.bn(self.conv(input))))
        return self.fc(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def resnet18(num_classes: int = 10) -> ResNet:
    """ResNet-18: 11,173,962 parameters for 10 classes."""
    return ResNet(num_classes, (2, 2, 2, 2), (64, 128, 256, 512))
