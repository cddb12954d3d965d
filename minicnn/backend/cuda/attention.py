"""Attention by the matrix products and the softmax of this backend."""

from minicnn.backend.cuda.activation import softmax, softmax_grad
from minicnn.backend.cuda.product import matmul
from minicnn.backend.reference.attention import attend, attend_grad


def attention(qkv, heads):
    return attend(qkv, heads, matmul, softmax)


def attention_grad(qkv, gy, weights):
    return attend_grad(qkv, gy, weights, matmul, softmax_grad)
