"""Pooling layers; (N, C, H, W) -> (N, C, OH, OW)."""

import minicnn.functional as F
from minicnn.functional.arguments import IntPair
from minicnn.nn.layer import Layer
from minicnn.tensor import Tensor


class MaxPool2d(Layer):
    """Largest value of each window; see :func:`minicnn.functional.max_pool2d`.

    Example:
        >>> nn.MaxPool2d(2)(tensor([[[[1.0, 5.0], [0.0, 3.0]]]]))
        tensor([[[[5.]]]], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class AvgPool2d(Layer):
    """Mean of each window; see :func:`minicnn.functional.avg_pool2d`.

    Example:
        >>> nn.AvgPool2d(2)(tensor([[[[1.0, 5.0], [0.0, 2.0]]]]))
        tensor([[[[2.]]]], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        options = self.ceil_mode, self.count_include_pad, self.divisor_override
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, *options)


class AdaptiveAvgPool2d(Layer):
    """Mean over as many windows as ``output_size`` asks for; see :func:`minicnn.functional.adaptive_avg_pool2d`.

    Example:
        >>> nn.AdaptiveAvgPool2d(1)(tensor([[[[1.0, 5.0], [0.0, 2.0]]]]))
        tensor([[[[2.]]]], dtype=float32)
    """

    def __init__(self, output_size: IntPair) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)
