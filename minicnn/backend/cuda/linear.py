"""The fully connected layer in CUDA."""

from minicnn.backend.cuda.launch import empty
from minicnn.backend.cuda.product import matrix_products


def linear(x, weight, bias):
    # The outputs are the rows: of a last layer there are few.
    y = empty((*x.shape[:-1], weight.shape[0]), x)
    rows = x.reshape(-1, x.shape[-1])
    matrix_products(weight[None], rows.T[None], y, bias, 1, y.size, 1, (1, weight.shape[0]))
    return y


def linear_grad_input(gy, weight):
    gx = empty((*gy.shape[:-1], weight.shape[1]), gy)
    matrix_products(gy.reshape(1, -1, gy.shape[-1]), weight[None], gx, None, 1, gx.size, weight.shape[1])
    return gx


def linear_grad_weight(gy, x):
    gw = empty((gy.shape[-1], x.shape[-1]), gy)
    rows, inputs = (a.reshape(-1, a.shape[-1]) for a in (gy, x))
    return matrix_products(rows.T[None], inputs[None], gw, None, 1, gw.size, gw.shape[1])
