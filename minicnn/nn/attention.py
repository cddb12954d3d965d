"""The attention layer."""

import minicnn.functional as F
from minicnn.functional.arguments import check_count, check_fraction
from minicnn.functional.attention import attention_weights, packed_attention
from minicnn.nn import init
from minicnn.nn.layer import Layer
from minicnn.nn.linear import Linear
from minicnn.nn.module import Parameter
from minicnn.tensor import Tensor


class MultiheadAttention(Layer):
    """``num_heads`` attentions side by side, each on its share of the channels (Vaswani et al., 2017).

    With the three parts of in_proj: q, k, v = query Wq^T + bq, key Wk^T + bk, value Wv^T + bv, and on each head's
    ``embed_dim / num_heads`` columns of them softmax(q k^T / sqrt(columns)) v; ``out_proj`` mixes the heads.

    Args:
        embed_dim: channels of inputs and output.
        num_heads: a divisor of ``embed_dim``.
        dropout: probability with which a weight of the softmax is dropped in training.
        bias: whether the projections add one.
        batch_first: whether inputs and output are (N, L, embed_dim) instead of (L, N, embed_dim).

    Attributes:
        in_proj_weight: (3 embed_dim, embed_dim), starts Xavier uniform.
        in_proj_bias: (3 embed_dim,), starts as zeros; or None.
        out_proj: a Linear, whose bias starts as zeros.

    Example:
        >>> x = Tensor(np.zeros((2, 5, 8), "float32"))
        >>> output, weights = nn.MultiheadAttention(8, num_heads=2, batch_first=True)(x, x, x)
        >>> output.shape, weights.shape
        ((2, 5, 8), (2, 5, 5))
    """

    in_proj_bias: Parameter | None

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, batch_first: bool = False
    ) -> None:
        super().__init__()
        check_count("MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads)
        if embed_dim % num_heads:
            raise ValueError(
                "MultiheadAttention: expected embed_dim as a multiple of num_heads, "
                f"received {embed_dim} and {num_heads}"
            )
        check_fraction("MultiheadAttention", "dropout", dropout)
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.in_proj_weight = init.xavier_uniform_(self._empty(3 * embed_dim, embed_dim))
        self.register_parameter("in_proj_bias", init.zeros_(self._empty(3 * embed_dim)) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: None = None,
        need_weights: bool = True,
        attn_mask: None = None,
        average_attn_weights: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output in the layout of ``query``, and the weights of the softmax or None.

        Args:
            query: (L, N, embed_dim), or with ``batch_first`` (N, L, embed_dim).
            key, value: (S, N, embed_dim), or (N, S, embed_dim).
            key_padding_mask, attn_mask: only None.
            need_weights: return the weights too, after dropout.
            average_attn_weights: return their mean over the heads, (N, L, S), instead of (N, num_heads, L, S).

        Raises:
            ValueError: a mask, or shapes that do not fit.
        """
        if key_padding_mask is not None or attn_mask is not None:
            raise ValueError("MultiheadAttention: expected no mask, received one")
        dropout_p = self.dropout if self.training else 0.0
        if query is key is value and self.batch_first and query.ndim == 3 and not (need_weights or dropout_p):
            qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            return self.out_proj(packed_attention(qkv, self.num_heads)), None
        q, k, v = (self._heads(x, part) for part, x in enumerate((query, key, value)))
        weights = attention_weights(q, k, v, dropout_p)  # (N, num_heads, L, S)
        order = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        output = self.out_proj(F.flatten((weights @ v).permute(order), 2))
        if not need_weights:
            return output, None
        return output, weights.mean(1) if average_attn_weights else weights

    def _heads(self, x: Tensor, part: int) -> Tensor:
        """Project by one part of in_proj: (L, N, embed_dim) or (N, L, embed_dim) -> (N, num_heads, L, columns)."""
        if x.ndim != 3:
            axes = "(N, L, " if self.batch_first else "(L, N, "
            raise ValueError(f"MultiheadAttention: expected {axes}{self.embed_dim}), received shape {x.shape}")
        rows = slice(part * self.embed_dim, (part + 1) * self.embed_dim)
        x = F.linear(x, self.in_proj_weight[rows], None if self.in_proj_bias is None else self.in_proj_bias[rows])
        order = (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3)
        return x.reshape(*x.shape[:2], self.num_heads, self.embed_dim // self.num_heads).permute(order)
