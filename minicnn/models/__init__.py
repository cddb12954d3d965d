"""Models by name: those of the package, those that a program registers, and functions of a module of the user's own."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minicnn.models.lenet import LeNet
from minicnn.models.resnet import resnet18, resnet20, resnet32, resnet34, resnet50, resnet56
from minicnn.models.speednet import SpeedNet
from minicnn.models.vgg import VGG
from minicnn.models.vit import ViT
from minicnn.nn import Module
from minicnn.text import brief, nearest

__all__ = [
    "VGG",
    "LeNet",
    "SpeedNet",
    "ViT",
    "create",
    "factory",
    "find",
    "is_own",
    "names",
    "options_for",
    "register",
    "require",
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
_PACKAGE = frozenset(_MODELS)


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


def register(name: str, factory: Callable[..., Module]) -> None:
    """Let :func:`create`, the commands and files of weights know a model by this name.

    Args:
        name: any but those of the package; a later call replaces an earlier one's.
        factory: called with ``num_classes``, and with ``image_size`` and ``in_channels`` where its signature has them
            (see :func:`options_for`); returns a Module.

    Raises:
        ValueError: the name is empty, or that of a model of the package.
        TypeError: ``factory`` is no function or class.

    Example:
        >>> models.register("linear", lambda num_classes: nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes)))
        >>> models.create("linear", num_classes=2)[1]
        Linear(3072, 2)
    """
    if not isinstance(name, str) or not name.strip() or name in _PACKAGE:
        raise ValueError(f"register: expected a name that no model of the package has, received {brief(name)}")
    if not callable(factory) or isinstance(factory, Module):
        raise TypeError(f"register: expected a function that makes a model {name}, received {type(factory).__name__}")
    _MODELS[name] = factory


def is_own(name: str) -> bool:
    """Return whether a name is none of the package's models, so that nothing is known of what it makes.

    Example:
        >>> models.is_own("lenet"), models.is_own("my_network:Net")
        (False, True)
    """
    return name not in _PACKAGE


def find(name: str) -> None:
    """Import and register the function of a name of the form module:function, unless the name is registered.

    The module is looked for in the current folder, then where Python looks. Importing runs it: call this with what the
    user of the process named, never with what a file says.

    Raises:
        ValueError: no such module or function, or an error when the module was imported.

    Example:
        >>> models.find("minicnn.models.lenet:LeNet")
        >>> models.create("minicnn.models.lenet:LeNet", num_classes=3).fc3
        Linear(84, 3)
    """
    if name in _MODELS or ":" not in name:
        return
    module_name, _, function = name.partition(":")
    if not function.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f"model: expected MODULE:FUNCTION as my_network:Net, received {brief(name)}")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as python -m does; it stays, for what the module imports later
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"model {name}: cannot import {module_name}: {error}") from error
        raise ValueError(
            f"model {name}: no module {error.name} in {here} or on the path of Python; "
            "run in its folder, or add that to PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"model {name}: cannot import {module_name}: {type(error).__name__}: {error}") from error
    if not hasattr(module, function):
        own = [word for word, value in vars(module).items() if callable(value) and word[0] != "_"]
        where = getattr(module, "__file__", None) or "built into Python"  # a module of Python may have the name too
        raise ValueError(f"model {name}: {module_name} has no {function}{nearest(function, own)} ({where})")
    if not callable(getattr(module, function)):
        kind = type(getattr(module, function)).__name__
        raise ValueError(f"model {name}: expected a function or a class that makes a model, received {brief(kind)}")
    register(name, getattr(module, function))


def require(name: str) -> None:
    """Raise ValueError unless :func:`create` knows a name: nothing is imported for it.

    Example:
        >>> models.require("lenet")
    """
    if name in _MODELS:
        return
    if ":" in name:
        raise ValueError(
            f"model: {brief(name)} is code outside of minicnn, which nobody has named in this process; "
            "if you trust it, name it by --model, or by minicnn.models.find"
        )
    raise ValueError(f"model: expected one of {', '.join(_MODELS)}, received {brief(name)}{nearest(name, _MODELS)}")


def create(name: str, /, num_classes: int = 10, **options: Any) -> Module:
    """Make a model with fresh weights.

    Args:
        name: one of :func:`names`.
        num_classes: number of logits.
        options: the other arguments of the model.

    Raises:
        ValueError: an unknown name or option, fewer than one class, or what was registered makes no Module.

    Example:
        >>> models.create("lenet", num_classes=3).fc3
        Linear(84, 3)
    """
    require(name)
    if num_classes < 1:
        raise ValueError(f"model {name}: expected num_classes from 1, received {num_classes}")
    try:
        model = _MODELS[name](num_classes=num_classes, **options)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"model {name}: {error}") from error
    except Exception as error:  # whatever the code of a user raises
        if not is_own(name) or isinstance(error, ValueError):
            raise
        raise ValueError(f"model {name}: {type(error).__name__}: {error}") from error
    if not isinstance(model, Module):
        raise ValueError(f"model {name}: expected a Module from it, received {type(model).__name__}; return one")
    return model


def options_for(name: str, image_size: int, in_channels: int) -> dict[str, int]:
    """Return those options, for pictures of this size, that a model has and that are not at their defaults.

    Example:
        >>> models.options_for("lenet", 32, 3)
        {}
    """
    wanted = {"image_size": image_size, "in_channels": in_channels}
    takes = inspect.signature(factory(name)).parameters
    return {option: value for option, value in wanted.items() if option in takes and takes[option].default != value}
