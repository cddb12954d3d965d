"""Activation layers; any shape -> the same shape."""

import minicnn.functional as F
from minicnn.nn.layer import Layer
from minicnn.tensor import Tensor


class ReLU(Layer):
    """max(x, 0); see :func:`minicnn.functional.relu`.

    Example:
        >>> nn.ReLU()(tensor([-1.0, 2.0]))
        tensor([0., 2.], dtype=float32)
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)


class LeakyReLU(Layer):
    """x where x > 0, ``negative_slope`` x elsewhere; see :func:`minicnn.functional.leaky_relu`.

    Example:
        >>> nn.LeakyReLU(0.25)(tensor([-2.0, 2.0]))
        tensor([-0.5,  2. ], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)


class ELU(Layer):
    """x where x > 0, ``alpha`` (e^x - 1) elsewhere; see :func:`minicnn.functional.elu`.

    Example:
        >>> nn.ELU()(tensor([-np.inf, 2.0]))
        tensor([-1.,  2.], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha)


class GELU(Layer):
    """x Phi(x), ``approximate`` is "none" or "tanh"; see :func:`minicnn.functional.gelu`.

    Example:
        >>> nn.GELU("tanh")(tensor([0.0, 100.0]))
        tensor([  0., 100.], dtype=float32)
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class Sigmoid(Layer):
    """1 / (1 + e^-x); see :func:`minicnn.functional.sigmoid`.

    Example:
        >>> nn.Sigmoid()(tensor([0.0, np.inf]))
        tensor([0.5, 1. ], dtype=float32)
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Layer):
    """Hyperbolic tangent; see :func:`minicnn.functional.tanh`.

    Example:
        >>> nn.Tanh()(tensor([0.0, np.inf]))
        tensor([0., 1.], dtype=float32)
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softmax(Layer):
    """e^x / sum e^x along ``dim``; see :func:`minicnn.functional.softmax`.

    Example:
        >>> nn.Softmax(dim=0)(tensor([3.0, 3.0]))
        tensor([0.5, 0.5], dtype=float32)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(Layer):
    """x - log sum e^x along ``dim``; see :func:`minicnn.functional.log_softmax`.

    Example:
        >>> nn.LogSoftmax(dim=0)(tensor([1e4, 0.0]))
        tensor([     0., -10000.], dtype=float32)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)
