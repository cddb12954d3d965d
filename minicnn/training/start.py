"""The model that a run begins with: fresh, whitened, or with the weights of another network and stages that are fixed.

A stage is a layer with a weight of two axes or more (a convolution, a linear layer, a whole residual or transformer
block) and what follows it up to the next: batch norm, activation, pooling, dropout. Layers are the parts of a model in
their order; a plain Sequential stands for its own. Parameters that belong to the model itself (the positions of a
vision transformer) are of the first stage. The last stage holds the head, the linear layer that makes the logits.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minicnn import nn, random
from minicnn.data import Dataset, Loader
from minicnn.nn import Module
from minicnn.nn.module import evaluating, tensors_of
from minicnn.tensor import Tensor
from minicnn.training.checkpoint import compare_keys
from minicnn.training.pretrained import Pretrained

FEATURES = "features"
"""What stands for the number of all stages but that of the head."""


def stages(model: Module) -> tuple[list[list[Module]], list[str]]:
    """Return the layers of each stage but the last, and the names of the head's tensors.

    Raises:
        ValueError: the model does not end in a linear layer.
    """
    found: list[list[Module]] = [[]]
    for layer in _layers(model):
        if _weighs(layer) and any(map(_weighs, found[-1])):
            found.append([])
        found[-1].append(layer)
    head = next(filter(_weighs, found[-1]), None)
    if not isinstance(head, nn.Linear):
        last = "nothing" if head is None else type(head).__name__
        raise ValueError(f"weights: expected a model that ends in a Linear, {type(model).__name__} ends in {last}")
    own = {id(p) for p in head.parameters()}
    return found[:-1], [name for name, p in model.named_parameters() if id(p) in own]


def count_logits(model: Module, whose: str, images: tuple[int, ...]) -> int:
    """Return how many logits a model makes of an image (C, H, W).

    The loss takes for granted that each label has one: that of a label without would be looked for behind them.

    Raises:
        ValueError: it makes none, does not take such images, has nothing to train, or is not of float32.
    """
    tensors = tensors_of(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{whose}: expected a parameter to train, received none")
    if wrong := [tensor.dtype for tensor in tensors if tensor.dtype == "float64"]:
        raise ValueError(f"{whose}: expected tensors of float32, received {wrong[0]}; take model.astype('float32')")
    try:
        with evaluating(), random.use(random.Generator()):
            logits = model(Tensor(tensors[0].backend.xp.zeros((1, *images), "float32")))
    except Exception as error:  # whatever the code of a user raises
        cause = f"{type(error).__name__}: {error}"
        raise ValueError(f"{whose}: it does not take pictures (C, H, W) of {images}: {cause}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        received = f"shape {logits.shape} of one picture" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{whose}: expected logits (N, K), received {received}")
    return logits.shape[1]


def check_fit(model: Module, source: Pretrained, name: str) -> None:
    """Raise ValueError, which calls the weights by ``name``, unless all but their head fits ``model``."""
    _, head = stages(model)
    expected, found = (
        {key: tensor.shape for key, tensor in each.state_dict().items() if key not in head}
        for each in (model, source.model)
    )
    differences = compare_keys(expected, found)
    if differences:
        raise ValueError(f"weights: {name} do not fit {source.name} with these options: {'; '.join(differences)}")


def load_weights(model: Module, source: Pretrained, classes: Sequence[str]) -> None:
    """Copy ``source`` into ``model``, which tells ``classes`` apart.

    Its head is copied where it knows the same classes, in whatever order; else that of ``model`` stays.
    """
    arrays, known = source.arrays(), source.classes
    for name in stages(model)[1]:
        if sorted(known) == sorted(classes):
            arrays[name] = arrays[name][[known.index(each) for each in classes]]
        else:
            del arrays[name]
    model.load_state_dict(arrays, strict=False)


def freeze(model: Module, count: int | str) -> list[Module]:
    """Fix the parameters of the first ``count`` stages, or of all but the head, and return the layers.

    These are to be in evaluation mode while others are trained, so that batch norm keeps its statistics.

    Raises:
        ValueError: there are fewer stages.
    """
    if not count:
        return []
    found, _ = stages(model)
    if isinstance(count, int) and count > len(found):
        raise ValueError(f"freeze: expected up to {len(found)} stages, as there are before the head, received {count}")
    frozen = [layer for stage in found[: count if isinstance(count, int) else None] for layer in stage]
    of_parts = {id(p) for child in model.children() for p in child.parameters()}
    own = (p for p in model.parameters() if id(p) not in of_parts)
    for tensor in (*own, *(p for layer in frozen for p in layer.parameters())):
        tensor.requires_grad_(False)
    return frozen


def whiten(model: Module, name: str, pictures: Dataset, count: int, **scaling: Any) -> nn.Conv2d:
    """Fill the first convolution of the model by the patches of ``count`` pictures, fix its weight, and return it.

    Raises:
        ValueError: there is no convolution.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"whiten: expected a model with a convolution, {name} has none")
    seen = pictures.subset(np.arange(min(count, len(pictures))))
    images, _ = next(Loader(seen, len(seen), **scaling).epoch(0))
    nn.init.whitening_(first.weight, images)
    first.weight.requires_grad_(False)
    return first


def _layers(module: Module) -> Iterator[Module]:
    for child in module.children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _layers(child)
        else:
            yield child


def _weighs(layer: Module) -> bool:
    return any(parameter.ndim > 1 for parameter in layer.parameters())
