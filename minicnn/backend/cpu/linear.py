"""Gradients of the fully connected layer, on two threads; its forward would first have to copy weight^T."""

from minicnn.backend.cpu.matmul import matmul


def linear_grad_input(gy, weight):
    """See :func:`minicnn.backend.reference.linear_grad_input`."""
    return matmul(gy, weight)


def linear_grad_weight(gy, x):
    """See :func:`minicnn.backend.reference.linear_grad_weight`."""
    return matmul(gy.T, x)
