"""What a model is made of: layers, output shapes, parameters and multiply-accumulates."""

import math
from collections.abc import Callable, Iterator, Sequence

from minicnn.nn import Conv2d, Linear, Module, MultiheadAttention, init
from minicnn.nn.module import detached
from minicnn.tensor import Tensor
from minicnn.text import aligned


def summary(model: Module, input_shape: Sequence[int]) -> str:
    """Print and return a table of the layers that a picture passes.

    Args:
        model: made of layers of :mod:`minicnn.nn`.
        input_shape: of one input without the batch, as (3, 32, 32).

    Example:
        >>> _ = minicnn.summary(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (3,))
        layer  type        output shape  parameters  MACs
        -------------------------------------------------
        0      Linear      (2,)                   8     6
        1      ReLU        (2,)                   0     0
        -------------------------------------------------
        total  Sequential  (2,)                   8     6
    """
    rows: list[tuple[str, str, tuple[int, ...], int, int]] = []
    model = detached(model)
    names = {id(module): name for name, module in model.named_modules()}

    def note(module: Module, output: Tensor) -> None:
        parameters = sum(p.numel() for p in module.parameters())
        rows.append((names[id(module)], type(module).__name__, output.shape[1:], parameters, _macs(module, output)))

    output = _pass(model, input_shape, note)
    parameters = sum(p.numel() for p in model.parameters())
    work = sum(row[4] for row in rows)
    cells = [("layer", "type", "output shape", "parameters", "MACs")]
    cells += [(name or "-", kind, str(shape), f"{count:,}", f"{each:,}") for name, kind, shape, count, each in rows]
    cells.append(("total", type(model).__name__, str(output.shape[1:]), f"{parameters:,}", f"{work:,}"))
    lines = aligned(cells, (3, 4))
    rule = "-" * len(lines[0])
    text = "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
    print(text)
    return text


def macs(model: Module, input_shape: Sequence[int]) -> int:
    """Return the multiply-accumulates of one input of ``input_shape``, without the batch."""
    counts: list[int] = []
    _pass(detached(model), input_shape, lambda module, output: counts.append(_macs(module, output)))
    return sum(counts)


def _pass(model: Module, input_shape: Sequence[int], note: Callable[[Module, Tensor], None]) -> Tensor:
    """Run one input of zeros through a detached model, and call ``note`` with each layer and its output."""
    for layer in dict.fromkeys(_layers(model)):
        layer.register_forward_hook(lambda module, output: note(module, _first(output)))
    like: Tensor = next(model.parameters(), init.empty())
    return model(Tensor(like.backend.xp.zeros((1, *input_shape), dtype=like.dtype)))


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the output of a layer; attention also returns its weights."""
    return output[0] if isinstance(output, tuple) else output


def _layers(module: Module) -> Iterator[Module]:
    """Yield the modules that make a row each: attention, and what holds no others."""
    children = () if isinstance(module, MultiheadAttention) else tuple(module.children())
    for child in children:
        yield from _layers(child)
    if not children:
        yield module


def _macs(module: Module, output: Tensor) -> int:
    """Return the multiply-accumulates of one input; only convolutions, linear layers and self-attention count."""
    if isinstance(module, Conv2d):
        return math.prod(output.shape[1:]) * math.prod(module.weight.shape[1:])
    if isinstance(module, Linear):
        return math.prod(output.shape[1:]) * module.in_features
    if isinstance(module, MultiheadAttention):  # four projections, q k^T and its product with v
        length, channels = output.shape[1 if module.batch_first else 0], output.shape[2]
        return 4 * length * channels**2 + 2 * length**2 * channels
    return 0
