"""Initialisation in place, spelled as in ``torch.nn.init``; same seed, same numbers on every backend."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from minicnn import backend, random
from minicnn.autograd import no_grad
from minicnn.tensor import Tensor

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)  # arrays and elements that empty() may make
_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2)}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor that keeps the variance through a nonlinearity; ``param`` is leaky_relu's negative slope."""
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"calculate_gain: expected {', '.join(_GAINS)} or leaky_relu, received {nonlinearity!r}")
    return _GAINS[nonlinearity]


def empty(*shape: int) -> Tensor:
    """Return a float32 tensor of undefined elements on the default backend, to be filled.

    All parameters and buffers start here, so that :func:`limited` bounds what a model takes.
    """
    left = _left.get()
    if left is not None:
        left[0] -= 1
        left[1] -= math.prod(shape)
        if min(left) < 0:
            raise ValueError("its options ask for far more or larger arrays than there are")
    return Tensor(backend.default().xp.empty(shape, dtype="float32"))


@contextmanager
def limited(arrays: int, elements: int) -> Iterator[None]:
    """Let :func:`empty` make so many arrays and elements in a ``with`` block, and raise ValueError beyond.

    So that a model whose options come from somebody else's file costs no more than what the file has.
    """
    token = _left.set([arrays, elements])
    try:
        yield
    finally:
        _left.reset(token)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with numbers uniform in [a, b)."""
    return _fill(tensor, random.default_generator.uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with normally distributed numbers."""
    return _fill(tensor, random.default_generator.normal(mean, std, tensor.shape))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with ``val``."""
    return _fill(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return _fill(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return _fill(tensor, 1.0)


def dirac_(tensor: Tensor) -> Tensor:
    """Fill the weight (O, I, KH, KW) of a convolution so that its first outputs are its inputs, and the others 0."""
    if tensor.ndim != 4:
        raise ValueError(f"dirac_: expected a weight (O, I, KH, KW), received shape {tensor.shape}")
    xp = tensor.backend.xp
    outputs, inputs, height, width = tensor.shape
    values = xp.zeros(tensor.shape, dtype=tensor.dtype)
    values[:, :, height // 2, width // 2] = xp.eye(outputs, inputs)
    return _fill(tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with deviation gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform in +-gain sqrt(3 / fan) (He et al., 2015); ``a`` is leaky_relu's slope."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal with deviation gain / sqrt(fan) (He et al., 2015); ``a`` is leaky_relu's slope."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def default_(weight: Tensor, bias: Tensor | None) -> None:
    """What ``torch.nn.Linear`` and ``Conv2d`` start from: both uniform in +-1 / sqrt(fan_in)."""
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(_fans(weight)[0])
        uniform_(bias, -bound, bound)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: expected mode 'fan_in' or 'fan_out', received {mode!r}")
    fan_in, fan_out = _fans(tensor)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit: weight (O, I) or (O, I, KH, KW)."""
    if tensor.ndim < 2:
        raise ValueError(f"init: expected at least two axes, received shape {tensor.shape}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


@no_grad()
def _fill(tensor: Tensor, values: object) -> Tensor:
    if not isinstance(values, float):
        values = Tensor(values).to(tensor.backend)
    return tensor.copy_(values)
