"""Batch and layer normalisation, and dropout."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from minicnn import random
from minicnn.autograd import split_vjps
from minicnn.functional.arguments import check_float, check_fraction, check_shape
from minicnn.recording import per_replay
from minicnn.tensor import Tensor, kernels_of


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Callable[[], float] = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) weight + bias, per channel (Ioffe and Szegedy, 2015).

    In training, mean and (biased) var are those of the batch, and the running statistics move towards them:
    running += momentum (batch - running), with the unbiased variance. Otherwise they are the running statistics.

    Args:
        input: (N, C) or (N, C, ...).
        running_mean, running_var: (C,), which training edits in place; None to keep no statistics.
        weight, bias: (C,) or None.
        momentum: a number, or a function that returns it, called for every batch that moves the statistics.

    Raises:
        ValueError: one value a channel in training, or no statistics outside of it.

    Example:
        >>> F.batch_norm(tensor([[5.0], [1.0]]), tensor([1.0]), tensor([4.0]), eps=0)
        tensor([[2.],
                [0.]], dtype=float32)
    """
    check_float("batch_norm", input=input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if input.ndim < 2 or 0 in input.shape[1:]:
        raise ValueError(f"batch_norm: expected an input (N, C, ...) with channels, received shape {input.shape}")
    channels = input.shape[1]
    statistics = {"running_mean": running_mean, "running_var": running_var}
    check_shape("batch_norm", (channels,), **statistics, weight=weight, bias=bias)

    k = kernels_of(input)
    x = input._operand
    if training:
        values = input.numel() // channels
        if values < 2:
            remedy = "; take another batch size, that leaves no image alone in the last batch" * (len(input) == 1)
            raise ValueError(
                f"batch_norm: expected more than one value a channel in training, received shape {input.shape}{remedy}"
            )
        mean, var = k.batch_norm_statistics(x)
        if running_mean is not None and running_var is not None:
            share = momentum() if callable(momentum) else float(momentum)
            running_mean._edit(k.lerp_into, mean, share)
            running_var._edit(k.lerp_into, k.multiply(var, values / (values - 1)), share)
    elif running_mean is None or running_var is None:
        raise ValueError("batch_norm: expected running statistics outside training, received None")
    else:  # copies: a training pass before backward moves the buffers
        mean, var = k.copy(running_mean._operand), running_var._operand
    inverse_std = k.power(k.add(var, float(eps)), -0.5)
    w = None if weight is None else weight._operand
    y = k.batch_norm(x, mean, inverse_std, w, None if bias is None else bias._operand)

    def batch_norm_vjp(gy: Any) -> Any:
        return k.batch_norm_grad(gy, x, mean, inverse_std, w, training)

    return Tensor.from_op(y, (input, weight, bias), split_vjps(batch_norm_vjp, 3))


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) weight + bias over the last axes (Ba et al., 2016).

    Args:
        input: (..., *normalized_shape).
        normalized_shape: of the last axes; an int is that of one axis.
        weight, bias: of ``normalized_shape``, or None.

    Example:
        >>> F.layer_norm(tensor([[1.0, 3.0], [-5.0, 5.0]]), 2, eps=0)
        tensor([[-1.,  1.],
                [-1.,  1.]], dtype=float32)
    """
    check_float("layer_norm", input=input, weight=weight, bias=bias)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape or math.prod(shape) == 0:
        raise ValueError(f"layer_norm: expected an input that ends in {shape}, received shape {input.shape}")
    check_shape("layer_norm", shape, weight=weight, bias=bias)

    k = kernels_of(input)
    x, dims = input._operand, len(shape)
    w = None if weight is None else weight._operand
    y, mean, inverse_std = k.layer_norm(x, dims, w, None if bias is None else bias._operand, float(eps))

    def layer_norm_vjp(gy: Any) -> Any:
        return k.layer_norm_grad(gy, x, dims, mean, inverse_std, w)

    return Tensor.from_op(y, (input, weight, bias), split_vjps(layer_norm_vjp, 3))


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """In training, zero each element with probability ``p`` and divide the others by 1 - p (Srivastava et al., 2014).

    The mask comes from the generator that :func:`minicnn.manual_seed` seeds, and is the same on every backend.

    Example:
        >>> y = F.dropout(tensor([1.0] * 100), p=0.5)
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]
    """
    check_float("dropout", input=input)
    check_fraction("dropout", "p", p)
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0
    k = kernels_of(input)
    key, rate = per_replay(lambda: random.generator().key()), float(p)
    return Tensor.from_op(k.dropout(input._operand, key, rate), (input,), (lambda gy: k.dropout(gy, key, rate),))
