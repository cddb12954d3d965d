"""The fully connected layer, and the flattening before it."""

import math
from typing import Any

from minicnn.functional.arguments import check_float, check_shape
from minicnn.precision import rounding
from minicnn.tensor import Tensor, kernels_of


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias. input: (..., I); weight: (O, I); bias: (O,) -> (..., O).

    Example:
        >>> F.linear(tensor([1.0, 2.0]), tensor([[1.0, 10.0], [3.0, 4.0]]), tensor([0.0, 100.0]))
        tensor([ 21., 111.], dtype=float32)
    """
    check_float("linear", input=input, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ValueError(f"linear: expected a weight (outputs, inputs), received shape {weight.shape}")
    outputs, inputs = weight.shape
    if input.ndim < 1 or input.shape[-1] != inputs:
        raise ValueError(f"linear: expected an input (..., {inputs}), received shape {input.shape}")
    check_shape("linear", (outputs,), bias=bias)

    k = kernels_of(input)
    rounded = rounding(k)
    shape, w = input.shape, rounded(weight._operand)
    x = rounded(k.reshape(input._operand, (math.prod(shape[:-1]), inputs)))  # (M, I)
    y = k.linear(x, w, None if bias is None else bias._operand)  # (M, O)

    def rows(gy: Any) -> Any:
        return k.reshape(gy, (x.shape[0], outputs))

    vjps = [
        lambda gy: k.reshape(k.linear_grad_input(rounded(rows(gy)), w), shape),
        lambda gy: k.linear_grad_weight(rounded(rows(gy)), x),
        lambda gy: k.linear_grad_bias(rows(gy)),
    ]
    return Tensor.from_op(k.reshape(y, (*shape[:-1], outputs)), (input, weight, bias), vjps)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the axes from ``start_dim`` to ``end_dim`` into one.

    Example:
        >>> F.flatten(Tensor(np.zeros((2, 3, 4, 5))), start_dim=1).shape
        (2, 60)
    """
    return input.flatten(start_dim, end_dim)
