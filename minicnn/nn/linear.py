"""Fully connected layer, and layers that only move elements."""

import minicnn.functional as F
from minicnn.nn import init
from minicnn.nn.module import Module, Parameter
from minicnn.tensor import Tensor


class Linear(Module):
    """x weight^T + bias. weight: (out_features, in_features); bias: (out_features,); both uniform in
    +-1 / sqrt(in_features) at first. (..., in_features) -> (..., out_features).
    """

    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(f"Linear: expected features from 1, received {in_features} -> {out_features}")
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(init.empty(out_features, in_features))
        self.register_parameter("bias", Parameter(init.empty(out_features)) if bias else None)
        init.default_(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Flatten(Module):
    """Join the axes from ``start_dim`` to ``end_dim`` into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """x."""

    def forward(self, input: Tensor) -> Tensor:
        return input
