"""Where a network looks, and what its layers make of a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn.nn import Conv2d, Module
from minicnn.nn.module import detached
from minicnn.tensor import Tensor
from minicnn.text import nearest


def feature_maps(model: Module, images: Tensor) -> dict[str, np.ndarray]:
    """The outputs (N, C, H, W) of all layers that have such, by dotted name, in the order of their first execution.

    images: normalised, (N, C, H, W), on the model's backend. The model runs in evaluation mode.
    """
    maps: dict[str, np.ndarray] = {}
    model = detached(model)
    names = {id(module): name for name, module in model.named_modules() if name}

    def note(module: Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            maps.setdefault(names[id(module)], output.numpy())

    for module in dict.fromkeys(model.modules()):
        if id(module) in names:
            module.register_forward_hook(note)
    model(images.detach())
    return maps


def convolutions(model: Module, images: Tensor) -> list[str]:
    """The names of the convolutions in the order of execution; of a vision transformer that of its patches alone."""
    modules = dict(model.named_modules())
    return [name for name in feature_maps(model, images[:1]) if isinstance(modules[name], Conv2d)]


def check_layer(model: Module, images: Tensor, layer: str) -> None:
    """Raise ValueError, with the names that would do, where `layer` is none whose output is (N, C, H, W)."""
    fitting = list(feature_maps(model, images[:1]))
    if layer not in fitting:
        raise ValueError(
            f"layer: expected one with an output (N, C, H, W): {', '.join(fitting) or 'there is none'}; "
            f"received {layer!r}{nearest(layer, fitting)}"
        )


def grad_cam(model: Module, images: Tensor, classes: Sequence[int] | np.ndarray, layer: str = "") -> np.ndarray:
    """Gradient-weighted class activation maps (Selvaraju et al., 2017), https://arxiv.org/abs/1610.02391.

    With A the output of ``layer`` and y the logit of a picture's class, relu(sum_c a_c A_c) where a_c is the mean over
    the pixels of dy / dA_c; divided by its maximum, so that each picture's map reaches 1, or is 0 where nothing speaks
    for the class.

    Args:
        images: normalised, (N, C, H, W), on the model's backend.
        classes: (N,) indices of the classes to explain.
        layer: dotted name of a layer with an output (N, C, h, w); default: the last convolution to run.

    Returns:
        float (N, h, w) in [0, 1]. The model stays as it is.

    Raises:
        ValueError: no such layer, a model without a convolution, or another number of classes than pictures.
    """
    if layer:
        check_layer(model, images, layer)
    else:
        found = convolutions(model, images)
        if not found:
            raise ValueError(f"grad_cam: expected a model with a convolution, received {type(model).__name__}")
        layer = found[-1]
    outputs: list[Tensor] = []

    def note(module: Module, output: Tensor) -> None:
        if not outputs:  # without gradients before it, nothing is on the tape yet: the output is a leaf
            outputs.append(output.requires_grad_())

    model = detached(model)
    dict(model.named_modules())[layer].register_forward_hook(note)
    logits = model(images.detach())
    indices = np.asarray(classes)
    if indices.shape != logits.shape[:1] or not ((indices >= 0) & (indices < logits.shape[1])).all():
        raise ValueError(
            f"grad_cam: expected {len(images)} classes in 0..{logits.shape[1] - 1}, received {indices.tolist()}"
        )
    chosen = np.eye(logits.shape[1], dtype=logits.dtype)[indices]  # of each picture its own logit
    logits.backward(Tensor(logits.backend.asarray(chosen)))
    (output,) = outputs
    assert output.grad is not None  # logits depend on it
    weights = output.grad.numpy().mean(axis=(2, 3), keepdims=True)  # (N, C, 1, 1)
    heat = np.maximum((weights * output.numpy()).sum(axis=1), 0)  # (N, h, w)
    highest = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)
