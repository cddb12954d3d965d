"""The fully connected layer in CUDA; of rounded operands on tensor cores."""

import math

from minicnn.backend.cuda import tensor
from minicnn.backend.cuda.launch import empty
from minicnn.backend.cuda.product import matrix_products


def linear(x, weight, bias):
    if tensor.is_packed(x):
        return tensor.linear(x, weight, bias)
    # The outputs are the rows: of a last layer there are few.
    y = empty((*x.shape[:-1], weight.shape[0]), x)
    rows = _rows(x)
    matrix_products(weight[None], rows.T[None], y, bias, 1, y.size, 1, (1, weight.shape[0], 1, 1))
    return y


def linear_grad_input(gy, weight):
    if tensor.is_packed(gy):
        return tensor.linear_grad_input(gy, weight)
    gx = empty((*gy.shape[:-1], weight.shape[1]), gy)
    matrix_products(_rows(gy)[None], weight[None], gx, None, 1, gx.size, weight.shape[1])
    return gx


def linear_grad_weight(gy, x):
    if tensor.is_packed(gy):
        return tensor.linear_grad_weight(gy, x)
    gw = empty((gy.shape[-1], x.shape[-1]), gy)
    return matrix_products(_rows(gy).T[None], _rows(x)[None], gw, None, 1, gw.size, gw.shape[1])


def _rows(x):
    """(..., I) as (N, I)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
