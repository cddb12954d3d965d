"""Gradient clipping."""

from collections.abc import Iterable

from minicnn.tensor import Tensor, kernels_of


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients in place so that their joint 2-norm is at most ``max_norm``; return the norm before.

    The norm is a tensor without axes, float64 where there are gradients. One that is not finite scales nothing: the
    caller sees it there.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: expected max_norm above 0, received {max_norm}")
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return Tensor(0.0)
    k = kernels_of(gradients[0])
    norm = Tensor(k.total_norm([g.data for g in gradients]))
    for g in gradients:
        k.clip_norm(g.data, norm.data, max_norm)
    return norm


def clip_grad_value_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Clip every element of every gradient to [-clip_value, clip_value], in place."""
    if not clip_value > 0:
        raise ValueError(f"clip_grad_value_: expected clip_value above 0, received {clip_value}")
    for p in parameters:
        if p.grad is not None:
            p.grad.backend.kernels.clip_values(p.grad.data, clip_value)
