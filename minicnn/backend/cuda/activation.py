"""Activations in CUDA; a softmax over another axis than the last is left to the reference."""

import math

from minicnn.backend.cuda.launch import apply, empty, launch
from minicnn.backend.reference import activation as reference


def relu(x):
    return apply("relu", x)


def relu_grad(gy, y):
    return apply("relu_grad", gy, y)


def leaky_relu(x, negative_slope):
    return apply("leaky_relu", x, negative_slope)


def leaky_relu_grad(gy, x, negative_slope):
    return apply("leaky_relu_grad", gy, x, negative_slope)


def elu(x, alpha):
    return apply("elu", x, alpha)


def elu_grad(gy, x, alpha):
    return apply("elu_grad", gy, x, alpha)


def gelu(x, approximate):
    return apply("gelu_tanh" if approximate == "tanh" else "gelu", x)


def gelu_grad(gy, x, approximate):
    return apply("gelu_tanh_grad" if approximate == "tanh" else "gelu_grad", gy, x)


def sigmoid(x):
    return apply("sigmoid", x)


def sigmoid_grad(gy, y):
    return apply("sigmoid_grad", gy, y)


def tanh(x):
    return apply("tanh", x)


def tanh_grad(gy, y):
    return apply("tanh_grad", gy, y)


def softmax(x, axis):
    return _rows("softmax", axis, x)


def softmax_grad(gy, y, axis):
    return _rows("softmax_grad", axis, gy, y)


def log_softmax(x, axis):
    return _rows("log_softmax", axis, x)


def log_softmax_grad(gy, y, axis):
    return _rows("log_softmax_grad", axis, gy, y)


def _rows(name, axis, *arrays):
    """Run a kernel that gives each row, the last axis, to a warp."""
    if axis % arrays[0].ndim != arrays[0].ndim - 1:
        return getattr(reference, name)(*arrays, axis)
    y = empty(arrays[0].shape, arrays[0])
    rows = math.prod(y.shape[:-1])
    launch(name, y.dtype, 32 * rows, *arrays, y, rows, y.shape[-1])
    return y
