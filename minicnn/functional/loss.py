"""Losses of predictions and targets."""

from typing import Any

from minicnn import backend
from minicnn.functional.arguments import check_float, check_fraction, check_option, check_shape
from minicnn.recording import check_on_replay
from minicnn.tensor import Tensor, kernels_of


def cross_entropy(
    input: Tensor,
    target: Tensor | Any,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy of softmax(input) with integer labels, or with the probabilities t of all classes.

    loss_n = -sum_k weight_k ((1 - s) t_nk + s / K) log softmax(input_n)_k, s = ``label_smoothing``
    (Szegedy et al., 2016); t_nk = [k = target_n] for labels. Loss and gradient are finite for any finite logits. A
    logit of -infinity masks a class: with 0 log 0 = 0 the loss is infinite only where the target or the smoothing gives
    that class a share; the gradient stays finite.

    Args:
        input: logits (N, K), N from 1.
        target: tensor or array of integer labels (N,) in [0, K), or of t (N, K) in the dtype of the logits, not
            normalised. It receives no gradient.
        weight: (K,), one factor a class.
        reduction: "mean" (over the images; with labels divided by the sum of the targets' weights), "sum", or
            "none" -> (N,).
        label_smoothing: in [0, 1].
        check_labels: whether to look for labels outside [0, K), for which Python waits for a GPU; without, where they
            are known to be inside, others give any loss.

    Raises:
        ValueError: a label outside [0, K).
        TypeError: labels that are not integers.

    Example:
        >>> logits = tensor([[1000.0, 0.0], [1000.0, 0.0]])
        >>> F.cross_entropy(logits, tensor([0, 1]))
        tensor(500., dtype=float32)
    """
    check_float("cross_entropy", input=input, weight=weight)
    if input.ndim != 2 or 0 in input.shape:
        raise ValueError(f"cross_entropy: expected logits (N, K), received shape {input.shape}")
    check_option("cross_entropy", "reduction", reduction, "mean", "sum", "none")
    check_fraction("cross_entropy", "label_smoothing", label_smoothing)
    check_shape("cross_entropy", (input.shape[1],), weight=weight)
    k = kernels_of(input)
    labels = _labels(input, target, check_labels)

    class_weight = None if weight is None else k.copy(weight._operand)  # as the labels: may be edited before backward
    losses, probabilities = k.cross_entropy(input._operand, labels, class_weight, label_smoothing)
    loss = Tensor.from_op(
        losses,
        (input,),
        (lambda gy: k.cross_entropy_grad(gy, probabilities, labels, class_weight, label_smoothing),),
    )
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if class_weight is None or labels.ndim == 2:
        return loss.mean()
    return loss.sum() / Tensor.from_op(k.label_weights(class_weight, labels), (), ()).sum()


def _labels(logits: Tensor, target: Tensor | Any, check_range: bool) -> Any:
    """Return the checked labels as a new int64 array, or the checked probabilities as a new array."""
    count, classes = logits.shape
    labels = logits.backend.asarray((target if isinstance(target, Tensor) else Tensor(target))._operand)
    if labels.dtype.kind == "f" and labels.ndim == 2:
        probabilities = Tensor(labels)
        check_float("cross_entropy", input=logits, target=probabilities)
        check_shape("cross_entropy", logits.shape, target=probabilities)
        return kernels_of(logits).copy(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: expected integer labels, received {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"cross_entropy: expected labels of shape {(count,)}, received {labels.shape}")

    def check(labels: Any) -> None:
        lowest, highest = backend.of(labels).kernels.label_range(labels)
        if lowest < 0 or highest >= classes:
            raise ValueError(f"cross_entropy: expected labels from 0 to {classes - 1}, received {lowest} to {highest}")

    if check_range:
        check_on_replay(labels, check)
    k = kernels_of(logits)
    return k.copy(labels) if labels.dtype == "int64" else k.convert(labels, "int64")


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Mean of (input - target)^2, their sum ("sum"), or each ("none"); both tensors have one shape.

    Example:
        >>> F.mse_loss(tensor([1.0, 2.0]), tensor([1.0, 4.0]))
        tensor(2., dtype=float32)
    """
    check_float("mse_loss", input=input, target=target)
    check_shape("mse_loss", input.shape, target=target)
    check_option("mse_loss", "reduction", reduction, "mean", "sum", "none")
    squares = (input - target) ** 2
    return squares if reduction == "none" else squares.sum() if reduction == "sum" else squares.mean()
