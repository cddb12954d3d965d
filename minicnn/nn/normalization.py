"""Normalisation layers and dropout."""

from collections.abc import Sequence

import minicnn.functional as F
from minicnn.functional.arguments import check_count, check_fraction
from minicnn.nn import init
from minicnn.nn.layer import Layer
from minicnn.nn.module import Parameter
from minicnn.recording import on_replay, per_replay
from minicnn.tensor import Tensor, tensor


class _BatchNorm(Layer):
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
        check_count(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._add_scale((num_features,), affine)
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
        return per_replay(lambda: 1 / int(count))


def _add(count: Tensor, number: int) -> None:
    count.copy_(int(count) + number)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W); see :func:`minicnn.functional.batch_norm`.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: share of each batch in the running statistics; None for their mean over all batches so far.
        affine: whether weight and bias are trained; else they are None.
        track_running_stats: whether evaluation takes running statistics; else it takes those of the batch.

    Attributes:
        weight, bias: (C,), start as ones and zeros.
        running_mean, running_var: buffers (C,), start as zeros and ones.
        num_batches_tracked: a buffer with the number of batches where ``momentum`` is None. Else it is None, and a
            state that has it loads without.

    Example:
        >>> layer = nn.BatchNorm2d(3, momentum=0.5)
        >>> layer(Tensor(np.ones((2, 3, 4, 4), "float32"))).shape
        (2, 3, 4, 4)
        >>> layer.running_mean
        tensor([0.5, 0.5, 0.5], dtype=float32)
    """

    dims = (4,)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L): :class:`BatchNorm2d` for other inputs.

    Example:
        >>> nn.BatchNorm1d(1, eps=0.0)(tensor([[1.0], [3.0]])).tolist()
        [[-1.0], [1.0]]
    """

    dims = (2, 3)


class LayerNorm(Layer):
    """Layer normalisation over the last axes; see :func:`minicnn.functional.layer_norm`.

    Attributes:
        weight, bias: of ``normalized_shape``, start as ones and zeros; None unless ``elementwise_affine``.

    Example:
        >>> nn.LayerNorm(2, eps=0.0)(tensor([[1.0, 3.0], [-5.0, 5.0]])).tolist()
        [[-1.0, 1.0], [-1.0, 1.0]]
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        check_count("LayerNorm", **{f"normalized_shape[{i}]": length for i, length in enumerate(shape)})
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self._add_scale(shape, elementwise_affine)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class Dropout(Layer):
    """Zero elements with probability ``p`` in training; see :func:`minicnn.functional.dropout`.

    Example:
        >>> x = tensor([1.0, 2.0])
        >>> nn.Dropout(0.5).eval()(x) is x
        True
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_fraction("Dropout", "p", p)
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)
