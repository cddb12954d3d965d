"""Models by name."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from minicnn.models.lenet import LeNet
from minicnn.models.resnet import resnet18, resnet20, resnet32, resnet34, resnet50, resnet56
from minicnn.models.speednet import SpeedNet
from minicnn.models.vgg import VGG
from minicnn.models.vit import ViT
from minicnn.nn import Module
from minicnn.text import brief

__all__ = [
    "VGG",
    "LeNet",
    "SpeedNet",
    "ViT",
    "create",
    "factory",
    "names",
    "options_for",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet50",
    "resnet56",
]  # fmt: skip

_MODELS: dict[str, Callable[..., Module]] = {
    "lenet": LeNet,
    "vgg": VGG,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet56": resnet56,
    "speednet": SpeedNet,
    "vit": ViT,
}


def names() -> tuple[str, ...]:
    """Return the names that :func:`create` knows.

    Example:
        >>> models.names()[:3]
        ('lenet', 'vgg', 'resnet18')
    """
    return tuple(_MODELS)


def factory(name: str) -> Callable[..., Module]:
    """Return the function or class that makes a model, to ask for its signature and docstring.

    Example:
        >>> models.factory("lenet") is models.LeNet
        True
    """
    return _MODELS[name]


def create(name: str, /, num_classes: int = 10, **options: Any) -> Module:
    """Make a model with fresh weights.

    Args:
        name: one of :func:`names`.
        num_classes: number of logits.
        options: the other arguments of the model.

    Raises:
        ValueError: an unknown name or option, or fewer than one class.

    Example:
        >>> models.create("lenet", num_classes=3).fc3
        Linear(84, 3)
    """
    if name not in _MODELS:
        close = get_close_matches(name, _MODELS, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"model: expected one of {', '.join(_MODELS)}, received {brief(name)}{hint}")
    if num_classes < 1:
        raise ValueError(f"model {name}: expected num_classes from 1, received {num_classes}")
    try:
        return _MODELS[name](num_classes=num_classes, **options)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"model {name}: {error}") from error


def options_for(name: str, image_size: int, in_channels: int) -> dict[str, int]:
    """Return those options, for pictures of this size, that a model has and that are not at their defaults.

    Example:
        >>> models.options_for("lenet", 32, 3)
        {}
    """
    wanted = {"image_size": image_size, "in_channels": in_channels}
    takes = inspect.signature(_MODELS[name]).parameters
    return {option: value for option, value in wanted.items() if option in takes and takes[option].default != value}
