"""Convolution in CUDA as products that read the windows of pictures where they are; see conv.cu."""

import math

from minicnn.backend.cuda.launch import channel_sums, empty
from minicnn.backend.cuda.product import products
from minicnn.shapes import output_size


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    n, o = x.shape[0], weight.shape[0]
    oh, ow = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = empty((n, o, oh, ow), x)
    size = o // groups, n * oh * ow, math.prod(weight.shape[1:])
    sources = x, weight, *x.shape, *weight.shape[2:], oh, ow, *stride, *padding, *dilation
    columns = oh * ow, o * oh * ow
    return products("conv2d", sources, y, bias, size, groups, size[0] * oh * ow, oh * ow, columns)


def conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups):
    n, c, h, w = shape
    gx = empty(shape, gy)
    size = c // groups, n * h * w, weight.shape[0] // groups * math.prod(weight.shape[2:])
    sources = gy, weight, *shape, *weight.shape[2:], *gy.shape[2:], *stride, *padding, *dilation
    return products("conv2d_grad_input", sources, gx, None, size, groups, size[0] * h * w, h * w, (h * w, c * h * w))


def conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups):
    n, o, oh, ow = gy.shape
    gw = empty(shape, gy)
    size = o // groups, math.prod(shape[1:]), n * oh * ow
    sources = gy, x, *x.shape, *shape[2:], oh, ow, *stride, *padding, *dilation
    return products("conv2d_grad_weight", sources, gw, None, size, groups, size[0] * size[1], size[1])


def conv2d_grad_bias(gy):
    n, o, oh, ow = gy.shape
    return channel_sums("sum_channels", (n, o, oh * ow), gy)[0]
