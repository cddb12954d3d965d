"""Attention: every position looks at all others and takes a mean of what it finds there."""

import math

from minicnn.functional.activation import softmax
from minicnn.functional.arguments import check_float
from minicnn.functional.normalization import dropout
from minicnn.tensor import Tensor


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float = 0.0, scale: float | None = None
) -> Tensor:
    """softmax(scale query key^T) value (Vaswani et al., 2017).

    Args:
        query: (..., L, E), L positions that look.
        key: (..., S, E), by what each of S positions is found.
        value: (..., S, V), what is found there.
        dropout_p: probability with which a weight of the softmax is dropped, here also outside training.
        scale: 1 / sqrt(E) if None.

    Returns:
        (..., L, V).

    Raises:
        ValueError: shapes that do not fit.
        TypeError: dtypes or backends that differ.
    """
    return attention_weights(query, key, value, dropout_p, scale) @ value  # (..., L, V)


def attention_weights(
    query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0, scale: float | None = None
) -> Tensor:
    """The matrix, (..., L, S), by which :func:`scaled_dot_product_attention` multiplies ``value``; after dropout."""
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
