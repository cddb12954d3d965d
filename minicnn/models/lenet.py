"""The LeNet-style network for small pictures (after LeCun et al., 1998)."""

import minicnn.functional as F
from minicnn import nn
from minicnn.functional.arguments import check_count
from minicnn.tensor import Tensor

_MAP = 5  # the side of what the linear layers see of 32 x 32 pixels, and of more


class LeNet(nn.Module):
    """Two convolutions and three fully connected layers.

    Args:
        num_classes: number of logits.
        relu_logits: put a ReLU on the logits, as some drawings of this network have it.
        image_size: height and width of the pictures, from 16. Of more than 32 pixels what the convolutions make is
            averaged down to 5 x 5, so that the parameters are those for 32.
        in_channels: channels of the pictures.

    Example:
        >>> sum(p.numel() for p in models.LeNet().parameters())
        65886
    """

    def __init__(
        self, num_classes: int = 10, relu_logits: bool = False, image_size: int = 32, in_channels: int = 3
    ) -> None:
        super().__init__()
        check_count("LeNet", image_size=image_size, in_channels=in_channels)
        side = ((image_size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"LeNet: expected image_size from 16, received {image_size}")
        if not isinstance(relu_logits, bool):
            raise ValueError(f"LeNet: expected relu_logits as true or false, received {relu_logits!r}")
        self.relu_logits = relu_logits
        self.averages = side > _MAP
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * min(side, _MAP) ** 2, 128)
        self.fc2 = nn.Linear(128, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        x = F.max_pool2d(F.relu(self.conv1(input)), 2)  # (N, 3, 32, 32) -> (N, 6, 28, 28) -> (N, 6, 14, 14)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        if self.averages:
            x = F.adaptive_avg_pool2d(x, _MAP)
        x = F.relu(self.fc1(F.flatten(x, 1)))  # -> (N, 400) -> (N, 128)
        x = F.relu(self.fc2(x))  # -> (N, 84)
        x = self.fc3(x)  # -> (N, num_classes)
        return F.relu(x) if self.relu_logits else x
