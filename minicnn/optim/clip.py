"""Gradient clipping."""

import math
from collections.abc import Iterable

from minicnn.tensor import Tensor


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients in place so that their joint 2-norm is at most ``max_norm``; return the norm before.

    A norm that is not finite scales nothing: the caller sees it in the returned value.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: expected max_norm above 0, received {max_norm}")
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(g.backend.kernels.squared_norm(g.data) for g in gradients))
    if math.isfinite(norm) and norm > max_norm:
        for g in gradients:
            g.backend.kernels.scale_into(g.data, max_norm / (norm + 1e-6))
    return norm


def clip_grad_value_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Clip every element of every gradient to [-clip_value, clip_value], in place."""
    if not clip_value > 0:
        raise ValueError(f"clip_grad_value_: expected clip_value above 0, received {clip_value}")
    for p in parameters:
        if p.grad is not None:
            p.grad.backend.kernels.clip_values(p.grad.data, clip_value)
