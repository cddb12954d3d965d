"""Attention of the vectors of a sequence to each other, in several heads side by side."""

import math

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import kernel
from minicnn.backend.reference.activation import softmax, softmax_grad
from minicnn.backend.reference.arithmetic import matmul


def _shapes(qkv, heads):
    batch, length, width = qkv.shape
    return [(batch, length, width // 3), (batch, heads, length, length)]


def _products(number):
    """FLOP of ``number`` products in each head, of matrices (L, L) and (L, E / H)."""
    return lambda arguments, outputs: 2 * number * math.prod(arguments[0].shape) // 3 * arguments[0].shape[1]


@kernel(_shapes, flop=_products(2))
def attention(qkv, heads):
    """softmax(q k^T / sqrt(E / H)) v for each of H heads (Vaswani et al., 2017).

    qkv: (N, L, 3 E), queries, keys and values one after the other, each with its heads one after the other ->
    (N, L, E), and the weights of the softmax, (N, H, L, L).
    """
    return attend(qkv, heads, matmul, softmax)


@kernel(lambda qkv, *_: qkv.shape, flop=_products(4))
def attention_grad(qkv, gy, weights):
    """Gradient for qkv, from that of the result, (N, L, E), and the weights of the softmax."""
    return attend_grad(qkv, gy, weights, matmul, softmax_grad)


def attend(qkv, heads, matmul, softmax):
    """Attention by these functions of a backend."""
    q, k, v = _split(qkv, 3, heads)
    weights = softmax(matmul(q * qkv.dtype.type(1 / math.sqrt(q.shape[-1])), _turned(k)), -1)
    return _joined([matmul(weights, v)]), weights


def attend_grad(qkv, gy, weights, matmul, softmax_grad):
    """Its gradient by these."""
    heads = weights.shape[1]
    (q, k, v), (g,) = _split(qkv, 3, heads), _split(gy, 1, heads)
    scores = softmax_grad(matmul(g, _turned(v)), weights, -1) * qkv.dtype.type(1 / math.sqrt(q.shape[-1]))
    return _joined([matmul(scores, k), matmul(_turned(scores), q), matmul(_turned(weights), g)])


def _split(x, parts, heads):
    """(N, L, parts E) -> parts of (N, H, L, E / H)."""
    width = x.shape[2] // (parts * heads)
    return x.reshape(*x.shape[:2], parts, heads, width).transpose(2, 0, 3, 1, 4)


def _joined(parts):
    """The way back."""
    batch, heads, length, width = parts[0].shape
    rows = [part.transpose(0, 2, 1, 3).reshape(batch, length, heads * width) for part in parts]
    return rows[0] if len(rows) == 1 else namespace(rows[0]).concatenate(rows, axis=2)


def _turned(matrices):
    return matrices.transpose(0, 1, 3, 2)
