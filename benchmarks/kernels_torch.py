"""PyTorch's side of ``kernels.py``: the operation that does what a kernel does, without the tape."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from kernel_cases import converted, measurements
from minicnn.backend.kernel import facts
from worker import Workload

_aten = torch.ops.aten


def _convolution_backward(a: SimpleNamespace, *mask: bool) -> object:
    """Gradients for x and weight, as ``mask`` says; it has no way to compute that for bias alone."""
    return _aten.convolution_backward(
        a.gy, a.x, a.weight, None, (1, 1), a.padding, (1, 1), False, (0, 0), 1, (*mask, False)
    )  # fmt: skip


def _batch_norm_grad(a: SimpleNamespace) -> object:
    saved = a.mean, a.inverse_std
    return _aten.native_batch_norm_backward(a.gy, a.x, a.weight, None, None, *saved, True, 1e-5, (True, True, True))


def _gather_images(a: SimpleNamespace) -> object:
    """The formula of the reference in PyTorch's indexing: it has no operation for it."""
    size = a.images.shape[-1]
    place = torch.arange(size)
    rows = place + a.dy[:, None]
    columns = torch.where(a.flip[:, None], size - 1 - place, place) + a.dx[:, None]
    rows, columns = (size - 1 - (size - 1 - p.abs()).abs() for p in (rows, columns))
    pictures = a.images[a.index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return (pictures * (1 / (255 * a.std)) - a.mean / a.std).permute(0, 3, 1, 2).contiguous()


def _warp_images(a: SimpleNamespace) -> object:
    size = a.images.shape[-1]
    place = torch.arange(size, dtype=torch.float32)
    down, across = torch.meshgrid(place, place, indexing="ij")
    points = torch.stack((across, down, torch.ones_like(down)), -1)  # (H, W, 3)
    grid = torch.einsum("hwk,njk->nhwj", points, a.matrix) * (2 / (size - 1)) - 1
    pictures = F.grid_sample(a.images[a.index].float(), grid, "bilinear", "reflection", align_corners=True)
    return pictures * (1 / (255 * a.std))[:, None, None] - (a.mean / a.std)[:, None, None]


def _crop_images(a: SimpleNamespace) -> object:
    """One picture after the other, as PyTorch users do it: each has a part of its own."""
    return torch.cat(
        [
            F.interpolate(
                a.images[i, None, :, top:bottom, left:right].float(), a.size, mode="bilinear", antialias=True
            )
            for i, (top, bottom, left, right) in zip(a.index, a.boxes.tolist(), strict=True)
        ]
    ) / 255  # fmt: skip


_CALLS: dict[str, Callable[[SimpleNamespace], object]] = {
    "adam_step": lambda a: a.adam.step(),
    "batch_norm": lambda a: F.batch_norm(a.x, a.mean, a.variance, a.weight, a.bias),
    "batch_norm_grad": _batch_norm_grad,
    "batch_norm_statistics": lambda a: torch.var_mean(a.x, (0, 2, 3), correction=0),
    "conv2d": lambda a: F.conv2d(a.x, a.weight, a.bias, padding=a.padding),
    "conv2d_grad_bias": lambda a: a.gy.sum((0, 2, 3)),
    "conv2d_grad_input": lambda a: _convolution_backward(a, True, False),
    "conv2d_grad_weight": lambda a: _convolution_backward(a, False, True),
    "bfloat16": lambda a: a.a.bfloat16().float(),
    "crop_images": _crop_images,
    "dropout": lambda a: F.dropout(a.x, 0.5),
    "gather_images": _gather_images,
    "gelu": lambda a: F.gelu(a.x),
    "gelu_grad": lambda a: _aten.gelu_backward(a.gy, a.x),
    "attention": lambda a: _attention(a.qkv, a.heads),
    "attention_grad": lambda a: torch.autograd.grad(a.y, a.leaf, a.gy, retain_graph=True),
    "layer_norm": lambda a: torch.native_layer_norm(a.x, (128,), a.weight, a.bias, 1e-5),
    "layer_norm_grad": lambda a: _aten.native_layer_norm_backward(
        a.gy, a.x, (128,), a.mean, a.inverse_std, a.weight, a.bias, (True, True, True)
    ),
    "linear": lambda a: F.linear(a.x, a.weight, a.bias),
    "linear_grad_input": lambda a: a.gy @ a.weight,
    "linear_grad_weight": lambda a: a.gy.T @ a.x,
    "matmul": lambda a: a.a @ a.b,
    "avg_pool2d": lambda a: F.avg_pool2d(a.x, 2),
    "max_pool2d": lambda a: F.max_pool2d(a.x, 2, return_indices=True),
    "max_pool2d_grad": lambda a: _aten.max_pool2d_with_indices_backward(
        a.gy, a.x, (2, 2), (2, 2), (0, 0), (1, 1), False, a.indices
    ),
    "relu_grad": lambda a: _aten.threshold_backward(a.gy, a.y, 0),
    "sgd_step": lambda a: a.sgd.step(),
    "softmax": lambda a: a.x.softmax(-1),
    "softmax_grad": lambda a: _aten._softmax_backward_data(a.gy, a.y, -1, torch.float32),
    "warp_images": _warp_images,
}


def _attention(qkv: Any, heads: int) -> Any:
    parts = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (3, N, H, L, E / H)
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


def _inference(task: Callable[[], object]) -> object:
    with torch.no_grad():
        return task()


def _named(kernel: str, arguments: tuple[Any, ...]) -> SimpleNamespace:
    """The arguments by their names in the reference, and what PyTorch wants beside them, whose values do not count."""
    a = SimpleNamespace(**dict(zip(facts(kernel).parameters, converted(arguments, torch.from_numpy), strict=True)))
    if kernel in ("conv2d_grad_input", "max_pool2d_grad"):
        a.x = torch.empty(a.shape)
    if kernel == "conv2d_grad_weight":
        a.weight = torch.empty(a.shape)
    if kernel == "max_pool2d_grad":
        taps, (h, w) = a.taps.long(), a.taps.shape[2:]
        a.indices = (2 * torch.arange(h)[:, None] + taps // 2) * a.shape[3] + 2 * torch.arange(w) + taps % 2
    if kernel == "batch_norm":
        a.variance = a.inverse_std**-2
    if kernel == "attention_grad":
        with torch.enable_grad():
            a.leaf = a.qkv.clone().requires_grad_()
            a.y = _attention(a.leaf, a.weights.shape[1])
    if kernel == "layer_norm_grad":
        a.bias = torch.empty_like(a.weight)
    if kernel in ("sgd_step", "adam_step"):
        a.parameter.grad = a.gradient
        a.sgd, a.adam = torch.optim.SGD([a.parameter], 1e-3, 0.9), torch.optim.Adam([a.parameter], 1e-3)
    return a


def build() -> Workload:
    """One task a measurement."""
    return Workload(
        {m.name: partial(_inference, partial(_CALLS[m.kernel], _named(m.kernel, m.arguments))) for m in measurements()}
    )
