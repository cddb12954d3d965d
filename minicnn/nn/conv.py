"""The convolution layer."""

import minicnn.functional as F
from minicnn.functional.arguments import IntPair, check_count, pair
from minicnn.nn.layer import Layer
from minicnn.nn.module import Parameter
from minicnn.tensor import Tensor


class Conv2d(Layer):
    """Convolution with trained filters, (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    See :func:`minicnn.functional.conv2d` for the arguments.

    Attributes:
        weight: (out_channels, in_channels / groups, KH, KW); starts uniform in +-1 / sqrt(fan_in), as does bias.
        bias: (out_channels,), or None.

    Example:
        >>> layer = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        >>> layer(Tensor(np.zeros((2, 3, 32, 32), "float32"))).shape
        (2, 8, 32, 32)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_count("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                "Conv2d: expected groups that divide both numbers of channels, "
                f"received {in_channels} -> {out_channels}, groups {groups}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self._add_weight((out_channels, in_channels // groups, *self.kernel_size), bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
