"""The sizes at which kernels are timed, their arguments, and the work they do.

LeNet's sizes at batch 128, and one wider: 64 channels of 16 x 16. LeNet has no normalisation, no dropout and no Adam;
those are timed on arrays of its sizes. What vision transformers add: 64 tokens of 128 numbers, 256 inside, 4 heads.
"""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

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
    """A kernel at one size. ``work`` is FLOP for ``unit`` "GFLOP/s", bytes read and written once for "GB/s"."""

    kernel: str
    size: str
    arguments: SimpleNamespace
    work: float
    unit: str

    @property
    def name(self) -> str:
        """Name of the task."""
        return f"{self.kernel} {self.size}"


def measurements() -> Iterator[Measurement]:
    """All kernels at all sizes, the arguments float32 NumPy arrays from a fixed seed."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    for size, shape, weight, padding in _CONVOLUTIONS:
        out = [length + 2 * padding - weight[2] + 1 for length in shape[1:]]
        a = SimpleNamespace(
            x=normal(N, *shape), weight=normal(*weight), bias=normal(weight[0]), gy=normal(N, weight[0], *out),
            padding=(padding, padding),
        )  # fmt: skip
        flop = 2.0 * a.gy.size * math.prod(weight[1:])
        for kernel in ("conv2d", "conv2d_grad_input", "conv2d_grad_weight"):
            yield Measurement(kernel, size, a, flop, "GFLOP/s")
        yield Measurement("conv2d_grad_bias", size, a, a.gy.nbytes, "GB/s")
    for inputs, outputs in _PRODUCTS:
        flop = 2.0 * N * inputs * outputs
        a = SimpleNamespace(a=normal(N, inputs), b=normal(inputs, outputs))
        yield Measurement("matmul", f"{N}x{inputs} @ {inputs}x{outputs}", a, flop, "GFLOP/s")
        a = SimpleNamespace(
            x=normal(N, inputs), weight=normal(outputs, inputs), bias=normal(outputs), gy=normal(N, outputs)
        )
        for kernel in ("linear", "linear_grad_input", "linear_grad_weight"):
            yield Measurement(kernel, f"{inputs:,}->{outputs}", a, flop, "GFLOP/s")
    for c, h, w in _PLANES:
        size = f"{c}x{h}x{w}"
        x = normal(N, c, h, w)
        a = SimpleNamespace(
            x=x, y=np.maximum(x, 0), gy=normal(*x.shape), pooled=normal(N, c, h // 2, w // 2),
            mean=x.mean((0, 2, 3)), variance=x.var((0, 2, 3)), weight=normal(c), bias=normal(c),
            rows=_halves(h), columns=_halves(w),
        )  # fmt: skip
        for kernel, passes in (
            ("max_pool2d", 1.25), ("max_pool2d_grad", 1.25), ("avg_pool2d", 1.25), ("relu_grad", 3), ("dropout", 2),
            ("batch_norm_statistics", 1), ("batch_norm", 2), ("batch_norm_grad", 3),
        ):  # fmt: skip
            yield Measurement(kernel, size, a, passes * x.nbytes, "GB/s")
    tokens = normal(N, 64, 128)
    a = SimpleNamespace(
        x=tokens, gy=normal(*tokens.shape), weight=normal(128), bias=normal(128),
        mean=tokens.mean(-1, keepdims=True), inverse_std=1 / tokens.std(-1, keepdims=True),
    )  # fmt: skip
    yield Measurement("layer_norm", "64x128", a, 2.0 * tokens.nbytes, "GB/s")
    yield Measurement("layer_norm_grad", "64x128", a, 3.0 * tokens.nbytes, "GB/s")
    a = SimpleNamespace(x=normal(N, 64, 256), gy=normal(N, 64, 256))
    yield Measurement("gelu", "64x256", a, 2.0 * a.x.nbytes, "GB/s")
    yield Measurement("gelu_grad", "64x256", a, 3.0 * a.x.nbytes, "GB/s")
    scores = normal(N, 4, 64, 64)
    powers = np.exp(scores)
    a = SimpleNamespace(x=scores, y=powers / powers.sum(-1, keepdims=True), gy=normal(*scores.shape))
    yield Measurement("softmax", "4x64x64", a, 2.0 * scores.nbytes, "GB/s")
    yield Measurement("softmax_grad", "4x64x64", a, 3.0 * scores.nbytes, "GB/s")
    for count in _PARAMETERS:
        a = SimpleNamespace(parameter=normal(count), gradient=normal(count), state=[normal(count), normal(count) ** 2])
        yield Measurement("sgd_step", f"{count:,} parameters", a, 5.0 * a.parameter.nbytes, "GB/s")
        yield Measurement("adam_step", f"{count:,} parameters", a, 7.0 * a.parameter.nbytes, "GB/s")
    a = SimpleNamespace(
        images=rng.integers(0, 256, (1024, 3, 32, 32), dtype=np.uint8), index=rng.permutation(1024)[:N],
        flip=rng.random(N) < 0.5, dy=rng.integers(-2, 3, N), dx=rng.integers(-2, 3, N),
        mean=np.array([0.4914, 0.4822, 0.4465], np.float32), std=np.array([0.2470, 0.2435, 0.2616], np.float32),
        matrix=np.eye(2, 3, dtype=np.float32) + rng.uniform(-0.1, 0.1, (N, 2, 3)).astype(np.float32),
    )  # fmt: skip
    yield Measurement("gather_images", "3x32x32", a, 5.0 * N * 3 * 32 * 32, "GB/s")
    yield Measurement("warp_images", "3x32x32", a, 5.0 * N * 3 * 32 * 32, "GB/s")


def _halves(length: int) -> np.ndarray:
    """Factors of the average over pairs of pixels along an axis, float32 (length / 2, length)."""
    return np.kron(np.eye(length // 2, dtype=np.float32), np.full((1, 2), 0.5, dtype=np.float32))


def converted(arguments: SimpleNamespace, convert: Any) -> SimpleNamespace:
    """``arguments`` with ``convert`` applied to its arrays, also those in lists."""

    def each(value: Any) -> Any:
        if isinstance(value, list):
            return [each(item) for item in value]
        return convert(value.copy()) if isinstance(value, np.ndarray) else value

    return SimpleNamespace(**{name: each(value) for name, value in vars(arguments).items()})
