"""Activation functions, elementwise but for the softmaxes: any shape -> the same shape."""

from minicnn.functional.arguments import check_float, check_option
from minicnn.tensor import Tensor, kernels_of


def relu(input: Tensor) -> Tensor:
    """max(x, 0). NaN stays NaN.

    Example:
        >>> F.relu(tensor([-1.0, 2.0]))
        tensor([0., 2.], dtype=float32)
    """
    check_float("relu", input=input)
    k = kernels_of(input)
    y = k.relu(input._operand)
    return Tensor.from_op(y, (input,), (lambda gy: k.relu_grad(gy, y),))


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, ``negative_slope`` x elsewhere.

    Example:
        >>> F.leaky_relu(tensor([-2.0, 2.0]), 0.25)
        tensor([-0.5,  2. ], dtype=float32)
    """
    check_float("leaky_relu", input=input)
    k = kernels_of(input)
    x, slope = input._operand, float(negative_slope)
    return Tensor.from_op(k.leaky_relu(x, slope), (input,), (lambda gy: k.leaky_relu_grad(gy, x, slope),))


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, ``alpha`` (e^x - 1) elsewhere (Clevert et al., 2016).

    Example:
        >>> F.elu(tensor([-np.inf, 2.0]), alpha=0.5)
        tensor([-0.5,  2. ], dtype=float32)
    """
    check_float("elu", input=input)
    k = kernels_of(input)
    x, scale = input._operand, float(alpha)
    return Tensor.from_op(k.elu(x, scale), (input,), (lambda gy: k.elu_grad(gy, x, scale),))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x) with the normal distribution function Phi (Hendrycks and Gimpel, 2016).

    Args:
        input: any shape.
        approximate: "none", or "tanh" for x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.

    Example:
        >>> F.gelu(tensor([0.0, 100.0]))
        tensor([  0., 100.], dtype=float32)
    """
    check_float("gelu", input=input)
    check_option("gelu", "approximate", approximate, "none", "tanh")
    k = kernels_of(input)
    x = input._operand
    return Tensor.from_op(k.gelu(x, approximate), (input,), (lambda gy: k.gelu_grad(gy, x, approximate),))


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-x).

    Example:
        >>> F.sigmoid(tensor([0.0, np.inf]))
        tensor([0.5, 1. ], dtype=float32)
    """
    check_float("sigmoid", input=input)
    k = kernels_of(input)
    y = k.sigmoid(input._operand)
    return Tensor.from_op(y, (input,), (lambda gy: k.sigmoid_grad(gy, y),))


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent.

    Example:
        >>> F.tanh(tensor([0.0, np.inf]))
        tensor([0., 1.], dtype=float32)
    """
    check_float("tanh", input=input)
    k = kernels_of(input)
    y = k.tanh(input._operand)
    return Tensor.from_op(y, (input,), (lambda gy: k.tanh_grad(gy, y),))


def softmax(input: Tensor, dim: int) -> Tensor:
    """e^x / sum e^x along ``dim``; finite for any finite input.

    Example:
        >>> F.softmax(tensor([[5.0, 5.0], [0.0, 1e4]]), dim=1)
        tensor([[0.5, 0.5],
                [0. , 1. ]], dtype=float32)
    """
    axis = _axis("softmax", input, dim)
    k = kernels_of(input)
    y = k.softmax(input._operand, axis)
    return Tensor.from_op(y, (input,), (lambda gy: k.softmax_grad(gy, y, axis),))


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """x - log sum e^x along ``dim``; finite for any finite input.

    Example:
        >>> F.log_softmax(tensor([1e4, 0.0]), dim=0)
        tensor([     0., -10000.], dtype=float32)
    """
    axis = _axis("log_softmax", input, dim)
    k = kernels_of(input)
    y = k.log_softmax(input._operand, axis)
    return Tensor.from_op(y, (input,), (lambda gy: k.log_softmax_grad(gy, y, axis),))


def _axis(operation: str, x: Tensor, dim: int) -> int:
    check_float(operation, input=x)
    if not -x.ndim <= dim < x.ndim or x.shape[dim] == 0:
        raise ValueError(f"{operation}: expected dim as a non-empty axis of shape {x.shape}, received {dim}")
    return dim % x.ndim
