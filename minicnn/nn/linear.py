"""The fully connected layer, and layers that only move elements."""

import minicnn.functional as F
from minicnn.functional.arguments import check_count
from minicnn.nn.layer import Layer
from minicnn.nn.module import Parameter
from minicnn.tensor import Tensor


class Linear(Layer):
    """x weight^T + bias, (..., in_features) -> (..., out_features).

    Attributes:
        weight: (out_features, in_features); starts uniform in +-1 / sqrt(in_features), as does bias.
        bias: (out_features,), or None.

    Example:
        >>> nn.Linear(3, 2)(tensor([[1.0, 2.0, 3.0]])).shape
        (1, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        check_count("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self._add_weight((out_features, in_features), bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class Flatten(Layer):
    """Join the axes from ``start_dim`` to ``end_dim`` into one.

    Example:
        >>> nn.Flatten()(Tensor(np.zeros((2, 3, 4, 5)))).shape
        (2, 60)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)


class Identity(Layer):
    """x: a place where a layer may stand.

    Example:
        >>> nn.Identity()(tensor([1, 2]))
        tensor([1, 2], dtype=int64)
    """

    def forward(self, input: Tensor) -> Tensor:
        return input
