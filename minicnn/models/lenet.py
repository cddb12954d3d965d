"""The LeNet-style network for 32 x 32 colour pictures (after LeCun et al., 1998)."""

import minicnn.functional as F
from minicnn import nn
from minicnn.tensor import Tensor


class LeNet(nn.Module):
    """Two convolutions and three fully connected layers.

    Args:
        num_classes: number of logits.
        relu_logits: put a ReLU on the logits, as some drawings of this network have it.

    Example:
        >>> sum(p.numel() for p in models.LeNet().parameters())
        65886
    """

    def __init__(self, num_classes: int = 10, relu_logits: bool = False) -> None:
        super().__init__()
        if not isinstance(relu_logits, bool):
            raise ValueError(f"LeNet: expected relu_logits as true or false, received {relu_logits!r}")
        self.relu_logits = relu_logits
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 128)
        self.fc2 = nn.Linear(128, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, num_classes)."""
        x = F.max_pool2d(F.relu(self.conv1(input)), 2)  # (N, 3, 32, 32) -> (N, 6, 28, 28) -> (N, 6, 14, 14)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        x = F.relu(self.fc1(F.flatten(x, 1)))  # -> (N, 400) -> (N, 128)
        x = F.relu(self.fc2(x))  # -> (N, 84)
        x = self.fc3(x)  # -> (N, num_classes)
        return F.relu(x) if self.relu_logits else x
