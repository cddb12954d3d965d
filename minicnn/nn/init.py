"""Initialisation in place, spelled as in ``torch.nn.init``; same seed, same numbers on every backend."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from minicnn import backend, random
from minicnn.autograd import no_grad
from minicnn.functional.arguments import check_option, check_size
from minicnn.tensor import Tensor

T = TypeVar("T", bound=Tensor)

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)  # arrays and elements that empty() may make
_AT_ONCE = 100
"""Images whose patches are summed at a time."""
_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2)}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor that keeps the variance through a nonlinearity; ``param`` is leaky_relu's negative slope.

    Example:
        >>> nn.init.calculate_gain("leaky_relu", 1.0)
        1.0
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"calculate_gain: expected {', '.join(_GAINS)} or leaky_relu, received {nonlinearity!r}")
    return _GAINS[nonlinearity]


def empty(*shape: int, operation: str = "empty") -> Tensor:
    """Return a float32 tensor of undefined elements on the default backend, to be filled.

    All parameters and buffers start here, so that :func:`limited` bounds what a model takes.

    Args:
        shape: the length of each axis.
        operation: who asks, for the error.

    Raises:
        ValueError: more elements than this machine's memory holds.

    Example:
        >>> nn.init.empty(2, 3).shape
        (2, 3)
    """
    left = _left.get()
    if left is not None:
        left[0] -= 1
        left[1] -= math.prod(shape)
        if min(left) < 0:
            raise ValueError("its options ask for far more or larger arrays than there are")
    check_size(operation, "an array", shape, 4)
    return Tensor._owned(backend.default().xp.empty(shape, dtype="float32"))


@contextmanager
def limited(arrays: int, elements: int) -> Iterator[None]:
    """Let :func:`empty` make so many arrays and elements in a ``with`` block, and raise ValueError beyond.

    A model whose options come from somebody else's file then costs no more than what the file holds.

    Example:
        >>> with nn.init.limited(arrays=1, elements=6):
        ...     nn.init.empty(2, 3).numel()
        6
    """
    token = _left.set([arrays, elements])
    try:
        yield
    finally:
        _left.reset(token)


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """Fill with numbers uniform in [a, b).

    Example:
        >>> w = nn.init.uniform_(nn.init.empty(100), 2.0, 3.0)
        >>> w.min().item() >= 2 and w.max().item() <= 3
        True
    """
    return _fill(tensor, random.generator().uniform(a, b, tensor.shape))


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Fill with normally distributed numbers.

    Example:
        >>> nn.init.normal_(nn.init.empty(2), mean=3.0, std=0.0)
        tensor([3., 3.], dtype=float32)
    """
    return _fill(tensor, random.generator().normal(mean, std, tensor.shape))


def constant_(tensor: T, val: float) -> T:
    """Fill with ``val``.

    Example:
        >>> nn.init.constant_(nn.init.empty(2), 0.5)
        tensor([0.5, 0.5], dtype=float32)
    """
    return _fill(tensor, val)


def zeros_(tensor: T) -> T:
    """Fill with 0.

    Example:
        >>> nn.init.zeros_(nn.init.empty(2))
        tensor([0., 0.], dtype=float32)
    """
    return _fill(tensor, 0.0)


def ones_(tensor: T) -> T:
    """Fill with 1.

    Example:
        >>> nn.init.ones_(nn.init.empty(2))
        tensor([1., 1.], dtype=float32)
    """
    return _fill(tensor, 1.0)


