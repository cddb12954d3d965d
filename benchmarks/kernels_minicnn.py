"""minicnn's side of ``kernels.py``: the kernels of the CPU, or their twins of the reference."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from kernel_cases import converted, measurements
from minicnn import backend
from worker import Workload

_ONE = (1, 1)
_HALVES = ((2, 2), (2, 2), (0, 0), (1, 1))  # kernel size, stride, padding, dilation of a pooling by 2


def _calls(k: Any) -> dict[str, Callable[[SimpleNamespace], Any]]:
    """How each kernel of ``k`` is called with the arguments of ``kernel_cases``."""
    return {
        "adam_step": lambda a: k.adam_step(a.parameter, a.gradient, *a.state, 9, 1e-3, 0.9, 0.999, 1e-8, 0.0, False),
        "batch_norm": lambda a: k.batch_norm(a.x, a.mean, a.variance**-0.5, a.weight, a.bias),
        "batch_norm_grad": lambda a: k.batch_norm_grad(a.gy, a.x, a.mean, a.variance**-0.5, a.weight, True),
        "batch_norm_statistics": lambda a: k.batch_norm_statistics(a.x),
        "conv2d": lambda a: k.conv2d(a.x, a.weight, a.bias, _ONE, a.padding, _ONE, 1),
        "conv2d_grad_bias": lambda a: k.conv2d_grad_bias(a.gy),
        "conv2d_grad_input": lambda a: k.conv2d_grad_input(a.gy, a.weight, a.x.shape, _ONE, a.padding, _ONE, 1),
        "conv2d_grad_weight": lambda a: k.conv2d_grad_weight(a.gy, a.x, a.weight.shape, _ONE, a.padding, _ONE, 1),
        "dropout": lambda a: k.dropout(a.x, 1, 0.5),
        "gather_images": lambda a: k.gather_images(a.images, a.index, a.flip, a.dy, a.dx, a.mean, a.std, "reflect"),
        "gelu": lambda a: k.gelu(a.x, "none"),
        "gelu_grad": lambda a: k.gelu_grad(a.gy, a.x, "none"),
        "layer_norm": lambda a: k.layer_norm(a.x, 1, a.weight, a.bias, 1e-5),
        "layer_norm_grad": lambda a: k.layer_norm_grad(a.gy, a.x, 1, a.mean, a.inverse_std, a.weight),
        "linear": lambda a: k.linear(a.x, a.weight, a.bias),
        "linear_grad_input": lambda a: k.linear_grad_input(a.gy, a.weight),
        "linear_grad_weight": lambda a: k.linear_grad_weight(a.gy, a.x),
        "matmul": lambda a: k.matmul(a.a, a.b),
        "avg_pool2d": lambda a: k.avg_pool2d(a.x, a.rows, a.columns),
        "max_pool2d": lambda a: k.max_pool2d(a.x, *_HALVES, a.pooled.shape[2:]),
        "max_pool2d_grad": lambda a: k.max_pool2d_grad(a.pooled, a.taps, a.x.shape, *_HALVES),
        "relu_grad": lambda a: k.relu_grad(a.gy, a.y),
        "sgd_step": lambda a: k.sgd_step(a.parameter, a.gradient, a.state[0], False, 1e-3, 0.9, 0.0, 0.0, False),
        "softmax": lambda a: k.softmax(a.x, -1),
        "softmax_grad": lambda a: k.softmax_grad(a.gy, a.y, -1),
        "warp_images": lambda a: k.warp_images(a.images, a.index, a.matrix, a.mean, a.std, "reflect"),
    }


def build(kernels: str) -> Workload:
    """One task a measurement, on the kernels of the backend ``kernels``: "numpy" or "reference".

    The fact "own" names the kernels that the backend has in its own right: the CPU imports the others.
    """
    k = backend.get(kernels).kernels
    own = [name for name in k.__all__ if getattr(k, name).__module__.startswith(k.__name__)]
    calls = _calls(k)
    tasks: dict[str, Callable[[], object]] = {}
    for measurement in measurements():
        a = converted(measurement.arguments, lambda array: array)
        if measurement.kernel == "max_pool2d_grad":
            a.taps = calls["max_pool2d"](a)[1]
        tasks[measurement.name] = partial(calls[measurement.kernel], a)
    return Workload(tasks, facts={"own": [name for name in own if not name.endswith("_num_threads")]})
