"""Functions that clip gradients."""

from collections.abc import Iterable

from minicnn.tensor import Tensor, kernels_of


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients in place so that their joint 2-norm is at most ``max_norm``; return the norm before.

    A norm that is not finite scales nothing: the caller decides what to do.

    Args:
        parameters: tensors, or a single one.
        max_norm: above 0.

    Returns:
        A tensor without axes, float64 where there are gradients.

    Example:
        >>> w = tensor([0.0, 0.0], requires_grad=True)
        >>> w.grad = tensor([3.0, 4.0])
        >>> optim.clip_grad_norm_([w], max_norm=2.5), w.grad
        (tensor(5., dtype=float64), tensor([1.5, 2. ], dtype=float32))
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: expected max_norm above 0, received {max_norm}")
    gradients = _gradients("clip_grad_norm_", parameters)
    if not gradients:
        return Tensor(0.0)
    k = kernels_of(gradients[0])
    norm = Tensor(k.total_norm([g._operand for g in gradients]))
    for g in gradients:
        g._edit(k.clip_norm, norm._operand, max_norm)
    return norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every element of every gradient of ``parameters`` (or of a single one) to +-``clip_value``, in place.

    Example:
        >>> w = tensor([0.0, 0.0], requires_grad=True)
        >>> w.grad = tensor([3.0, -0.5])
        >>> optim.clip_grad_value_(w, 1.0)
        >>> w.grad
        tensor([ 1. , -0.5], dtype=float32)
    """
    if not clip_value > 0:
        raise ValueError(f"clip_grad_value_: expected clip_value above 0, received {clip_value}")
    for g in _gradients("clip_grad_value_", parameters):
        g._edit(g.backend.kernels.clip_values, clip_value)


def _gradients(operation: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Return the gradients that are not None; TypeError for parameters that are no tensors."""
    if not isinstance(parameters, Tensor | Iterable):
        raise TypeError(f"{operation}: expected parameters, received {type(parameters).__name__}; pass .parameters()")
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{operation}: expected tensors, received {type(tensor).__name__}; pass .parameters()")
    return [tensor.grad for tensor in tensors if tensor.grad is not None]
