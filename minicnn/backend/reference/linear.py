"""The fully connected layer."""

from minicnn.backend.kernel import kernel, products, products_to_input, products_to_weight
from minicnn.backend.reference.reductions import sum


@kernel(lambda x, weight, bias: (*x.shape[:-1], weight.shape[0]), flop=products)
def linear(x, weight, bias):
    """x weight^T + bias. x: (N, I); weight: (O, I); bias: (O,) or None -> (N, O)."""
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


@kernel(lambda gy, weight: (*gy.shape[:-1], weight.shape[1]), flop=products_to_input)
def linear_grad_input(gy, weight):
    """Gradient for x: gy weight. gy: (N, O) -> (N, I)."""
    return gy @ weight


@kernel(lambda gy, x: (gy.shape[-1], x.shape[-1]), flop=products_to_weight)
def linear_grad_weight(gy, x):
    """Gradient for weight: gy^T x. -> (O, I)."""
    return gy.T @ x


@kernel(lambda gy: gy.shape[1:])
def linear_grad_bias(gy):
    """Gradient for bias: gy summed over the rows -> (O,)."""
    return sum(gy, (0,), False)
