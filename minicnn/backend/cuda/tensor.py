"""Convolutions and fully connected layers of rounded operands, on tensor cores; see tensor.cuh and tensor.cu.

What rounds an array of float32 returns its bits, uint16 for bfloat16 and uint32 for TF32: of the same shape, but in
memory channels, axis 1, are the last axis, padded with zeros to a multiple of 16 bytes. Only what is here reads them.
"""

import math

import numpy as np

from minicnn.backend.cuda.launch import BLOCK, cupy, elementwise, launch, require_tensor_cores
from minicnn.backend.cuda.product import PLAIN, products
from minicnn.shapes import output_size

_KINDS = np.uint16, np.uint32
_WIDEN = {np.uint16: "y = __uint_as_float((unsigned)bits << 16)", np.uint32: "y = __uint_as_float(bits)"}


def packed(a, kind):
    """float32 (N, C, ...) rounded, as bits of dtype ``kind``."""
    require_tensor_cores()
    rows, channels, pixels = len(a), a.shape[1], math.prod(a.shape[2:])
    vector = 16 // np.dtype(kind).itemsize
    padded = math.ceil(channels / vector) * vector
    bits = cupy.empty((rows, *a.shape[2:], padded), dtype=kind)
    if pixels == 1:
        launch("pack_rows", kind, bits.size, a, bits, channels, padded, bits.size)
    else:
        tiles = rows * math.ceil(pixels / 32) * math.ceil(padded / 32)
        launch("pack", kind, tiles * BLOCK, a, bits, rows, channels, pixels, padded)
    return bits[..., :channels].transpose(0, a.ndim - 1, *range(1, a.ndim - 1))


def is_packed(a):
    return a.dtype.type in _KINDS


def unpacked(a):
    """The numbers that ``packed`` made, as float32 in the order of the library."""
    kind = a.dtype.type
    return elementwise(f"unpack_{a.dtype}", f"{a.dtype} bits", "float32 y", _WIDEN[kind], a)


def fits(shape, groups):
    """Whether no vector has channels of two groups of a convolution with a weight (O, C/G, KH, KW)."""
    return groups == 1 or (shape[1] % 8 == 0 and shape[0] // groups % 8 == 0)


def conv2d(x, weight, stride, padding, dilation, groups, epilogue):
    (n, _, h, w), (o, _, kh, kw) = x.shape, weight.shape
    oh, ow = output_size((h, w), (kh, kw), stride, padding, dilation)
    y, x, weight = _floats((n, o, oh, ow)), x.base, weight.base
    size = o // groups, n * oh * ow, kh * kw * weight.shape[-1]
    sources = x, weight, n, x.shape[-1], h, w, kh, kw, oh, ow, *stride, *padding, *dilation
    columns = oh * ow, o * oh * ow, 1, oh * ow
    return _products("conv2d", sources, y, size, groups, size[0] * oh * ow, oh * ow, columns, epilogue)


def conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups, epilogue):
    n, c, h, w = shape
    (o, _, kh, kw), (oh, ow) = weight.shape, gy.shape[2:]
    gx, gy, weight = _floats(shape), gy.base, weight.base
    outputs, channels = gy.shape[-1], weight.shape[-1] * groups
    size = c // groups, n * h * w, outputs // groups * kh * kw
    sources = gy, weight, outputs, o // groups, n, channels, h, w, kh, kw, oh, ow, *stride, *padding, *dilation
    columns = h * w, c * h * w, 1, h * w
    return _products("conv2d_grad_input", sources, gx, size, groups, size[0] * h * w, h * w, columns, epilogue)


def conv2d_grad_weight(gy, x, shape, stride, padding, dilation, groups):
    (o, c, kh, kw), (n, _, h, w), (oh, ow) = shape, x.shape, gy.shape[2:]
    gw, gy, x = _floats(shape), gy.base, x.base
    channels = x.shape[-1] // groups
    size = o // groups, kh * kw * channels, n * oh * ow
    sources = gy, x, gy.shape[-1], n, x.shape[-1], h, w, kh, kw, oh, ow, *stride, *padding, *dilation
    columns = channels, 1, kh * kw, c
    return _products("conv2d_grad_weight", sources, gw, size, groups, size[0] * c * kh * kw, c * kh * kw, columns)


def linear(x, weight, epilogue):
    (n, inputs), outputs = x.shape, len(weight)
    y, x, weight = _floats((n, outputs)), x.base, weight.base
    size, columns = (outputs, n, inputs), (1, outputs, 1, 1)
    return _products("linear", (x, weight, x.shape[1]), y, size, 1, y.size, 1, columns, epilogue)


def linear_grad_input(gy, weight, epilogue):
    (n, outputs), inputs = gy.shape, weight.shape[1]
    gx, gy, weight = _floats((n, inputs)), gy.base, weight.base
    sources = gy, weight, gy.shape[1], weight.shape[1]
    return _products("linear_grad_input", sources, gx, (n, inputs, outputs), 1, gx.size, inputs, epilogue=epilogue)


def linear_grad_weight(gy, x):
    (n, outputs), inputs = gy.shape, x.shape[1]
    gw, gy, x = _floats((outputs, inputs)), gy.base, x.base
    sources = gy, x, gy.shape[1], x.shape[1]
    return _products("linear_grad_weight", sources, gw, (outputs, inputs, n), 1, gw.size, inputs)


def _floats(shape):
    return cupy.empty(shape, dtype="float32")


def _products(name, sources, y, size, groups, group, row, columns=None, epilogue=PLAIN):
    tile = (128 if size[0] > 64 else 64), 128
    return products(name, sources, y, size, groups, group, row, columns, epilogue, sources[0].dtype, tile)
