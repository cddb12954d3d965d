"""The fully connected layer."""

from minicnn.backend.reference.reductions import sum


def linear(x, weight, bias):
    """x weight^T + bias. x: (N, I); weight: (O, I); bias: (O,) or None -> (N, O)."""
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


def linear_grad_input(gy, weight):
    """Gradient for x: gy weight. gy: (N, O) -> (N, I)."""
    return gy @ weight


def linear_grad_weight(gy, x):
    """Gradient for weight: gy^T x. -> (O, I)."""
    return gy.T @ x


def linear_grad_bias(gy):
    """Gradient for bias: gy summed over the rows -> (O,)."""
    return sum(gy, (0,), False)
