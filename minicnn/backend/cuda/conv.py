"""Convolution in CUDA as products that read the windows of pictures where they are; see conv.cu.

Of rounded operands on tensor cores, unless a vector of these would reach into the next group.
"""

import math

from minicnn.backend.cuda import tensor
from minicnn.backend.cuda.launch import channel_sums, empty
from minicnn.backend.cuda.product import Epilogue, products
from minicnn.shapes import output_size


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    return _conv2d(x, weight, stride, padding, dilation, groups, Epilogue(bias=bias))


def conv2d_relu(x, weight, bias, stride, padding, dilation, groups):
    return _conv2d(x, weight, stride, padding, dilation, groups, Epilogue(bias=bias, relu=True))


def _conv2d(x, weight, stride, padding, dilation, groups, epilogue):
    if tensor.is_packed(x):
        if tensor.fits(weight.shape, groups):
            return tensor.conv2d(x, weight, stride, padding, dilation, groups, epilogue)
        x, weight = tensor.unpacked(x), tensor.unpacked(weight)
    n, o = x.shape[0], weight.shape[0]
    oh, ow = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = empty((n, o, oh, ow), x)
    size = o // groups, n * oh * ow, math.prod(weight.shape[1:])
    sources = x, weight, *x.shape, *weight.shape[2:], oh, ow, *stride, *padding, *dilation
    columns = oh * ow, o * oh * ow, 1, oh * ow
    return products("conv2d", sources, y, size, groups, size[0] * oh * ow, oh * ow, columns, epilogue)


def conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups):
    return _conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups, Epilogue())


def conv2d_grad_input_relu(gy, weight, shape, stride, padding, dilation, groups, y):
    return _conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups, Epilogue(gate=y))


def _conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups, epilogue):
    if tensor.is_packed(gy):
        if tensor.fits(weight.shape, groups):
            return tensor.conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups, epilogue)
        gy, weight = tensor.unpacked(gy), tensor.unpacked(weight)
    n, c, h, w = shape
    gx = empty(shape, gy)
    size = c // groups, n * h * w, weight.shape[0] // groups * math.prod(weight.shape[2:])
    sources = gy, weight, *shape, *weight.shape[2:], *gy.shape[2:], *stride, *padding, *dilation
    columns = h * w, c * h * w, 1, h * w
    return products("conv2d_grad_input", sources, gx, size, groups, size[0] * h * w, h * w, columns, epilogue)


def conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups):
    if tensor.is_packed(gy):
        if tensor.fits(shape, groups):
            return tensor.conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups)
        gy, x = tensor.unpacked(gy), tensor.unpacked(x)
    n, o, oh, ow = gy.shape
    gw = empty(shape, gy)
    size = o // groups, math.prod(shape[1:]), n * oh * ow
    sources = gy, x, *x.shape, *shape[2:], oh, ow, *stride, *padding, *dilation
    return products("conv2d_grad_weight", sources, gw, size, groups, size[0] * size[1], size[1])


def conv2d_grad_bias(gy):
    n, o, oh, ow = gy.shape
    return channel_sums("sum_channels", (n, o, oh * ow), gy)[0]
