"""Residual networks (He et al., 2016), for pictures of any size: their head sees the mean of each channel.

``resnet20``, 32 and 56 are those of the paper's section 4.2, with shortcuts that have no parameters; ``resnet18``, 34
and 50 are its networks for ImageNet, by default with the same stem for small pictures.
"""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn import nn
from minicnn.functional.arguments import check_count, check_option
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
        in_channels: channels of the pictures.
        stem: "3x3", one convolution, for pictures of about 32 pixels; "7x7", that of the paper for ImageNet, which
            makes a picture four times smaller: a 7 x 7 convolution of stride 2, and max-pooling of stride 2.
    """

    def __init__(
        self,
        num_classes: int,
        block: type[BasicBlock | Bottleneck],
        blocks: Sequence[int],
        widths: Sequence[int],
        shortcut: type[Projection | Subsample],
        in_channels: int = 3,
        stem: str = "3x3",
    ) -> None:
        super().__init__()
        check_count("ResNet", in_channels=in_channels)
        check_option("ResNet", "stem", stem, "3x3", "7x7")
        self.stem = stem
        size, stride = (3, 1) if stem == "3x3" else (7, 2)
        self.conv = nn.Conv2d(in_channels, widths[0], size, stride, padding=size // 2, bias=False)
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
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        x = F.relu(self.bn(self.conv(input)))
        if self.stem == "7x7":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.fc(F.flatten(F.adaptive_avg_pool2d(self.blocks(x), 1), 1))


def resnet18(num_classes: int = 10, in_channels: int = 3, stem: str = "3x3") -> ResNet:
    """ResNet-18; arguments as of :class:`ResNet`.

    Example:
        >>> sum(p.numel() for p in models.resnet18().parameters())
        11173962
    """
    return ResNet(num_classes, BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), Projection, in_channels, stem)


def resnet34(num_classes: int = 10, in_channels: int = 3, stem: str = "3x3") -> ResNet:
    """ResNet-34; arguments as of :class:`ResNet`.

    Example:
        >>> sum(p.numel() for p in models.resnet34().parameters())
        21282122
    """
    return ResNet(num_classes, BasicBlock, (3, 4, 6, 3), (64, 128, 256, 512), Projection, in_channels, stem)


def resnet50(num_classes: int = 10, in_channels: int = 3, stem: str = "3x3") -> ResNet:
    """ResNet-50; arguments as of :class:`ResNet`.

    Example:
        >>> sum(p.numel() for p in models.resnet50().parameters())
        23520842
    """
    return ResNet(num_classes, Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), Projection, in_channels, stem)


def resnet20(num_classes: int = 10, in_channels: int = 3, stem: str = "3x3") -> ResNet:
    """ResNet-20; arguments as of :class:`ResNet`.

    Example:
        >>> sum(p.numel() for p in models.resnet20().parameters())
        269722
    """
    return ResNet(num_classes, BasicBlock, (3, 3, 3), (16, 32, 64), Subsample, in_channels, stem)


def resnet32(num_classes: int = 10, in_channels: int = 3, stem: str = "3x3") -> ResNet:
    """ResNet-32; arguments as of :class:`ResNet`.

    Example:
        >>> sum(p.numel() for p in models.resnet32().parameters())
        464154
    """
    return ResNet(num_classes, BasicBlock, (5, 5, 5), (16, 32, 64), Subsample, in_channels, stem)


def resnet56(num_classes: int = 10, in_channels: int = 3, stem: str = "3x3") -> ResNet:
    """ResNet-56; arguments as of :class:`ResNet`.

    Example:
        >>> sum(p.numel() for p in models.resnet56().parameters())
        853018
    """
    return ResNet(num_classes, BasicBlock, (9, 9, 9), (16, 32, 64), Subsample, in_channels, stem)
