"""The fully connected layer in CUDA; of rounded operands on tensor cores."""

import functools
import math

from minicnn.backend.cuda import tensor
from minicnn.backend.cuda.launch import empty
from minicnn.backend.cuda.product import Epilogue, matrix_products


def linear(x, weight, bias, relu=False):
    epilogue = Epilogue(bias=bias, relu=relu)
    if tensor.is_packed(x):
        return tensor.linear(x, weight, epilogue)
    # The outputs are the rows: of a last layer there are few.
    y, rows = empty((*x.shape[:-1], weight.shape[0]), x), _rows(x)
    return matrix_products(weight[None], rows.T[None], y, 1, y.size, 1, (1, weight.shape[0], 1, 1), epilogue)


linear_relu = functools.partial(linear, relu=True)


def linear_grad_input(gy, weight, gate=None):
    epilogue = Epilogue(gate=gate)
    if tensor.is_packed(gy):
        return tensor.linear_grad_input(gy, weight, epilogue)
    gx = empty((*gy.shape[:-1], weight.shape[1]), gy)
    return matrix_products(_rows(gy)[None], weight[None], gx, 1, gx.size, weight.shape[1], epilogue=epilogue)


linear_grad_input_relu = linear_grad_input


def linear_grad_weight(gy, x):
    if tensor.is_packed(gy):
        return tensor.linear_grad_weight(gy, x)
    gw = empty((gy.shape[-1], x.shape[-1]), gy)
    return matrix_products(_rows(gy).T[None], _rows(x)[None], gw, 1, gw.size, gw.shape[1])


def _rows(x):
    """(..., I) as (N, I)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
