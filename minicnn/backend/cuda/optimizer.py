"""Optimizer steps in CUDA, in place: one launch a parameter."""

import math

from minicnn.backend.cuda.launch import BLOCK, cupy, launch
from minicnn.backend.reference import optimizer as reference


def sgd_step(parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov):
    if not _contiguous(parameter, velocity):
        return reference.sgd_step(
            parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov
        )  # fmt: skip
    scalars = (float(lr), float(momentum), 1.0 - dampening, float(weight_decay), nesterov)
    return _launch("sgd_step", parameter, gradient, velocity, first, *scalars)


def adam_step(parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    if not _contiguous(parameter, mean, square):
        return reference.adam_step(
            parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled
        )  # fmt: skip
    keep, decay = (1.0 - lr * weight_decay, 0.0) if decoupled else (1.0, float(weight_decay))
    moments = (float(beta1), 1.0 - beta1, float(beta2), 1.0 - beta2)
    rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    return _launch("adam_step", parameter, gradient, mean, square, keep, decay, *moments, rate, root, float(eps))


def total_norm(arrays):
    blocks = [min(1024, a.size // (8 * BLOCK) + 1) for a in arrays]
    partials, done = cupy.empty(sum(blocks), dtype="float64"), 0
    for a, count in zip(arrays, blocks, strict=True):
        launch("sums_of_squares", a.dtype, count * BLOCK, a, partials[done : done + count], a.size)
        done += count
    return cupy.sqrt(partials.sum())


def clip_norm(a, norm, limit):
    if not _contiguous(a):
        return reference.clip_norm(a, norm, limit)
    return _launch("clip_norm", a, cupy.asarray(norm, dtype="float64"), float(limit))


def _launch(name, parameter, *arguments):
    launch(name, parameter.dtype, parameter.size, parameter, *arguments, parameter.size)


def _contiguous(*arrays):
    """Whether kernels can write to the arrays (None is passed over)."""
    return all(a is None or a.flags.c_contiguous for a in arrays)
