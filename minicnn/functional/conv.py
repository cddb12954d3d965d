"""The convolution of images."""

from minicnn.functional.arguments import (
    IntPair,
    check_float,
    check_images,
    check_shape,
    check_size,
    count_windows,
    pair,
)
from minicnn.precision import rounding
from minicnn.tensor import Tensor, kernels_of
from minicnn.text import brief


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair | str = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> Tensor:
    """Correlate images with a bank of filters.

    y[n,o,i,j] = bias[o] + sum_{c,u,v} weight[o,c,u,v] x[n, c, i * stride + u * dilation - padding, j * stride +
    v * dilation - padding], where x is zero outside the picture and o sees the channels of its group.

    Args:
        input: (N, C, H, W), float32 or float64.
        weight: (O, C/groups, KH, KW).
        bias: (O,).
        stride, padding, dilation: one int, or (vertical, horizontal). ``padding`` may also be "valid" (none) or "same"
            (OH, OW = H, W; stride 1 and odd windows).
        groups: the number of independent convolutions that share out the channels; divides C and O.

    Returns:
        (N, O, OH, OW) with OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, OW alike.

    Example:
        >>> image = tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])
        >>> F.conv2d(image, tensor([[[[1.0, -1.0]]]]))
        tensor([[[[-1., -1.],
                  [-1., -1.]]]], dtype=float32)
    """
    check_images("conv2d", input)
    check_float("conv2d", input=input, weight=weight, bias=bias)
    if weight.ndim != 4 or 0 in weight.shape:
        raise ValueError(f"conv2d: expected a weight (O, C/groups, KH, KW), received shape {weight.shape}")
    channels, outputs, window = input.shape[1], weight.shape[0], weight.shape[2:]
    if not isinstance(groups, int) or groups < 1 or channels % groups or outputs % groups:
        raise ValueError(
            f"conv2d: expected groups to divide {channels} input and {outputs} output channels, "
            f"received {brief(groups)}"
        )
    check_shape("conv2d", (outputs, channels // groups, *window), weight=weight)
    check_shape("conv2d", (outputs,), bias=bias)
    strides, dilations = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    pads = _padding(padding, window, strides, dilations)
    size = count_windows("conv2d", input, window, strides, pads, dilations)
    padded = (n + 2 * pad for n, pad in zip(input.shape[2:], pads, strict=True))
    check_size("conv2d", "a padded input", (*input.shape[:2], *padded), input.dtype.itemsize)
    check_size("conv2d", "an output", (input.shape[0], outputs, *size), input.dtype.itemsize)

    k = kernels_of(input)
    rounded = rounding(k)
    x, w = rounded(input._operand), rounded(weight._operand)
    y = k.conv2d(x, w, None if bias is None else bias._operand, strides, pads, dilations, groups)
    vjps = [
        lambda gy: k.conv2d_grad_input(rounded(gy), w, x.shape, strides, pads, dilations, groups),
        lambda gy: k.conv2d_grad_weight(rounded(gy), x, w.shape, strides, pads, dilations, groups),
        k.conv2d_grad_bias,
    ]
    return Tensor.from_op(y, (input, weight, bias), vjps)


def _padding(
    padding: IntPair | str, window: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    if padding == "same":
        reach = tuple(d * (size - 1) for d, size in zip(dilation, window, strict=True))
        if stride != (1, 1) or any(r % 2 for r in reach):
            raise ValueError(
                "conv2d: expected stride 1 and an odd window with padding 'same', "
                f"received stride {stride}, window {window}"
            )
        return reach[0] // 2, reach[1] // 2
    if isinstance(padding, str):
        raise ValueError(f"conv2d: expected padding as integers, 'valid' or 'same', received {padding!r}")
    return pair("conv2d", "padding", padding, 0)
