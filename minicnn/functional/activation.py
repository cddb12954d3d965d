"""Activation functions, elementwise but for the softmaxes: any shape -> the same shape."""

from minicnn.functional.arguments import check_float
from minicnn.tensor import Tensor, kernels_of


def relu(input: Tensor) -> Tensor:
    """max(x, 0). NaN stays NaN."""
    check_float("relu", input=input)
    k = kernels_of(input)
    y = k.relu(input.data)
    return Tensor.from_op(y, (input,), (lambda gy: k.relu_grad(gy, y),))


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, ``negative_slope`` x elsewhere."""
    check_float("leaky_relu", input=input)
    k = kernels_of(input)
    x, slope = input.data, float(negative_slope)
    return Tensor.from_op(k.leaky_relu(x, slope), (input,), (lambda gy: k.leaky_relu_grad(gy, x, slope),))


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, ``alpha`` (e^x - 1) elsewhere (Clevert et al., 2016)."""
    check_float("elu", input=input)
    k = kernels_of(input)
    x, scale = input.data, float(alpha)
    return Tensor.from_op(k.elu(x, scale), (input,), (lambda gy: k.elu_grad(gy, x, scale),))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x) with the normal distribution function Phi (Hendrycks and Gimpel, 2016).

    Args:
        approximate: "none", or "tanh" for x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.

    Raises:
        ValueError: another ``approximate``.
    """
    check_float("gelu", input=input)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: expected approximate 'none' or 'tanh', received {approximate!r}")
    k = kernels_of(input)
    x = input.data
    return Tensor.from_op(k.gelu(x, approximate), (input,), (lambda gy: k.gelu_grad(gy, x, approximate),))


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    check_float("sigmoid", input=input)
    k = kernels_of(input)
    y = k.sigmoid(input.data)
    return Tensor.from_op(y, (input,), (lambda gy: k.sigmoid_grad(gy, y),))


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    check_float("tanh", input=input)
    k = kernels_of(input)
    y = k.tanh(input.data)
    return Tensor.from_op(y, (input,), (lambda gy: k.tanh_grad(gy, y),))


def softmax(input: Tensor, dim: int) -> Tensor:
    """e^x / sum e^x along ``dim``; finite for any finite input."""
    axis = _axis("softmax", input, dim)
    k = kernels_of(input)
    y = k.softmax(input.data, axis)
    return Tensor.from_op(y, (input,), (lambda gy: k.softmax_grad(gy, y, axis),))


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """x - log sum e^x along ``dim``; finite for any finite input."""
    axis = _axis("log_softmax", input, dim)
    k = kernels_of(input)
    y = k.log_softmax(input.data, axis)
    return Tensor.from_op(y, (input,), (lambda gy: k.log_softmax_grad(gy, y, axis),))


def _axis(operation: str, x: Tensor, dim: int) -> int:
    check_float(operation, input=x)
    if not -x.ndim <= dim < x.ndim or x.shape[dim] == 0:
        raise ValueError(f"{operation}: expected dim as a non-empty axis of shape {x.shape}, received {dim}")
    return dim % x.ndim
