"""The fully connected layer, and the step into it."""

import math

from minicnn.functional.arguments import check_float, check_shape
from minicnn.tensor import Tensor, kernels_of


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias. input: (..., I); weight: (O, I); bias: (O,) -> (..., O).

    Raises:
        ValueError: shapes that do not fit.
        TypeError: dtypes or backends that differ.
    """
    check_float("linear", input=input, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ValueError(f"linear: expected a weight (outputs, inputs), received shape {weight.shape}")
    outputs, inputs = weight.shape
    if input.ndim < 1 or input.shape[-1] != inputs:
        raise ValueError(f"linear: expected an input (..., {inputs}), received shape {input.shape}")
    check_shape("linear", "bias", bias, (outputs,))

    k = kernels_of(input)
    shape, w = input.shape, weight.data
    x = k.reshape(input.data, (math.prod(shape[:-1]), inputs))  # (M, I)
    y = k.linear(x, w, None if bias is None else bias.data)  # (M, O)

    def rows(gy):
        return k.reshape(gy, (x.shape[0], outputs))

    vjps = [
        lambda gy: k.reshape(k.linear_grad_input(rows(gy), w), shape),
        lambda gy: k.linear_grad_weight(rows(gy), x),
        lambda gy: k.linear_grad_bias(rows(gy)),
    ]
    operands = (input, weight) if bias is None else (input, weight, bias)
    return Tensor.from_op(k.reshape(y, (*shape[:-1], outputs)), operands, vjps[: len(operands)])


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the axes from ``start_dim`` to ``end_dim`` into one."""
    return input.flatten(start_dim, end_dim)
