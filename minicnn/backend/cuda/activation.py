"""Activations in CUDA; a softmax over another axis than the last is left to the reference."""

import math

from minicnn.backend.cuda.launch import elementwise, empty, launch
from minicnn.backend.reference import activation as reference


def relu(x):
    return elementwise("relu", x)


def relu_grad(gy, y):
    return elementwise("relu_grad", gy, y)


def leaky_relu(x, negative_slope):
    return elementwise("leaky_relu", x, float(negative_slope))


def leaky_relu_grad(gy, x, negative_slope):
    return elementwise("leaky_relu_grad", gy, x, float(negative_slope))


def elu(x, alpha):
    return elementwise("elu", x, float(alpha))


def elu_grad(gy, x, alpha):
    return elementwise("elu_grad", gy, x, float(alpha))


def gelu(x, approximate):
    return elementwise("gelu", x, approximate == "tanh")


def gelu_grad(gy, x, approximate):
    return elementwise("gelu_grad", gy, x, approximate == "tanh")


def sigmoid(x):
    return elementwise("sigmoid", x)


def sigmoid_grad(gy, y):
    return elementwise("sigmoid_grad", gy, y)


def tanh_grad(gy, y):
    return elementwise("tanh_grad", gy, y)


def softmax(x, axis):
    return _rows("softmax", x) if axis % x.ndim == x.ndim - 1 else reference.softmax(x, axis)


def softmax_grad(gy, y, axis):
    return _rows("softmax_grad", gy, y) if axis % y.ndim == y.ndim - 1 else reference.softmax_grad(gy, y, axis)


def log_softmax(x, axis):
    return _rows("log_softmax", x) if axis % x.ndim == x.ndim - 1 else reference.log_softmax(x, axis)


def log_softmax_grad(gy, y, axis):
    if axis % y.ndim != y.ndim - 1:
        return reference.log_softmax_grad(gy, y, axis)
    return _rows("log_softmax_grad", gy, y)


def _rows(name, *arrays):
    """Run a kernel that gives each row, the last axis, to a warp."""
    y = empty(arrays[0].shape, arrays[0])
    rows = math.prod(y.shape[:-1])
    launch(name, y.dtype, 32 * rows, *arrays, y, rows, y.shape[-1])
    return y
