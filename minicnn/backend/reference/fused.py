"""What several kernels do in one: nobody calls these eagerly, the plans of a GPU put them in the place of the others.

Each is specified by the kernels that it replaces, one after the other. ``activation`` is None or the name of a kernel
with what it takes beside its array: ("relu",), ("gelu", "tanh").
"""

from types import SimpleNamespace
from typing import Any

from minicnn.backend.kernel import Slot, facts, kernel, products, products_to_input
from minicnn.backend.reference import activation as activations
from minicnn.backend.reference import arithmetic, conv, linear, normalization, optimizer, pooling, reductions

_ELEMENTWISE = {
    **{name: getattr(arithmetic, name) for name in ("add", "subtract", "multiply", "divide", "negative", "exp", "log")},
    **{name: getattr(arithmetic, name) for name in ("sqrt", "sqrt_grad", "power")},
    **{name: getattr(activations, name) for name in ("relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh")},
    **{name: getattr(activations, name) for name in ("relu_grad", "leaky_relu_grad", "elu_grad", "gelu_grad")},
    **{name: getattr(activations, name) for name in ("sigmoid_grad", "tanh_grad")},
    "batch_norm": normalization.batch_norm,
}


def _pointwise_shape(arrays, steps):
    known = list(arrays)
    for name, operands in steps:
        declared: Any = facts(name)
        shape = declared.shape(*(known[o] if isinstance(o, Slot) else o for o in operands))
        known.append(SimpleNamespace(shape=shape))
    return known[-1].shape


@kernel(_pointwise_shape)
def pointwise(arrays, steps):
    """Elementwise kernels one after the other, of which the last one's result is returned.

    steps: (kernel, operands) each; an operand is a number, a name, None, or a :class:`~minicnn.backend.kernel.Slot`.
    """
    known = list(arrays)
    for name, operands in steps:
        known.append(_ELEMENTWISE[name](*(known[o] if isinstance(o, Slot) else o for o in operands)))
    return known[-1]


@kernel(lambda x, *_: [x.shape, x.shape[1:2], x.shape[1:2]], writes="running_mean running_var")
def batch_norm_train(x, running_mean, running_var, share, correction, weight, bias, eps, residual, activation):
    """Batch norm of a training step, with what comes behind it: activation(batch_norm(x) + residual).

    running_mean, running_var: (C,), moved by ``share`` towards mean and ``correction`` variance, or None; residual: as
    x or None -> y as x, mean and inverse_std (C,).
    """
    mean, variance = normalization.batch_norm_statistics(x)
    if running_mean is not None:
        arithmetic.lerp_into(running_mean, mean, share)
        arithmetic.lerp_into(running_var, variance * correction, share)
    inverse_std = (variance + eps) ** -0.5
    y = normalization.batch_norm(x, mean, inverse_std, weight, bias)
    y = y if residual is None else y + residual
    return y if activation is None else _ELEMENTWISE[activation[0]](y, *activation[1:]), mean, inverse_std


@kernel(lambda gy, x, *_: [x.shape, x.shape[1:2], x.shape[1:2]])
def batch_norm_train_grad(gy, x, mean, inverse_std, weight, bias, activation):
    """Gradients of activation(batch_norm(x)) for x, weight and bias, in training."""
    y = normalization.batch_norm(x, mean, inverse_std, weight, bias)
    gy = _ELEMENTWISE[f"{activation[0]}_grad"](gy, y, *activation[1:])
    return normalization.batch_norm_grad(gy, x, mean, inverse_std, weight, True)


@kernel(
    lambda x, kernel_size, stride, padding, dilation, output_size: [(*x.shape[:2], *output_size)] * 2,
    lambda x, *_: [x.dtype, "uint16"],
)
def relu_max_pool2d(x, kernel_size, stride, padding, dilation, output_size):
    """Max-pooling of relu(x), with the winners of x: where these differ, the gradient is 0."""
    y, taps = pooling.max_pool2d(x, kernel_size, stride, padding, dilation, output_size)
    return activations.relu(y), taps


@kernel(lambda gy, y, taps, shape, *_: shape)
def relu_max_pool2d_grad(gy, y, taps, shape, kernel_size, stride, padding, dilation):
    """Gradient of :func:`relu_max_pool2d`, from its results."""
    gy = activations.relu_grad(gy, y)
    return pooling.max_pool2d_grad(gy, taps, shape, kernel_size, stride, padding, dilation)


@kernel(facts("conv2d").shape, flop=products)
def conv2d_relu(x, weight, bias, stride, padding, dilation, groups):
    """relu of a convolution."""
    return activations.relu(conv.conv2d(x, weight, bias, stride, padding, dilation, groups))


@kernel(lambda gy, weight, shape, *_: shape, flop=products_to_input)
def conv2d_grad_input_relu(gy, weight, shape, stride, padding, dilation, groups, y):
    """Gradient of a convolution for its input y, the result of relu, on to the input of that."""
    return activations.relu_grad(conv.conv2d_grad_input(gy, weight, shape, stride, padding, dilation, groups), y)


@kernel(facts("linear").shape, flop=products)
def linear_relu(x, weight, bias):
    """relu of a fully connected layer."""
    return activations.relu(linear.linear(x, weight, bias))


@kernel(lambda gy, weight, y: y.shape, flop=products_to_input)
def linear_grad_input_relu(gy, weight, y):
    """Gradient of a fully connected layer for its input y, the result of relu, on to the input of that."""
    return activations.relu_grad(linear.linear_grad_input(gy, weight), y)


@kernel(lambda a, divisor: (), lambda a, divisor: a.dtype)
def mean_of(a, divisor):
    """The sum of all elements by a number -> ()."""
    return reductions.sum(a, tuple(range(a.ndim)), False) / divisor


@kernel(writes="parameters velocities", consumes="gradients")
def sgd_steps(parameters, gradients, velocities, firsts, lr, momentum, dampening, weight_decay, nesterov):
    """``sgd_step`` for each of several parameters; all velocities are arrays, or all None."""
    for each in zip(parameters, gradients, velocities, firsts, strict=True):
        optimizer.sgd_step(*each, lr, momentum, dampening, weight_decay, nesterov)


@kernel(writes="parameters means squares", consumes="gradients")
def adam_steps(parameters, gradients, means, squares, steps, lr, beta1, beta2, eps, weight_decay, decoupled):
    """``adam_step`` for each of several parameters."""
    for each in zip(parameters, gradients, means, squares, steps, strict=True):
        optimizer.adam_step(*each, lr, beta1, beta2, eps, weight_decay, decoupled)


@kernel(writes="arrays")
def clip_norms(arrays, norm, limit):
    """``clip_norm`` of each of several arrays."""
    for a in arrays:
        optimizer.clip_norm(a, norm, limit)


@kernel(writes="targets")
def lerps_into(targets, values, weight):
    """``lerp_into`` for each of several targets."""
    for target, value in zip(targets, values, strict=True):
        arithmetic.lerp_into(target, value, weight)
