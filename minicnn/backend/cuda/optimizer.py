"""Optimizer steps in CUDA, in place: one launch a parameter."""

import math

from minicnn.backend.cuda.launch import BLOCK, cupy, elementwise, launch
from minicnn.backend.cuda.live import live

_DECAYED = "T g = weight_decay ? gradient + T(weight_decay) * parameter : gradient"
_MOMENTUM = f"""{_DECAYED};
    velocity = first ? g : T(momentum) * velocity + T(fresh) * g;
    parameter -= T(lr) * (nesterov ? g + T(momentum) * velocity : velocity)
"""
_ADAM = """
    T value = parameter * T(keep), g = gradient + T(weight_decay) * value;
    mean = T(beta1) * mean + T(fresh1) * g;
    square = T(beta2) * square + T(fresh2) * g * g;
    parameter = value - T(rate) * mean / (sqrt(square) / T(root) + T(eps))
"""
_CLIP = "if (isfinite(norm) && norm > limit) a *= T(limit / (norm + 1e-6))"


def _sgd_numbers(parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov):
    return lr, weight_decay, momentum, 1 - dampening, bool(first)


@live(_sgd_numbers)
def sgd_step(numbers, parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov):
    inputs = "T gradient, float64 lr, float64 weight_decay"
    if velocity is None:
        operation = f"{_DECAYED}; parameter -= T(lr) * g"
        elementwise("sgd_step", inputs, "T parameter", operation, gradient, *numbers[:2], parameter)
        return
    inputs += ", float64 momentum, float64 fresh, bool first, bool nesterov"
    outputs = "T parameter, T velocity"
    elementwise("sgd_momentum_step", inputs, outputs, _MOMENTUM, gradient, *numbers, nesterov, parameter, velocity)


def _adam_numbers(parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    keep, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    return keep, decay, beta1, 1 - beta1, beta2, 1 - beta2, rate, root, eps


@live(_adam_numbers)
def adam_step(numbers, parameter, gradient, mean, square, *_):
    names = "keep", "weight_decay", "beta1", "fresh1", "beta2", "fresh2", "rate", "root", "eps"
    inputs = ", ".join(["T gradient", *(f"float64 {name}" for name in names)])
    outputs = "T parameter, T mean, T square"
    elementwise("adam_step", inputs, outputs, _ADAM, gradient, *numbers, parameter, mean, square)


def total_norm(arrays):
    blocks = [min(1024, a.size // (8 * BLOCK) + 1) for a in arrays]
    partials, done = cupy.empty(sum(blocks), dtype="float64"), 0
    for a, count in zip(arrays, blocks, strict=True):
        launch("sums_of_squares", a.dtype, count * BLOCK, a, partials[done : done + count], a.size)
        done += count
    return cupy.sqrt(partials.sum())


def clip_norm(a, norm, limit):
    norm = cupy.asarray(norm, dtype="float64")
    elementwise("clip_norm", "float64 norm, float64 limit", "T a", _CLIP, norm, limit, a)