def dirac_(tensor: T) -> T:
    """Fill the weight (O, I, KH, KW) of a convolution so that its first outputs are its inputs, and the others 0.

    Example:
        >>> nn.init.dirac_(nn.init.empty(1, 1, 1, 3))
        tensor([[[[0., 1., 0.]]]], dtype=float32)
    """
    if tensor.ndim != 4:
        raise ValueError(f"dirac_: expected a weight (O, I, KH, KW), received shape {tensor.shape}")
    xp = tensor.backend.xp
    outputs, inputs, height, width = tensor.shape
    values = xp.zeros(tensor.shape, dtype=tensor.dtype)
    values[:, :, height // 2, width // 2] = xp.eye(outputs, inputs)
    return _fill(tensor, values)


def whitening_(tensor: T, images: Any, eps: float = 5e-4) -> T:
    """Fill the weight (O, C, KH, KW) of a convolution with what whitens the patches of images.

    With the eigenvalues l of the covariance of all patches (C, KH, KW), the largest first, and their vectors v, the
    filters are v / sqrt(l + eps), and behind them their negatives: what they make of the images has the variance 1 in
    each direction, and no correlation (Coates and Ng, 2012). Where O is less than 2 C KH KW, the last are left out;
    where it is more, the others stay as they are.

    Args:
        tensor: the weight.
        images: float32 (N, C, H, W), an array or a tensor.
        eps: added to the eigenvalues, so that directions without variance do not become noise.

    Raises:
        ValueError: images without a patch, or with other channels than the weight.

    Example:
        >>> images = np.array([[[[1.0, -1.0, 1.0]]]], dtype=np.float32)
        >>> (nn.init.whitening_(nn.init.empty(2, 1, 1, 1), images, eps=0.0) ** 2).reshape(2)
        tensor([1., 1.], dtype=float32)
    """
    host = backend.get("numpy").xp  # the same filters on every backend
    pictures = images.numpy() if isinstance(images, Tensor) else backend.to_numpy(images)
    if tensor.ndim != 4 or pictures.ndim != 4 or not _have_patches(pictures.shape, tensor.shape):
        raise ValueError(
            f"whitening_: expected images (N, C, H, W) with patches for a weight of shape {tensor.shape}, "
            f"received shape {pictures.shape}"
        )
    down, right = (n - k + 1 for n, k in zip(pictures.shape[2:], tensor.shape[2:], strict=True))
    height, width = tensor.shape[2:]
    length, sums = math.prod(tensor.shape[1:]), 0.0
    for start in range(0, len(pictures), _AT_ONCE):
        part = pictures[start : start + _AT_ONCE].astype("float64")
        shifted = [part[:, :, i : i + down, j : j + right] for i in range(height) for j in range(width)]
        patches = host.stack(shifted, axis=-1).transpose(1, 4, 0, 2, 3).reshape(length, -1)
        sums = sums + patches @ patches.T
    values, vectors = host.linalg.eigh(sums / (len(pictures) * down * right))
    filters = (vectors / host.sqrt(host.maximum(values, 0) + eps)).T[::-1].reshape(-1, *tensor.shape[1:])
    filters = host.concatenate([filters, -filters])[: tensor.shape[0]].astype("float32")
    _fill(tensor[: len(filters)], filters)
    return tensor


def _have_patches(images: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    fits = all(n >= k for n, k in zip(images[2:], weight[2:], strict=True))
    return fits and images[0] > 0 and images[1] == weight[1]


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).

    Example:
        >>> w = nn.init.xavier_uniform_(nn.init.empty(3, 3))
        >>> w.min().item() >= -1 and w.max().item() <= 1
        True
    """
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Normal with deviation gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010).

    Example:
        >>> w = nn.init.xavier_normal_(nn.init.empty(100, 100))
        >>> bool(0.09 < w.numpy().std() < 0.11)
        True
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))))


def kaiming_uniform_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Uniform in +-gain sqrt(3 / fan) (He et al., 2015); ``a`` is leaky_relu's slope.

    Example:
        >>> w = nn.init.kaiming_uniform_(nn.init.empty(5, 6), nonlinearity="relu")
        >>> w.min().item() >= -1 and w.max().item() <= 1
        True
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Normal with deviation gain / sqrt(fan) (He et al., 2015); ``a`` is leaky_relu's slope.

    Example:
        >>> w = nn.init.kaiming_normal_(nn.init.empty(100, 200), nonlinearity="relu")
        >>> bool(0.09 < w.numpy().std() < 0.11)
        True
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def fans(tensor: Tensor) -> tuple[int, int]:
    """Return the numbers of inputs and of outputs of a unit, by the weight (O, I) or (O, I, KH, KW).

    Example:
        >>> nn.init.fans(nn.init.empty(8, 3, 5, 5))
        (75, 200)
    """
    if tensor.ndim < 2:
        raise ValueError(f"init: expected at least two axes, received shape {tensor.shape}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    check_option("kaiming", "mode", mode, "fan_in", "fan_out")
    fan_in, fan_out = fans(tensor)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


@no_grad()
def _fill(tensor: Any, values: Any) -> Any:
    if not isinstance(values, float):
        values = Tensor(values).to(tensor.backend)
    return tensor.copy_(values)
