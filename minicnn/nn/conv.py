"""Convolution layer."""

import minicnn.functional as F
from minicnn.functional.arguments import IntPair, pair
from minicnn.nn import init
from minicnn.nn.module import Module, Parameter
from minicnn.tensor import Tensor


class Conv2d(Module):
    """Convolution with a trained filter bank; see :func:`minicnn.functional.conv2d`.

    weight: (out_channels, in_channels / groups, KH, KW); bias: (out_channels,); both start uniform in
    +-1 / sqrt(fan_in). (N, in_channels, H, W) -> (N, out_channels, OH, OW).
    """

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
        if in_channels < 1 or out_channels < 1 or groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: expected channels from 1 that groups divides, "
                f"received {in_channels} -> {out_channels}, groups {groups}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.weight = Parameter(init.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.register_parameter("bias", Parameter(init.empty(out_channels)) if bias else None)
        init.default_(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )
