"""Functions that pool the pixels of windows."""

from minicnn.functional.arguments import IntPair, check_images, check_size, count_windows, pair
from minicnn.tensor import Tensor, kernels_of


def max_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest value of each window; outside the picture there is -infinity, and a NaN wins its windows.

    Of equal values the first in row order takes the gradient.

    Args:
        input: (N, C, H, W).
        kernel_size, stride, padding, dilation: one int, or (vertical, horizontal); stride defaults to kernel_size,
            padding is at most half the window.
        ceil_mode: keep the last window even if it reaches past the padding.

    Returns:
        (N, C, OH, OW) with OH = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1, rounded down (or up).

    Example:
        >>> F.max_pool2d(tensor([[[[1.0, 5.0, 2.0], [0.0, 3.0, 4.0]]]]), 2, stride=1)
        tensor([[[[5., 5.]]]], dtype=float32)
    """
    size, strides, pads = _window("max_pool2d", input, kernel_size, stride, padding)
    dilations = pair("max_pool2d", "dilation", dilation, 1)
    if size[0] * size[1] > 1 << 16:  # the kernels number the elements of a window with 16 bits
        raise ValueError(f"max_pool2d: expected a window of at most {1 << 16} elements, received {size}")
    for length, interval, pad, step in zip(input.shape[2:], strides, pads, dilations, strict=True):
        if any(start % step >= length for start in range(-pad, 0, interval)):  # its first element from 0 on
            raise ValueError(
                f"max_pool2d: expected windows that meet the input {input.shape[2:]}, "
                f"received padding {pads} and dilation {dilations}, which step over it"
            )
    counts = count_windows("max_pool2d", input, size, strides, pads, dilations, ceil_mode)
    k = kernels_of(input)
    shape = input.shape
    y, taps = k.max_pool2d(input._operand, size, strides, pads, dilations, counts)
    return Tensor.from_op(y, (input,), (lambda gy: k.max_pool2d_grad(gy, taps, shape, size, strides, pads, dilations),))


def avg_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window, zeros outside the picture.

    Args:
        input: (N, C, H, W).
        kernel_size, stride, padding, ceil_mode: as for :func:`max_pool2d`.
        count_include_pad: whether the zeros of the padding count in the divisor.
        divisor_override: divide by this instead of the number of elements.

    Example:
        >>> F.avg_pool2d(tensor([[[[1.0, 5.0, 2.0], [0.0, 2.0, 4.0]]]]), (2, 1))
        tensor([[[[0.5, 3.5, 3. ]]]], dtype=float32)
    """
    size, strides, pads = _window("avg_pool2d", input, kernel_size, stride, padding)
    if divisor_override is not None:
        if not isinstance(divisor_override, int) or divisor_override == 0:
            raise ValueError(
                f"avg_pool2d: expected divisor_override as a non-zero integer, received {divisor_override!r}"
            )
        pair("avg_pool2d", "divisor_override", abs(divisor_override), 1)
    axes = []
    windows = count_windows("avg_pool2d", input, size, strides, pads, ceil_mode=ceil_mode)
    each = zip(input.shape[2:], size, strides, pads, windows, strict=True)
    for axis, (length, window, step, pad, count) in enumerate(each):
        first = [i * step - pad for i in range(count)]
        starts, stops = [max(f, 0) for f in first], [min(f + window, length) for f in first]
        if divisor_override is not None:
            counts = [divisor_override if axis == 0 else 1] * count
        elif count_include_pad:
            counts = [min(f + window, length + pad) - f for f in first]
        else:
            counts = [stop - start for start, stop in zip(starts, stops, strict=True)]
        axes.append((length, starts, stops, counts))
    return _average(input, axes)


def adaptive_avg_pool2d(input: Tensor, output_size: IntPair) -> Tensor:
    """Mean over OH x OW windows that cover the picture: row i averages rows floor(i H/OH) to ceil((i+1) H/OH).

    Args:
        input: (N, C, H, W).
        output_size: one int, or (OH, OW).

    Example:
        >>> F.adaptive_avg_pool2d(tensor([[[[1.0, 5.0], [0.0, 2.0]]]]), (1, 2))
        tensor([[[[0.5, 3.5]]]], dtype=float32)
    """
    check_images("adaptive_avg_pool2d", input)
    axes, counts = [], pair("adaptive_avg_pool2d", "output_size", output_size, 1)
    check_size("adaptive_avg_pool2d", "an output", (*input.shape[:2], *counts), input.dtype.itemsize)
    for length, count in zip(input.shape[2:], counts, strict=True):
        starts = [i * length // count for i in range(count)]
        stops = [-(-(i + 1) * length // count) for i in range(count)]
        axes.append((length, starts, stops, [stop - start for start, stop in zip(starts, stops, strict=True)]))
    return _average(input, axes)


def _average(input: Tensor, axes: list[tuple[int, list[int], list[int], list[int]]]) -> Tensor:
    """Average over the windows of rows axes[0] and of columns axes[1], each (length, starts, stops, counts)."""
    k = kernels_of(input)
    rows, columns = (k.window_means(input._operand, *axis) for axis in axes)
    vjp = lambda gy: k.avg_pool2d(gy, k.transpose(rows, (1, 0)), k.transpose(columns, (1, 0)))  # noqa: E731
    return Tensor.from_op(k.avg_pool2d(input._operand, rows, columns), (input,), (vjp,))


def _window(
    operation: str, x: Tensor, kernel_size: IntPair, stride: IntPair | None, padding: IntPair
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Check the images, and return window, strides and padding as (vertical, horizontal)."""
    check_images(operation, x)
    size = pair(operation, "kernel_size", kernel_size, 1)
    strides = size if stride is None else pair(operation, "stride", stride, 1)
    pads = pair(operation, "padding", padding, 0)
    if any(2 * pad > window for pad, window in zip(pads, size, strict=True)):
        raise ValueError(f"{operation}: expected padding of at most half the window {size}, received {pads}")
    return size, strides, pads
