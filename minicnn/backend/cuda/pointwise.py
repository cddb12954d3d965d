"""Elementwise kernels as one: their lines, joined. Each array is read once, and the result alone is written."""

from typing import Any

from minicnn.backend.cuda.launch import elementwise
from minicnn.backend.cuda.lines import LINES
from minicnn.backend.kernel import Slot

_ALONG_CHANNELS = {"batch_norm": {1: None, 2: None, 3: 1, 4: 0}}
"""By a kernel, which of its operands are arrays (C,), and the numbers that stand for None."""


def line_of(name, operands):
    """Return the name of a kernel's line for these operands, and those that the line has."""
    if name in ("gelu", "gelu_grad"):
        form = operands[-1]
        return name.replace("gelu", "gelu_tanh") if form == "tanh" else name, operands[:-1]
    return name, operands


def pointwise(arrays, steps):
    parameters: list[str] = []
    given: list[Any] = []
    lines: list[str] = []
    ndim = max(a.ndim for a in arrays)

    def operand(value, along):
        """The name of an operand in CUDA C; arrays and numbers become parameters."""
        if isinstance(value, Slot) and value >= len(arrays):
            return f"v{value - len(arrays)}"
        if isinstance(value, Slot):
            value = arrays[value].reshape(-1, *(1,) * (ndim - 2)) if along else arrays[value]
        for i, known in enumerate(given):
            if known is value:
                return f"p{i}"
        parameters.append(f"T p{len(given)}")
        given.append(value)
        return f"p{len(given) - 1}"

    for i, (name, operands) in enumerate(steps):
        along = _ALONG_CHANNELS.get(name, {})
        name, operands = line_of(name, operands)
        names, line = LINES[name]
        values = (along.get(k) if o is None else o for k, o in enumerate(operands))
        read = [operand(value, k in along) for k, value in enumerate(values)]
        uses = "".join(f"const T {n} = {r}; " for n, r in zip(names.split(), read, strict=True) if n != r)
        lines.append(f"T v{i}; {{ {uses}T out; {line}; v{i} = out; }}")
    operation = " ".join(lines) + f" out = v{len(lines) - 1}"
    name = "_".join(name for name, _ in steps)
    return elementwise(name, ", ".join(parameters), "T out", operation, *given)
