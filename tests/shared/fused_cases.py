"""Arguments for the kernels that plans of a GPU put in the place of others; see :mod:`shared.kernel_cases`."""

import numpy as np

from minicnn.backend.kernel import Slot
from minicnn.backend.reference import Kernels as reference
from shared.kernel_cases import CONV, FAR, FINITE, LINEARS, NORMS, SHAPES, batch_norms, poolings, positive, real


def norms_in_training():
    """Batch norm of a training step: with and without running statistics, weights, a residual and an activation."""
    for x in [x for x in [*NORMS, FAR] if x.size > x.shape[1]]:
        c = x.shape[1]
        for running, affine, residual in ((True, True, False), (False, False, True), (True, True, True)):
            statistics = (real(c), positive(c)) if running else (None, None)
            scale = (real(c), real(c)) if affine else (None, None)
            for activation in ACTIVATIONS:
                yield x, *statistics, 0.1, 1.25, *scale, 1e-5, real(*x.shape) if residual else None, activation


def norm_gradients_in_training():
    for x, mean, inverse_std, weight, bias in batch_norms():
        if x.size:
            for activation in ACTIVATIONS[1:]:
                yield real(*x.shape), x, mean, inverse_std, weight, bias, activation


def relu_pool_gradients():
    for x, *options in poolings():
        y, taps = reference.relu_max_pool2d(x, *options)
        yield real(*y.shape), y, taps, x.shape, *options[:4]


def rows(*shapes):
    """A list of arrays, as many as have more than one table on a GPU."""
    return [real(*shape) for shape in shapes]


def several(count):
    """Arguments of a step of several parameters but for its numbers: four lists of arrays."""
    shapes = (SHAPES * count)[:count]
    return rows(*shapes), rows(*shapes), rows(*shapes), [positive(*shape) for shape in shapes]


ACTIVATIONS = (None, ("relu",), ("gelu", "none"), ("gelu", "tanh"))
A, B, C = (Slot(i) for i in range(3))
CHAINS = [
    ([real(3, 4), real(3, 4)], [("add", (A, B)), ("relu", (C,))]),
    ([real(3, 4), real(4), real(3, 1)], [("multiply", (A, B)), ("subtract", (2, Slot(3))), ("divide", (Slot(4), C))]),
    ([real(40, 300)], [("multiply", (A, A)), ("power", (Slot(1), 1.5)), ("gelu", (Slot(2), "tanh"))]),
    ([real(7), FINITE[:7]], [("relu_grad", (A, B)), ("negative", (C,)), ("gelu_grad", (Slot(3), B, "none"))]),
    (
        [real(2, 3, 4, 5), real(3), positive(3), real(3)],
        [("batch_norm", (A, B, C, Slot(3), None)), ("exp", (Slot(4),))],
    ),
    ([positive(), positive()], [("sqrt", (A,)), ("log", (B,)), ("sqrt_grad", (C, Slot(3)))]),
    ([real(0, 3)], [("leaky_relu", (A, 0.2)), ("sigmoid", (Slot(1),)), ("tanh", (Slot(2),)), ("elu", (Slot(3), 1.3))]),
]
CASES = {  # as in kernel_cases.py
    "adam_steps": [
        (*several(count), [1 + i % 3 for i in range(count)], 0.01, 0.9, 0.99, 1e-8, 0.1, decoupled)
        for count, decoupled in ((1, True), (60, False))
    ],
    "batch_norm_train": list(norms_in_training()),
    "batch_norm_train_grad": list(norm_gradients_in_training()),
    "clip_norms": [(rows(*SHAPES), np.asarray(norm), 0.5) for norm in (2.0, 0.3, np.inf)],
    "conv2d_grad_input_relu": [(gy, w, x.shape, *options, x) for x, w, _, gy, options in CONV],
    "conv2d_relu": [(x, w, bias, *options) for x, w, b, _, options in CONV for bias in (b, None)],
    "lerps_into": [(*several(count)[:2], 0.1) for count in (1, 100)],
    "linear_grad_input_relu": [(real(n, o), real(o, i), real(n, i)) for n, i, o in LINEARS],
    "linear_relu": [(real(n, i), real(o, i), bias) for n, i, o in LINEARS for bias in (None, real(o))],
    "mean_of": [(x, 7) for x in (real(3, 4), real(), real(700), real(130, 150))],
    "pointwise": CHAINS,
    "relu_max_pool2d": list(poolings()),
    "relu_max_pool2d_grad": list(relu_pool_gradients()),
    "sgd_steps": [
        (*several(60)[:3], [i % 2 == 0 for i in range(60)], 0.1, 0.9, 0.0, 0.01, True),
        (*several(6)[:2], [None] * 6, [False] * 6, 0.1, 0.0, 0.0, 0.01, False),
    ],
}
