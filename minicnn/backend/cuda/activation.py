"""Activations in CUDA; a softmax over another axis than the last is left to the reference."""

import math

from minicnn.backend.cuda.launch import elementwise, empty, launch
from minicnn.backend.reference import activation as reference

_GELU_TANH = "T t = tanh(T(0.79788456080286536) * (x + T(0.044715) * x * x * x))"  # sqrt(2 / pi)
_NORMAL_CDF = "T cdf = T(0.5) * erfc(-x * T(0.70710678118654752))"


def relu(x):
    return elementwise("relu", "T x", "T y", "y = x < 0 ? T(0) : x", x)  # NaN stays


def relu_grad(gy, y):
    return elementwise("relu_grad", "T gy, T y", "T gx", "gx = y > 0 ? gy : T(0)", gy, y)


def leaky_relu(x, negative_slope):
    return elementwise("leaky_relu", "T x, T slope", "T y", "y = x > 0 ? x : x * slope", x, negative_slope)


def leaky_relu_grad(gy, x, negative_slope):
    operation = "gx = x > 0 ? gy : gy * slope"
    return elementwise("leaky_relu_grad", "T gy, T x, T slope", "T gx", operation, gy, x, negative_slope)


def elu(x, alpha):
    return elementwise("elu", "T x, T alpha", "T y", "y = x > 0 ? x : alpha * expm1(x)", x, alpha)


def elu_grad(gy, x, alpha):
    operation = "gx = x > 0 ? gy : gy * (alpha * exp(x))"
    return elementwise("elu_grad", "T gy, T x, T alpha", "T gx", operation, gy, x, alpha)


def gelu(x, approximate):
    if approximate == "tanh":
        return elementwise("gelu_tanh", "T x", "T y", f"{_GELU_TANH}; y = T(0.5) * x * (1 + t)", x)
    return elementwise("gelu", "T x", "T y", f"{_NORMAL_CDF}; y = x * cdf", x)


def gelu_grad(gy, x, approximate):
    if approximate == "tanh":
        slope = "T slope = T(0.79788456080286536) * (1 + 3 * T(0.044715) * x * x)"
        operation = f"{_GELU_TANH}; {slope}; gx = gy * (T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * slope)"
        return elementwise("gelu_tanh_grad", "T gy, T x", "T gx", operation, gy, x)
    density = "exp(T(-0.5) * x * x) * T(0.39894228040143268)"  # 1 / sqrt(2 pi)
    return elementwise("gelu_grad", "T gy, T x", "T gx", f"{_NORMAL_CDF}; gx = gy * (cdf + x * {density})", gy, x)


def sigmoid(x):
    return elementwise("sigmoid", "T x", "T y", "T e = exp(-fabs(x)); y = (x >= 0 ? T(1) : e) / (1 + e)", x)


def sigmoid_grad(gy, y):
    return elementwise("sigmoid_grad", "T gy, T y", "T gx", "gx = gy * (y * (1 - y))", gy, y)


def tanh_grad(gy, y):
    return elementwise("tanh_grad", "T gy, T y", "T gx", "gx = gy * (1 - y * y)", gy, y)


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
