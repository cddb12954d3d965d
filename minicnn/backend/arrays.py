"""Which array library an array belongs to."""

import importlib
import sys
from typing import Any

import numpy as np


def namespace(array: Any) -> Any:
    """Return the module (``numpy`` or ``cupy``) whose array ``array`` is."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def special_functions(array: Any) -> Any:
    """Return the module of special functions for ``array``: SciPy's or CuPy's."""
    return importlib.import_module("scipy.special" if namespace(array) is np else "cupyx.scipy.special")
