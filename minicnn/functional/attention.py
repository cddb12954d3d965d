"""Attention: every query takes a mean of all values, weighted by how well their keys match it."""

import math
from typing import Any

from minicnn.functional.activation import softmax
from minicnn.functional.arguments import check_float
from minicnn.functional.normalization import dropout
from minicnn.tensor import Tensor, kernels_of


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float = 0.0, scale: float | None = None
) -> Tensor:
    """softmax(scale query key^T) value (Vaswani et al., 2017).

    Args:
        query: (..., L, E), L queries.
        key: (..., S, E), S keys.
        value: (..., S, V), the value of each key.
        dropout_p: probability with which a weight of the softmax is dropped, whether in training or not.
        scale: 1 / sqrt(E) if None.

    Returns:
        (..., L, V).

    Example:
        >>> key, value = tensor([[1.0], [1.0]]), tensor([[2.0], [4.0]])
        >>> F.scaled_dot_product_attention(tensor([[5.0]]), key, value)
        tensor([[3.]], dtype=float32)
    """
    return attention_weights(query, key, value, dropout_p, scale) @ value  # (..., L, V)


def attention_weights(
    query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0, scale: float | None = None
) -> Tensor:
    """Return the weights (..., L, S), after dropout, that :func:`scaled_dot_product_attention` gives to the values."""
    check_float("scaled_dot_product_attention", query=query, key=key, value=value)
    fits = (
        min(query.ndim, key.ndim, value.ndim) > 1
        and query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
        and query.shape[-1] == key.shape[-1]
        and key.shape[-2] == value.shape[-2]
    )
    if not fits:
        raise ValueError(
            "scaled_dot_product_attention: expected query (..., L, E), key (..., S, E) and value (..., S, V), "
            f"received shapes {query.shape}, {key.shape} and {value.shape}"
        )
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)  # (..., L, S)
    return dropout(softmax(scores, -1), dropout_p)


def packed_attention(qkv: Tensor, heads: int) -> Tensor:
    """Return the attention of a sequence to itself as one kernel, whose heads a compiled plan runs in its blocks.

    qkv: (N, L, 3 E), queries, keys and values one after the other, each with its ``heads`` one after the other ->
    (N, L, E): for each head :func:`scaled_dot_product_attention` of its columns.

    Raises:
        ValueError: another shape, or columns that the heads cannot share.
    """
    check_float("packed_attention", qkv=qkv)
    if qkv.ndim != 3 or qkv.shape[2] % (3 * heads):
        expected = f"(N, L, {3 * heads} times the columns of a head)"
        raise ValueError(f"packed_attention: expected {expected}, received shape {qkv.shape}")
    k = kernels_of(qkv)
    x = qkv._operand
    y, weights = k.attention(x, heads)

    def attention_vjp(gy: Any) -> Any:
        return k.attention_grad(x, gy, weights)

    return Tensor.from_op(y, (qkv,), [attention_vjp])
