"""The fully connected layer."""

from minicnn.backend.kernel import kernel, multiply_adds
from minicnn.backend.reference.reductions import sum


@kernel(
    lambda x, weight, bias: (*x.shape[:-1], weight.shape[0]),
    flop=lambda arguments, outputs: multiply_adds(outputs[0], arguments[1]),
)
def linear(x, weight, bias):
    """x weight^T + bias. x: (N, I); weight: (O, I); bias: (O,) or None -> (N, O)."""
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


@kernel(
    lambda gy, weight: (*gy.shape[:-1], weight.shape[1]),
    flop=lambda arguments, _: multiply_adds(arguments[0], arguments[1]),
)
def linear_grad_input(gy, weight):
    """Gradient for x: gy weight. gy: (N, O) -> (N, I)."""
    return gy @ weight


@kernel(
    lambda gy, x: (gy.shape[-1], x.shape[-1]),
    flop=lambda arguments, outputs: multiply_adds(arguments[0], outputs[0]),
)
def linear_grad_weight(gy, x):
    """Gradient for weight: gy^T x. -> (O, I)."""
    return gy.T @ x


@kernel(lambda gy: gy.shape[1:])
def linear_grad_bias(gy):
    """Gradient for bias: gy summed over the rows -> (O,)."""
    return sum(gy, (0,), False)
