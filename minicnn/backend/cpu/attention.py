"""Attention by the matrix products and the softmax of this backend."""

from minicnn.backend.cpu.activation import softmax, softmax_grad
from minicnn.backend.cpu.matmul import matmul
from minicnn.backend.reference.attention import attend, attend_grad


def attention(qkv, heads):
    """See :func:`minicnn.backend.reference.attention.attention`."""
    return attend(qkv, heads, matmul, softmax)


def attention_grad(qkv, gy, weights):
    """See :func:`minicnn.backend.reference.attention.attention_grad`."""
    return attend_grad(qkv, gy, weights, matmul, softmax_grad)
