"""Which array library an array belongs to."""

import sys
from typing import Any


def namespace(array: Any) -> Any:
    """Return the module (``numpy`` or ``cupy``) whose array ``array`` is."""
    return sys.modules[type(array).__module__.partition(".")[0]]
