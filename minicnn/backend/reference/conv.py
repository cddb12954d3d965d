"""Convolution as explicit im2col and one matrix product a group.

``im2col`` writes every window of the picture as a column, so that convolution is weight matrix times columns; its
adjoint ``col2im`` adds the columns back up (Chellapilla et al., 2006).
"""

import math

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import kernel, products, products_to_input, products_to_weight
from minicnn.backend.reference.reductions import sum
from minicnn.shapes import output_size


def _output_shape(x, weight, bias, stride, padding, dilation, groups):
    return x.shape[0], weight.shape[0], *output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)


@kernel(_output_shape, flop=products)
def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """y[n,o,i,j] = bias[o] + sum_{c,u,v} x[n, c, i*stride + u*dilation - padding, ...] weight[o,c,u,v].

    x: (N, C, H, W); weight: (O, C/G, KH, KW); bias: (O,) or None; stride, padding, dilation: (vertical, horizontal)
    -> (N, O, OH, OW).
    """
    n, o = x.shape[0], weight.shape[0]
    columns = im2col(x, weight.shape[2:], stride, padding, dilation)
    oh, ow = columns.shape[4:]
    matrix = weight.reshape(groups, o // groups, -1)  # (G, O/G, C/G*KH*KW)
    y = matrix @ columns.reshape(n, groups, matrix.shape[2], oh * ow)  # (N, G, O/G, OH*OW)
    y = y.reshape(n, o, oh, ow)
    if bias is not None:
        y += bias.reshape(o, 1, 1)
    return y


@kernel(lambda gy, weight, shape, *_: shape, flop=products_to_input)
def conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups):
    """Gradient for x of ``shape`` (N, C, H, W): columns = weight^T gy, added back up. gy: (N, O, OH, OW)."""
    n, o, oh, ow = gy.shape
    matrix = weight.reshape(groups, o // groups, -1).transpose(0, 2, 1)  # (G, C/G*KH*KW, O/G)
    columns = matrix @ gy.reshape(n, groups, o // groups, oh * ow)
    columns = columns.reshape(n, shape[1], *weight.shape[2:], oh, ow)
    return col2im(columns, shape, stride, padding, dilation)


@kernel(lambda gy, x, shape, *_: shape, flop=products_to_weight)
def conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups):
    """Gradient for weight of ``shape`` (O, C/G, KH, KW): gy columns^T, summed over the images. gy: (N, O, OH, OW)."""
    n, o, oh, ow = gy.shape
    columns = im2col(x, shape[2:], stride, padding, dilation)
    columns = columns.reshape(n, groups, math.prod(shape[1:]), oh * ow).transpose(0, 1, 3, 2)
    per_image = gy.reshape(n, groups, o // groups, oh * ow) @ columns  # (N, G, O/G, C/G*KH*KW)
    return sum(per_image, (0,), False).reshape(shape)


@kernel(lambda gy: gy.shape[1:2])
def conv2d_grad_bias(gy):
    """Gradient for bias: gy (N, O, OH, OW) summed over all but the channels -> (O,)."""
    return sum(gy, (0, 2, 3), False)


def im2col(x, kernel_size, stride, padding, dilation):
    """x: (N, C, H, W) -> columns (N, C, KH, KW, OH, OW)."""
    xp = namespace(x)
    x = xp.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True))
    windows = xp.lib.stride_tricks.sliding_window_view(x, reach, (2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]  # (N, C, OH, OW, KH, KW)
    return xp.ascontiguousarray(windows.transpose(0, 1, 4, 5, 2, 3))


def col2im(columns, shape, stride, padding, dilation):
    """The adjoint of :func:`im2col`: columns (N, C, KH, KW, OH, OW) added up into ``shape`` (N, C, H, W)."""
    n, c, h, w = shape
    kh, kw, oh, ow = columns.shape[2:]
    padded = namespace(columns).zeros((n, c, h + 2 * padding[0], w + 2 * padding[1]), dtype=columns.dtype)
    for u in range(kh):
        for v in range(kw):
            top, left = u * dilation[0], v * dilation[1]
            padded[:, :, top : top + oh * stride[0] : stride[0], left : left + ow * stride[1] : stride[1]] += columns[
                :, :, u, v
            ]
    return padded[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w]
