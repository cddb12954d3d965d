"""What a model is made of: layers, output shapes, parameters and multiply-accumulates."""

import math
from collections.abc import Sequence

from minicnn.nn import Conv2d, Linear, Module, init
from minicnn.nn.module import evaluating
from minicnn.tensor import Tensor


def summary(model: Module, input_shape: Sequence[int]) -> str:
    """Print and return a table of the layers that a picture passes.

    Args:
        input_shape: of one input without the batch, as (3, 32, 32).
    """
    rows: list[tuple[str, str, tuple[int, ...], int, int]] = []
    names = {id(module): name for name, module in model.named_modules()}

    def note(module: Module, output: Tensor) -> None:
        parameters = sum(p.numel() for p in module.parameters())
        rows.append((names[id(module)], type(module).__name__, output.shape[1:], parameters, _macs(module, output)))

    leaves = dict.fromkeys(module for module in model.modules() if not any(True for _ in module.children()))
    ends = [leaf.register_forward_hook(note) for leaf in leaves]
    like: Tensor = next(model.parameters(), init.empty())
    try:
        with evaluating(model):
            output = model(Tensor(like.backend.xp.zeros((1, *input_shape), dtype=like.dtype)))
    finally:
        for end in ends:
            end()

    parameters = sum(p.numel() for p in model.parameters())
    macs = sum(row[4] for row in rows)
    cells = [("layer", "type", "output shape", "parameters", "MACs")]
    cells += [(name or "-", kind, str(shape), f"{count:,}", f"{work:,}") for name, kind, shape, count, work in rows]
    cells.append(("total", type(model).__name__, str(output.shape[1:]), f"{parameters:,}", f"{macs:,}"))
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    lines = []
    for row in cells:
        aligned = (c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(aligned))
    rule = "-" * len(lines[0])
    text = "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
    print(text)
    return text


def _macs(module: Module, output: Tensor) -> int:
    """Multiply-accumulates of one input; only convolutions and linear layers are counted."""
    if isinstance(module, Conv2d):
        return math.prod(output.shape[1:]) * math.prod(module.weight.shape[1:])
    if isinstance(module, Linear):
        return math.prod(output.shape[1:]) * module.in_features
    return 0
