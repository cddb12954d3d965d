"""Check gradients against finite differences."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minicnn.tensor import Tensor


def gradcheck(
    fn: Callable[..., Tensor], inputs: Sequence[Tensor], eps: float = 1e-4, rtol: float = 1e-6, seed: int = 0
) -> float:
    """Compare the gradients of ``fn`` with finite differences in float64, along random directions.

    For a random cotangent v and each input's random direction d, <v, (f(x + eps d) - f(x - eps d)) / (2 eps)>, refined
    by Richardson's extrapolation to an error of order eps^4, must equal <gradient, d>. A single wrong element shows,
    since every element takes part with a weight of its own.

    Args:
        fn: takes the inputs, returns one tensor; deterministic (reseed inside if it draws numbers).
        inputs: float64 tensors; those that require a gradient are checked.
        eps: step of the differences.
        rtol: largest error, relative to the largest of the two sides, their natural scale and the rounding of the
            differences.
        seed: of the directions.

    Returns:
        The largest relative error.

    Raises:
        ValueError: no input requires a gradient.
        TypeError: an input that is not float64.
        AssertionError: a gradient that is missing or differs, with both values.

    Example:
        >>> minicnn.gradcheck(F.elu, [tensor([-1.5, 2.0], "float64", requires_grad=True)]) < 1e-6
        True
    """
    inputs = list(inputs)
    if not any(t.requires_grad for t in inputs):
        raise ValueError("gradcheck: expected an input that requires a gradient, received none")
    for t in inputs:
        if t.requires_grad and t.dtype != np.float64:
            raise TypeError(f"gradcheck: expected float64 inputs, received {t.dtype}: its differences are too coarse")
    rng = np.random.default_rng([seed, 0x9E3779B9])  # not the stream that the caller may have drawn the inputs from
    leaves = [Tensor(t._operand.copy(), requires_grad=t.requires_grad) for t in inputs]
    output = fn(*leaves)
    cotangent = rng.standard_normal(output.shape)
    output.backward(Tensor(output.backend.asarray(cotangent)))
    rounding = 10 * np.finfo(np.float64).eps * np.linalg.norm(cotangent * output.numpy()) / eps  # of the differences

    worst = 0.0
    for index, leaf in enumerate(leaves):
        if not leaf.requires_grad:
            continue
        if leaf.grad is None:
            raise AssertionError(f"gradcheck: expected a gradient of input {index}, received none")
        direction = rng.standard_normal(leaf.shape)

        def slope(step: float, index: int = index, direction: np.ndarray[Any, Any] = direction) -> float:
            ends = []
            for sign in (1, -1):
                moved = [Tensor(t._operand) for t in inputs]
                shift = moved[index].backend.asarray(sign * step * direction)
                moved[index] = Tensor(inputs[index]._operand + shift)
                ends.append(fn(*moved).numpy())
            return float((cotangent * (ends[0] - ends[1])).sum()) / (2 * step)

        numeric = (4 * slope(eps / 2) - slope(eps)) / 3
        products = leaf.grad.numpy() * direction
        analytic = float(products.sum())
        scale = max(abs(numeric), abs(analytic), float(np.linalg.norm(products)), float(rounding / rtol), 1e-12)
        error = abs(numeric - analytic) / scale
        worst = max(worst, error)
        if not error <= rtol:
            raise AssertionError(
                f"gradcheck: input {index}: expected {numeric:.12g} along a random direction by finite differences, "
                f"received {analytic:.12g} from backward (relative error {error:.2g}, allowed {rtol:.2g})"
            )
    return worst
