"""One pass over memory where array code would make several, and temporaries with them."""

import numpy as np
from numba import carray, types

from minicnn.backend.cpu.jit import contiguous, jit, require_bfloat16, require_precision
from minicnn.backend.cpu.objects import c_function, pointer_to
from minicnn.backend.reference import arithmetic as reference_arithmetic
from minicnn.backend.reference import optimizer as reference

_words = pointer_to(types.uint32)


def relu_grad(gy, y):
    """See :func:`minicnn.backend.reference.activation.relu_grad`."""
    gx = np.empty_like(y, order="C")
    _relu_grad(contiguous(gy).reshape(-1), contiguous(y).reshape(-1), gx.reshape(-1))
    return gx


def dropout(x, key, p):
    """See :func:`minicnn.backend.reference.normalization.dropout`."""
    y = np.empty(x.shape, dtype=x.dtype)
    _dropout(
        contiguous(x).reshape(-1), y.reshape(-1), np.uint64(key), np.uint64(round(p * 2**24)), x.dtype.type(1 / (1 - p))
    )
    return y


def bfloat16(a):
    """See :func:`minicnn.backend.reference.arithmetic.bfloat16`."""
    require_bfloat16()
    if a.dtype != np.float32:
        return reference_arithmetic.bfloat16(a)
    y, source = np.empty(a.shape, dtype=a.dtype), contiguous(a)
    c_function(_bfloat16)(source.ctypes.data, y.ctypes.data, y.size)
    return y


def tf32(a):
    """Raise RuntimeError: processors have no such instructions, and nothing else is rounded like that."""
    require_precision("tf32")


def sgd_step(parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov):
    """See :func:`minicnn.backend.reference.optimizer.sgd_step`, which also takes what is not contiguous."""
    if not _contiguous(parameter, velocity):
        reference.sgd_step(parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov)
        return
    real = parameter.dtype.type
    state = parameter if velocity is None else velocity  # without momentum it is only an argument of the right type
    sgd_step_flat(
        parameter.reshape(-1),
        contiguous(gradient).reshape(-1),
        state.reshape(-1),
        velocity is not None,
        first,
        real(lr),
        real(momentum),
        real(1 - dampening),
        real(weight_decay),
        nesterov,
    )


def adam_step(parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    """See :func:`minicnn.backend.reference.optimizer.adam_step`, which also takes what is not contiguous."""
    if not _contiguous(parameter, mean, square):
        reference.adam_step(parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled)
        return
    real = parameter.dtype.type
    _adam_step(
        parameter.reshape(-1),
        contiguous(gradient).reshape(-1),
        mean.reshape(-1),
        square.reshape(-1),
        real(1 - lr * weight_decay if decoupled else 1),
        real(0 if decoupled else weight_decay),
        real(beta1),
        real(1 - beta1),
        real(beta2),
        real(1 - beta2),
        real((1 - beta2**step) ** 0.5),
        real(eps),
        real(lr / (1 - beta1**step)),
    )


def _contiguous(*arrays):
    """Whether all arrays (None is passed over) are what ``reshape(-1)`` gives a view of."""
    return all(a is None or a.flags.c_contiguous for a in arrays)


@jit()
def _relu_grad(gy, y, gx):
    zero = gx.dtype.type(0)
    for i in range(gx.size):
        gx[i] = gy[i] if y[i] > 0 else zero


def _bfloat16(source, target, count):
    x, y = carray(_words(source), count), carray(_words(target), count)
    for i in range(count):
        bits = x[i]
        if bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
            bits |= np.uint32(0x400000)  # a quiet NaN: it is one also without its lower half
        else:
            bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        y[i] = bits


@jit()
def _dropout(x, y, key, threshold, scale):
    zero = x.dtype.type(0)
    for i in range(x.size):
        z = key + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        y[i] = x[i] * scale if (z >> np.uint64(40)) >= threshold else zero


@jit()
def sgd_step_flat(w, gradient, velocity, has_velocity, first, lr, momentum, share, weight_decay, nesterov):
    """One step on flat arrays; share = 1 - dampening."""
    for i in range(w.size):
        g = gradient[i] + weight_decay * w[i]
        if has_velocity:
            v = g if first else momentum * velocity[i] + share * g
            velocity[i] = v
            g = g + momentum * v if nesterov else v
        w[i] -= lr * g


@jit()
def _adam_step(w, gradient, mean, square, shrink, decay, beta1, share1, beta2, share2, correction, eps, rate):
    for i in range(w.size):
        value = w[i] * shrink
        g = gradient[i] + decay * value
        m = beta1 * mean[i] + share1 * g
        s = beta2 * square[i] + share2 * g * g
        mean[i], square[i] = m, s
        w[i] = value - rate * m / (np.sqrt(s) / correction + eps)
