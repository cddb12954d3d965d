"""minicnn: convolutional networks from scratch, small enough to read and fast enough to use.

The examples in the docstrings take these lines for granted:

    import numpy as np
    import minicnn
    import minicnn.functional as F
    from minicnn import Tensor, models, nn, optim, random, tensor
"""

import importlib
from typing import Any

from minicnn import backend, functional, models, nn, optim, random
from minicnn.autograd import is_grad_enabled, no_grad
from minicnn.backend import set_default as set_default_backend
from minicnn.compile import compile
from minicnn.functional import cat, stack
from minicnn.gradcheck import gradcheck
from minicnn.precision import get_precision, precision
from minicnn.random import manual_seed
from minicnn.summary import summary
from minicnn.tensor import Tensor, tensor

__version__ = "0.1.0"
__all__ = [
    "Tensor", "backend", "cat", "compile", "evaluate", "fit", "functional", "get_precision", "gradcheck",
    "is_grad_enabled", "load", "manual_seed", "models", "nn", "no_grad", "optim", "precision", "predict", "random",
    "save", "set_default_backend", "stack", "summary", "tensor",
]  # fmt: skip

_ON_FIRST_USE = ("data", "plots", "training")  # they import larger libraries
_OF_TRAINING = ("evaluate", "fit", "load", "predict", "save")


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"minicnn.{name}")
    if name in _OF_TRAINING:
        return getattr(importlib.import_module("minicnn.training"), name)
    raise AttributeError(f"module 'minicnn' has no attribute {name!r}")
