"""Optimizer steps in CUDA, in place: one launch a parameter."""

import math

from minicnn.backend.cuda.launch import BLOCK, cupy, elementwise, launch

_DECAYED = "T g = weight_decay ? gradient + weight_decay * parameter : gradient"
_MOMENTUM = f"""{_DECAYED};
    velocity = first ? g : momentum * velocity + fresh * g;
    parameter -= lr * (nesterov ? g + momentum * velocity : velocity)
"""
_ADAM = """
    T value = parameter * keep, g = gradient + weight_decay * value;
    mean = beta1 * mean + fresh1 * g;
    square = beta2 * square + fresh2 * g * g;
    parameter = value - rate * mean / (sqrt(square) / root + eps)
"""
_CLIP = "if (isfinite(norm) && norm > limit) a *= T(limit / (norm + 1e-6))"


def sgd_step(parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov):
    inputs, plain = "T gradient, T lr, T weight_decay", (gradient, lr, weight_decay)
    if velocity is None:
        elementwise("sgd_step", inputs, "T parameter", f"{_DECAYED}; parameter -= lr * g", *plain, parameter)
        return
    inputs += ", T momentum, T fresh, bool first, bool nesterov"
    outputs, options = "T parameter, T velocity", (momentum, 1 - dampening, first, nesterov)
    elementwise("sgd_momentum_step", inputs, outputs, _MOMENTUM, *plain, *options, parameter, velocity)


def adam_step(parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    keep, decay = (1 - lr * weight_decay, 0) if decoupled else (1, weight_decay)
    rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    inputs = "T gradient, T keep, T weight_decay, T beta1, T fresh1, T beta2, T fresh2, T rate, T root, T eps"
    scalars = (keep, decay, beta1, 1 - beta1, beta2, 1 - beta2, rate, root, eps)
    outputs = "T parameter, T mean, T square"
    elementwise("adam_step", inputs, outputs, _ADAM, gradient, *scalars, parameter, mean, square)


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
