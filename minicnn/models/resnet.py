"""Residual networks (He et al., 2016) for 32 x 32 pictures: the stem is one 3 x 3 convolution without pooling.

``resnet20``, 32 and 56 are those of the paper's section 4.2, with shortcuts that have no parameters; ``resnet18``, 34
and 50 are its networks for ImageNet with this stem.
"""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn import nn
from minicnn.nn import init
from minicnn.tensor import Tensor


class Subsample(nn.Module):
    """The shortcut without parameters: every ``stride``-th pixel, and channels of zeros after those of the input.

    It is a 1 x 1 convolution by a matrix of zeros and ones, which is not trained.
    """

    selection: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("selection", init.dirac_(init.empty(out_channels, in_channels, 1, 1)))

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        return F.conv2d(input, self.selection, stride=self.stride)


class Projection(nn.Sequential):
    """The shortcut with parameters: a 1 x 1 convolution and batch norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), both convolutions 3 x 3."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, width, H / stride, W / stride)."""
        x = F.relu(self.bn1(self.conv1(input)))
        return F.relu(self.bn2(self.conv2(x)) + self.shortcut(input))


class Bottleneck(nn.Module):
    """As BasicBlock, with a 3 x 3 convolution on ``width`` channels between two of 1 x 1."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = shortcut

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 4 width, H / stride, W / stride)."""
        x = F.relu(self.bn1(self.conv1(input)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + self.shortcut(input))


class ResNet(nn.Module):
    """Stages of residual blocks; each stage but the first halves height and width.

    Args:
        num_classes: number of logits.
        block: BasicBlock or Bottleneck.
        blocks: number of blocks of each stage.
        widths: channels of each stage; its output has ``block.expansion`` times as many.
        shortcut: Projection or Subsample, where channels or stride change.
    """

    def __init__(
        self,
        num_classes: int,
        block: type[BasicBlock | Bottleneck],
        blocks: Sequence[int],
        widths: Sequence[int],
        shortcut: type[Projection | Subsample],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        channels = widths[0]
        layers = []
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            for index in range(count):
                stride, out_channels = 2 if stage and not index else 1, block.expansion * width
                same = stride == 1 and channels == out_channels
                way = nn.Identity() if same else shortcut(channels, out_channels, stride)
                layers.append(block(channels, width, stride, way))
                channels = out_channels
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, num_classes)."""
        x = self.blocks(F.relu(self.bn(self.conv(input))))
        return self.fc(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def resnet18(num_classes: int = 10) -> ResNet:
    """ResNet-18.

    Example:
        >>> sum(p.numel() for p in models.resnet18().parameters())
        11173962
    """
    return ResNet(num_classes, BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), Projection)


def resnet34(num_classes: int = 10) -> ResNet:
    """ResNet-34.

    Example:
        >>> sum(p.numel() for p in models.resnet34().parameters())
        21282122
    """
    return ResNet(num_classes, BasicBlock, (3, 4, 6, 3), (64, 128, 256, 512), Projection)


def resnet50(num_classes: int = 10) -> ResNet:
    """ResNet-50.

    Example:
        >>> sum(p.numel() for p in models.resnet50().parameters())
        23520842
    """
    return ResNet(num_classes, Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), Projection)


def resnet20(num_classes: int = 10) -> ResNet:
    """ResNet-20.

    Example:
        >>> sum(p.numel() for p in models.resnet20().parameters())
        269722
    """
    return ResNet(num_classes, BasicBlock, (3, 3, 3), (16, 32, 64), Subsample)


def resnet32(num_classes: int = 10) -> ResNet:
    """ResNet-32.

    Example:
        >>> sum(p.numel() for p in models.resnet32().parameters())
        464154
    """
    return ResNet(num_classes, BasicBlock, (5, 5, 5), (16, 32, 64), Subsample)


def resnet56(num_classes: int = 10) -> ResNet:
    """ResNet-56.

    Example:
        >>> sum(p.numel() for p in models.resnet56().parameters())
        853018
    """
    return ResNet(num_classes, BasicBlock, (9, 9, 9), (16, 32, 64), Subsample)
