"""The sizes at which kernels are timed, their arguments, and the work they do.

LeNet's sizes at batch 128, and one wider: 64 channels of 16 x 16. LeNet has no normalisation, no dropout and no Adam;
those are timed on arrays of its sizes. What vision transformers add: 64 tokens of 128 numbers, 256 inside, 4 heads.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from minicnn.backend.kernel import facts
from minicnn.backend.reference import Kernels

N = 128
_CONVOLUTIONS = (
    ("3->6 5x5 on 32x32", (3, 32, 32), (6, 3, 5, 5), 0),
    ("6->16 5x5 on 14x14", (6, 14, 14), (16, 6, 5, 5), 0),
    ("64->64 3x3 on 16x16", (64, 16, 16), (64, 64, 3, 3), 1),
)
_PLANES = ((6, 28, 28), (16, 10, 10), (64, 16, 16))
_PRODUCTS = ((400, 128), (64 * 16 * 16, 128))
_PARAMETERS = (65_886, 64 * 64 * 3 * 3)


class Measurement(NamedTuple):
    """A kernel at one size."""

    kernel: str
    size: str
    arguments: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Name of the task."""
        return f"{self.kernel} {self.size}"

    @property
    def work(self) -> tuple[float, str]:
        """What the kernel declares: FLOP, with the unit "GFLOP/s", or bytes, with "GB/s"."""
        declared = facts(self.kernel)
        outputs = declared.outputs(*self.arguments)
        if declared.flop is not None:
            return declared.flop(self.arguments, outputs), "GFLOP/s"
        return declared.bytes(self.arguments, outputs), "GB/s"


def measurements() -> Iterator[Measurement]:
    """All kernels at all sizes, the arguments float32 NumPy arrays from a fixed seed."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    for size, shape, filters, padding in _CONVOLUTIONS:
        x, weight, bias = normal(N, *shape), normal(*filters), normal(filters[0])
        gy = normal(N, filters[0], *(length + 2 * padding - filters[2] + 1 for length in shape[1:]))
        options = (1, 1), (padding, padding), (1, 1), 1
        yield Measurement("conv2d", size, (x, weight, bias, *options))
        yield Measurement("conv2d_grad_input", size, (gy, weight, x.shape, *options))
        yield Measurement("conv2d_grad_weight", size, (gy, x, weight.shape, *options))
        yield Measurement("conv2d_grad_bias", size, (gy,))
    for inputs, outputs in _PRODUCTS:
        a, b = normal(N, inputs), normal(inputs, outputs)
        yield Measurement("matmul", f"{N}x{inputs} @ {inputs}x{outputs}", (a, b))
        x, weight, bias, gy = normal(N, inputs), normal(outputs, inputs), normal(outputs), normal(N, outputs)
        size = f"{inputs:,}->{outputs}"
        yield Measurement("linear", size, (x, weight, bias))
        yield Measurement("linear_grad_input", size, (gy, weight))
        yield Measurement("linear_grad_weight", size, (gy, x))
    for c, h, w in _PLANES:
        size, halves = f"{c}x{h}x{w}", ((2, 2), (2, 2), (0, 0), (1, 1))
        x, gy, pooled, weight, bias = normal(N, c, h, w), normal(N, c, h, w), (h // 2, w // 2), normal(c), normal(c)
        _, taps = Kernels.max_pool2d(x, *halves, pooled)
        mean, inverse_std = x.mean((0, 2, 3)), 1 / x.std((0, 2, 3))
        yield Measurement("max_pool2d", size, (x, *halves, pooled))
        yield Measurement("max_pool2d_grad", size, (normal(*taps.shape), taps, x.shape, *halves))
        yield Measurement("avg_pool2d", size, (x, _halves(h), _halves(w)))
        yield Measurement("relu_grad", size, (gy, np.maximum(x, 0)))
        yield Measurement("bfloat16", size, (x,))
        yield Measurement("dropout", size, (x, 1, 0.5))
        yield Measurement("batch_norm_statistics", size, (x,))
        yield Measurement("batch_norm", size, (x, mean, inverse_std, weight, bias))
        yield Measurement("batch_norm_grad", size, (gy, x, mean, inverse_std, weight, True))
    x, gy, weight, bias = normal(N, 64, 128), normal(N, 64, 128), normal(128), normal(128)
    mean, inverse_std = x.mean(-1, keepdims=True), 1 / x.std(-1, keepdims=True)
    yield Measurement("layer_norm", "64x128", (x, 1, weight, bias, 1e-5))
    yield Measurement("layer_norm_grad", "64x128", (gy, x, 1, mean, inverse_std, weight))
    qkv, gy = normal(N, 64, 384), normal(N, 64, 128)
    _, weights = Kernels.attention(qkv, 4)
    yield Measurement("attention", "64x128, 4 heads", (qkv, 4))
    yield Measurement("attention_grad", "64x128, 4 heads", (qkv, gy, weights))
    x, gy = normal(N, 64, 256), normal(N, 64, 256)
    yield Measurement("gelu", "64x256", (x, "none"))
    yield Measurement("gelu_grad", "64x256", (gy, x, "none"))
    x, gy = normal(N, 4, 64, 64), normal(N, 4, 64, 64)
    yield Measurement("softmax", "4x64x64", (x, -1))
    yield Measurement("softmax_grad", "4x64x64", (gy, Kernels.softmax(x, -1), -1))
    for count in _PARAMETERS:
        size, state = f"{count:,} parameters", [normal(count), normal(count), normal(count), normal(count) ** 2]
        yield Measurement("sgd_step", size, (*state[:3], False, 1e-3, 0.9, 0.0, 0.0, False))
        yield Measurement("adam_step", size, (*state, 9, 1e-3, 0.9, 0.999, 1e-8, 0.0, False))
    images, index = rng.integers(0, 256, (1024, 3, 32, 32), dtype=np.uint8), rng.permutation(1024)[:N]
    moves = rng.random(N) < 0.5, rng.integers(-2, 3, N), rng.integers(-2, 3, N)
    scale = np.array([0.4914, 0.4822, 0.4465], np.float32), np.array([0.2470, 0.2435, 0.2616], np.float32)
    matrix = np.eye(2, 3, dtype=np.float32) + rng.uniform(-0.1, 0.1, (N, 2, 3)).astype(np.float32)
    yield Measurement("gather_images", "3x32x32", (images, index, *moves, *scale, "reflect"))
    yield Measurement("warp_images", "3x32x32", (images, index, matrix, *scale, "reflect"))
    images, first = rng.integers(0, 256, (256, 3, 72, 72), dtype=np.uint8), rng.integers(0, 20, (N, 2))
    last = first + rng.integers(20, 52, (N, 2), endpoint=True)
    boxes = np.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], axis=1)
    yield Measurement("crop_images", "parts of 3x72x72 to 64x64", (images, index % 256, boxes, (64, 64)))


def _halves(length: int) -> np.ndarray:
    """Factors of the average over pairs of pixels along an axis, float32 (length / 2, length)."""
    return np.kron(np.eye(length // 2, dtype=np.float32), np.full((1, 2), 0.5, dtype=np.float32))


def converted(arguments: tuple[Any, ...], convert: Any) -> list[Any]:
    """Copies of ``arguments``, the arrays among them converted."""
    return [convert(value.copy()) if isinstance(value, np.ndarray) else value for value in arguments]
