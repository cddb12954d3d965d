"""Convolution as im2col, one matrix product a group over the whole batch, and back; see conv.cu for the layout."""

from minicnn.backend.cuda.launch import channel_sums, elementwise, empty, launch
from minicnn.shapes import output_size


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    n, o = x.shape[0], weight.shape[0]
    columns, size = _im2col(x, weight.shape[2:], stride, padding, dilation, groups)
    product = _matmul(weight.reshape(groups, o // groups, -1), columns)  # (G, O/G, N*OH*OW)
    return _swap_axes(product, bias, o, n, size)


def conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups):
    n, o, *size = gy.shape
    matrix = weight.reshape(groups, o // groups, -1).transpose(0, 2, 1)  # (G, C/G*KH*KW, O/G)
    rows = _swap_axes(gy, None, n, o, size).reshape(groups, o // groups, n * size[0] * size[1])
    columns = _matmul(matrix, rows)
    gx = empty(shape, gy)
    launch("col2im", gx.dtype, gx.size, columns, gx, *shape, *weight.shape[2:], *size, *stride, *padding, *dilation)
    return gx


def conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups):
    n, o, *size = gy.shape
    columns, _ = _im2col(x, shape[2:], stride, padding, dilation, groups)
    rows = _swap_axes(gy, None, n, o, size).reshape(groups, o // groups, n * size[0] * size[1])
    return _matmul(rows, columns.transpose(0, 2, 1)).reshape(shape)


def conv2d_grad_bias(gy):
    n, o, oh, ow = gy.shape
    return channel_sums("sum_channels", (n, o, oh * ow), gy)[0]


def _im2col(x, kernel_size, stride, padding, dilation, groups):
    """x: (N, C, H, W) -> columns (G, C/G*KH*KW, N*OH*OW), and (OH, OW)."""
    n, c = x.shape[:2]
    oh, ow = output_size(x.shape[2:], kernel_size, stride, padding, dilation)
    columns = empty((groups, c // groups * kernel_size[0] * kernel_size[1], n * oh * ow), x)
    geometry = (*x.shape, *kernel_size, oh, ow, *stride, *padding, *dilation)
    launch("im2col", x.dtype, c * n * oh * ow, x, columns, *geometry)
    return columns, (oh, ow)


def _swap_axes(a, bias, m, n, size):
    """a: M*N*OH*OW values in this order -> (N, M, OH, OW), plus bias (M,) unless it is None."""
    swapped = a.reshape(m, n, *size).transpose(1, 0, 2, 3)
    bias = 0 if bias is None else bias.reshape(m, 1, 1)
    return elementwise("add_bias", "T a, T bias", "T y", "y = a + bias", swapped, bias)


def _matmul(a, b):
    """(G, M, K) @ (G, K, N) -> (G, M, N); one group is a plain product, which cuBLAS tunes better than a batch."""
    return (a[0] @ b[0])[None] if len(a) == 1 else a @ b
