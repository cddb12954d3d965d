"""The fully connected layer and its gradients on all threads."""

from minicnn.backend.cpu.matmul import matmul


def linear(x, weight, bias):
    """See :func:`minicnn.backend.reference.linear.linear`."""
    y = matmul(x, weight.T)
    if bias is not None:
        y += bias
    return y


def linear_grad_input(gy, weight):
    """See :func:`minicnn.backend.reference.linear.linear_grad_input`."""
    return matmul(gy, weight)


def linear_grad_weight(gy, x):
    """See :func:`minicnn.backend.reference.linear.linear_grad_weight`."""
    return matmul(gy.T, x)
