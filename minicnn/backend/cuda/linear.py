"""The fully connected layer in CUDA; of rounded operands on tensor cores."""

import math

from minicnn.backend.cuda import tensor
from minicnn.backend.cuda.launch import empty
from minicnn.backend.cuda.product import Epilogue, matrix_products


def linear(x, weight, bias):
    return _linear(x, weight, Epilogue(bias=bias))


def linear_relu(x, weight, bias):
    return _linear(x, weight, Epilogue(bias=bias, relu=True))


def _linear(x, weight, epilogue):
    if tensor.is_packed(x):
        return tensor.linear(x, weight, epilogue)
    # The outputs are the rows: of a last layer there are few.
    y, rows = empty((*x.shape[:-1], weight.shape[0]), x), _rows(x)
    return matrix_products(weight[None], rows.T[None], y, 1, y.size, 1, (1, weight.shape[0], 1, 1), epilogue)


def linear_grad_input(gy, weight):
    return _linear_grad_input(gy, weight, Epilogue())


def linear_grad_input_relu(gy, weight, y):
    return _linear_grad_input(gy, weight, Epilogue(gate=y))


def _linear_grad_input(gy, weight, epilogue):
    if tensor.is_packed(gy):
        return tensor.linear_grad_input(gy, weight, epilogue)
    gx = empty((*gy.shape[:-1], weight.shape[1]), gy)
    return matrix_products(_rows(gy)[None], weight[None], gx, 1, gx.size, weight.shape[1], epilogue=epilogue)


def linear_grad_weight(gy, x):
    if tensor.is_packed(gy):
        return tensor.linear_grad_weight(gy, x)
    gw = empty((gy.shape[-1], x.shape[-1]), gy)
    return matrix_products(_rows(gy).T[None], _rows(x)[None], gw, 1, gw.size, gw.shape[1])


def _rows(x):
    """(..., I) as (N, I)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
