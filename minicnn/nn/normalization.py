"""Normalisation layers and dropout."""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn.nn import init
from minicnn.nn.module import Module, Parameter
from minicnn.recording import on_replay, per_replay
from minicnn.tensor import Tensor, tensor


class _BatchNorm(Module):
    """Batch normalisation; see :func:`minicnn.functional.batch_norm`.

    weight (ones) and bias (zeros): (num_features,), or None unless ``affine``; running_mean (zeros) and running_var
    (ones): buffers of the same shape, or None unless ``track_running_stats``: then the statistics of the batch serve in
    evaluation too. ``momentum`` None: they are the mean over all batches so far, whose number is the buffer
    num_batches_tracked, an integer; otherwise it is None, and passed over in the state of a layer of PyTorch.
    """

    dims: tuple[int, ...]
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    _untracked = frozenset({"num_batches_tracked"})

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"{type(self).__name__}: expected num_features from 1, received {num_features}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.register_parameter("weight", Parameter(init.ones_(init.empty(num_features))) if affine else None)
        self.register_parameter("bias", Parameter(init.zeros_(init.empty(num_features))) if affine else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", init.zeros_(init.empty(num_features)) if tracked else None)
        self.register_buffer("running_var", init.ones_(init.empty(num_features)) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0) if tracked and momentum is None else None)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.dims:
            raise ValueError(
                f"{type(self).__name__}: expected {' or '.join(map(str, self.dims))} axes, received shape {input.shape}"
            )
        training = self.training or self.running_mean is None
        momentum = self._share if self.momentum is None else self.momentum
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training, momentum, self.eps
        )

    def _share(self) -> float:
        """Count a batch, and return its share in the mean over all of them."""
        count = self.num_batches_tracked
        if count is None:
            raise ValueError(f"{type(self).__name__}: momentum became None; make the layer with momentum=None instead")
        on_replay(lambda: _add(count, 1), undo=lambda: _add(count, -1))
        return per_replay(lambda: 1 / int(count.data))

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


def _add(count: Tensor, number: int) -> None:
    count.data += number


class BatchNorm1d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "") + "\n    Input: (N, C) or (N, C, L)."
    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "") + "\n    Input: (N, C, H, W)."
    dims = (4,)


class LayerNorm(Module):
    """Layer normalisation over the last axes; see :func:`minicnn.functional.layer_norm`.

    weight (ones) and bias (zeros): of ``normalized_shape``, or None unless ``elementwise_affine``.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.register_parameter("weight", Parameter(init.ones_(init.empty(*shape))) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(init.zeros_(init.empty(*shape))) if elementwise_affine else None)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class Dropout(Module):
    """Zero elements with probability ``p`` in training; see :func:`minicnn.functional.dropout`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: expected p in [0, 1], received {p}")
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
