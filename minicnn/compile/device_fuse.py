"""Passes over the calls of a program for a GPU, so that a plan has fewer launches and reads less memory.

A pass is a function from calls to calls, and changes none of them. A rule finds calls that a fused kernel
(:mod:`minicnn.backend.reference.fused`) does in one, and of which nothing else looks at what lies between. Fused
kernels do the same arithmetic in the same order, so the results have the bits that they had; but a maximum of zeros
behind relu may have the other sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from minicnn.backend.kernel import Slot, is_float
from minicnn.compile.flow import Flow, Join, joined, memories
from minicnn.compile.program import Call, Program, Value

_POINTWISE = (
    *("add", "subtract", "multiply", "divide", "negative", "exp", "log", "sqrt", "sqrt_grad", "power", "batch_norm"),
    *("relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh"),
    *("relu_grad", "leaky_relu_grad", "elu_grad", "gelu_grad", "sigmoid_grad", "tanh_grad"),
)
_ROWS = {"sgd_step": ("sgd_steps", 4), "adam_step": ("adam_steps", 5)}
_ROWS |= {"clip_norm": ("clip_norms", 1), "lerp_into": ("lerps_into", 2)}
"""By a kernel that edits one array after the other: the one for all of them, and how many arguments each has alone."""
_MOST = 10
"""Steps, and arrays, of a pointwise kernel."""


def fused(program: Program) -> list[Call]:
    """Return calls that do what those of the program do."""
    checked = (call.arguments[0] for call in program.calls if call.kernel == "check_on_replay")
    kept = {*program.outputs, *checked}
    calls = _without_copies(program, kept)
    for rule in (
        _norm_gradient,
        _norm,
        _relu_pool_gradient,
        _relu_pool,
        _product,
        _product_gradient,
        _mean,
        _chain,
        _rows,
    ):
        calls = joined(calls, kept, rule)
    return _without_unread(calls, kept)


def title(call: Call) -> str:
    """Return the name of a call's kernel, with those of the kernels that it joins."""
    if call.kernel == "pointwise":
        return f"pointwise({', '.join(name for name, _ in call.arguments[1])})"
    if call.kernel in ("batch_norm_train", "batch_norm_train_grad") and call.arguments[-1] is not None:
        return f"{call.kernel}({call.arguments[-1][0]})"
    return call.kernel


def _norm_gradient(flow: Flow, i: int) -> Join | None:
    """The gradient of an activation, and that of the batch norm before it, which makes the activation's input anew."""
    call = flow.calls[i]
    if call.kernel != "batch_norm_grad" or not call.arguments[-1]:
        return None
    gy, *normalised = call.arguments[:-1]  # x, mean, inverse_std, weight
    place = flow.maker(gy, "relu_grad", "gelu_grad")
    if place is None or not flow.is_inner(gy):
        return None
    g, seen, *form = flow.calls[place].arguments
    activation = flow.maker(seen, "relu")
    if flow.calls[place].kernel == "relu_grad":
        seen = None if activation is None else flow.calls[activation].arguments[0]
    norm = flow.maker(seen, "batch_norm")
    if norm is None or any(a is not b for a, b in zip(normalised, flow.calls[norm].arguments[:4], strict=True)):
        return None
    bias = flow.calls[norm].arguments[4]
    if not all(flow.stays(value, norm, i) for value in (*normalised, bias)):
        return None
    name = (flow.calls[place].kernel.removesuffix("_grad"), *form)
    return (place, i), "batch_norm_train_grad", (g, *normalised, bias, name), call.outputs


def _norm(flow: Flow, i: int) -> Join | None:
    """Batch norm in training: statistics of the batch and running ones, and what comes behind it."""
    call = flow.calls[i]
    if call.kernel != "batch_norm":
        return None
    x, mean, inverse_std, weight, bias = call.arguments
    power = flow.maker(inverse_std, "power")
    shifted = None if power is None else flow.maker(flow.calls[power].arguments[0], "add")
    if power is None or shifted is None or flow.calls[power].arguments[1] != -0.5:
        return None
    variance, eps = flow.calls[shifted].arguments
    statistics = flow.maker(mean, "batch_norm_statistics")
    if statistics is None or isinstance(eps, Value) or not flow.is_inner(flow.calls[shifted].outputs[0]):
        return None
    if flow.calls[statistics].arguments[0] is not x or flow.calls[statistics].outputs[1] is not variance:
        return None
    places, running = [statistics, shifted, power, i], (None, None, 0.0, 1.0)
    others = [place for place in flow.readers(variance) if place != shifted]
    if others:
        found = _running(flow, mean, others)
        if found is None:
            return None
        places, running = [*places, *found[0]], found[1]
    y, residual, activation = call.outputs[0], None, None
    sum_ = flow.reader(y, "add")
    if sum_ is not None:
        a, b = flow.calls[sum_].arguments
        other = b if a is y else a
        if isinstance(other, Value) and other.shape == y.shape and other.dtype == y.dtype:
            places, residual, y = [*places, sum_], other, flow.calls[sum_].outputs[0]
    last = flow.reader(y, "relu", "gelu")
    if last is not None:
        end = flow.calls[last]
        places, activation, y = [*places, last], (end.kernel, *end.arguments[1:]), end.outputs[0]
    arguments = (x, *running, weight, bias, eps, residual, activation)
    return places, "batch_norm_train", arguments, (y, mean, inverse_std)


def _running(flow: Flow, mean: Value, others: Sequence[int]) -> tuple[list[int], tuple[Any, ...]] | None:
    """Return where running statistics are moved, and these, the share and the correction of the variance."""
    if len(others) != 1 or flow.calls[others[0]].kernel != "multiply":
        return None
    scaled = flow.calls[others[0]]
    moved = flow.reader(scaled.outputs[0], "lerp_into")
    means = [
        j for j in flow.readers(mean) if flow.calls[j].kernel == "lerp_into" and flow.calls[j].arguments[1] is mean
    ]
    if moved is None or len(means) != 1 or isinstance(scaled.arguments[1], Value):
        return None
    (running_mean, _, share), (running_var, _, same) = (flow.calls[j].arguments for j in (means[0], moved))
    if not _same(share, same):
        return None
    return [*others, means[0], moved], (running_mean, running_var, share, scaled.arguments[1])


def _relu_pool_gradient(flow: Flow, i: int) -> Join | None:
    """The gradients of max-pooling, and of relu before it."""
    call = flow.calls[i]
    if call.kernel != "relu_grad":
        return None
    g, y = call.arguments
    place = flow.maker(g, "max_pool2d_grad")
    if place is None or not flow.is_inner(g) or flow.maker(y, "relu") is None:
        return None
    gy, taps, *options = flow.calls[place].arguments
    pool = flow.maker(taps, "max_pool2d")
    if pool is None or flow.calls[pool].arguments[0] is not y or not flow.stays(flow.calls[pool].outputs[0], pool, i):
        return None
    return (place, i), "relu_max_pool2d_grad", (gy, flow.calls[pool].outputs[0], taps, *options), call.outputs


def _relu_pool(flow: Flow, i: int) -> Join | None:
    """Relu, and max-pooling behind it."""
    call = flow.calls[i]
    place = flow.maker(call.arguments[0], "relu") if call.kernel == "max_pool2d" else None
    if place is None or not flow.is_inner(call.arguments[0]):
        return None
    arguments = (flow.calls[place].arguments[0], *call.arguments[1:])
    return (place, i), "relu_max_pool2d", arguments, call.outputs


def _product(flow: Flow, i: int) -> Join | None:
    """A convolution or a fully connected layer, and relu behind it."""
    call = flow.calls[i]
    place = flow.maker(call.arguments[0], "conv2d", "linear") if call.kernel == "relu" else None
    if place is None or not flow.is_inner(call.arguments[0]):
        return None
    return (place, i), f"{flow.calls[place].kernel}_relu", flow.calls[place].arguments, call.outputs


def _product_gradient(flow: Flow, i: int) -> Join | None:
    """The gradient of such a layer for its input, and that of relu before it."""
    call = flow.calls[i]
    if call.kernel != "relu_grad":
        return None
    g, y = call.arguments
    place = flow.maker(g, "conv2d_grad_input", "linear_grad_input")
    if place is None or not flow.is_inner(g) or y.shape != g.shape or y.dtype != g.dtype:
        return None
    return (place, i), f"{flow.calls[place].kernel}_relu", (*flow.calls[place].arguments, y), call.outputs


def _mean(flow: Flow, i: int) -> Join | None:
    """A sum of all elements, divided by a number."""
    call = flow.calls[i]
    place = flow.maker(call.arguments[0], "sum") if call.kernel == "divide" else None
    if place is None or not flow.is_inner(call.arguments[0]) or not isinstance(call.arguments[1], int | float):
        return None
    a, axis, keepdims = flow.calls[place].arguments
    if len(axis) < len(a.shape) or keepdims or not is_float(a):
        return None
    return (place, i), "mean_of", (a, call.arguments[1]), call.outputs


def _chain(flow: Flow, i: int) -> Join | None:
    """Two elementwise kernels, one of which reads what the other makes; they may be chains already."""
    call = flow.calls[i]
    if not _is_pointwise(call):
        return None
    (result,) = call.outputs
    for value in dict.fromkeys(call.reads()):
        place = flow.maker(value, "pointwise", *_POINTWISE)
        if place is None or not flow.is_inner(value) or not _is_pointwise(flow.calls[place]):
            continue
        if value.shape == result.shape and value.dtype == result.dtype:
            arrays, steps = _chained(flow.calls[place], call, value)
            if max(len(arrays), len(steps)) <= _MOST:
                return (place, i), "pointwise", (arrays, steps), call.outputs
    return None


def _is_pointwise(call: Call) -> bool:
    """Whether a call is elementwise, on floats of one dtype, and all its numbers are known."""
    if call.kernel == "pointwise":
        return True
    if call.kernel not in _POINTWISE or (call.kernel == "power" and not isinstance(call.arguments[1], float)):
        return False
    known = all(isinstance(a, Value | int | float | str | None) for a in call.arguments)
    return known and len({value.dtype for value in call.reads()}) == 1 and is_float(call.reads()[0])


def _steps(call: Call) -> tuple[list[Value], list[tuple[str, tuple[Any, ...]]]]:
    """Return a call as arrays and steps in which the arrays stand themselves, and results as slots behind them."""
    if call.kernel != "pointwise":
        return list(dict.fromkeys(call.reads())), [(call.kernel, call.arguments)]
    arrays, steps = call.arguments
    count = len(arrays)

    def operand(o: Any) -> Any:
        return o if not isinstance(o, Slot) else arrays[o] if o < count else Slot(o - count)

    return arrays, [(name, tuple(map(operand, operands))) for name, operands in steps]


def _chained(first: Call, second: Call, between: Value) -> tuple[list[Value], list[tuple[str, tuple[Any, ...]]]]:
    """Return arrays and steps of two calls as one, the second of which reads ``between``, the result of the first."""
    (before, made), (after, rest) = _steps(first), _steps(second)
    arrays = list(dict.fromkeys([*before, *(value for value in after if value is not between)]))

    def operand(o: Any, done: int) -> Any:
        if isinstance(o, Slot):
            return Slot(o + done + len(arrays))
        if o is between:
            return Slot(len(made) - 1 + len(arrays))
        return Slot(arrays.index(o)) if isinstance(o, Value) else o

    steps = [(name, tuple(operand(o, 0) for o in operands)) for name, operands in made]
    steps += [(name, tuple(operand(o, len(made)) for o in operands)) for name, operands in rest]
    return arrays, steps


def _rows(flow: Flow, i: int) -> Join | None:
    """All calls of a kernel that differ in the arrays that they edit, and nothing else."""
    call = flow.calls[i]
    if call.kernel not in _ROWS:
        return None
    kernel, alone = _ROWS[call.kernel]
    places = [j for j in range(i, len(flow.calls)) if _is_row_as(call, flow.calls[j], alone)]
    rows = [flow.calls[j] for j in places]
    touched = Counter(memory for row in rows for memory in memories(row.reads()))
    shared = memories([value for value in call.arguments[alone:] if isinstance(value, Value)])
    edited = {memory for row in rows for memory in memories(row.writes())}
    if len(rows) < 2 or any(touched[memory] > 1 for memory in edited) or edited & shared:
        return None
    columns = [list(column) for column in zip(*(row.arguments[:alone] for row in rows), strict=True)]
    return places, kernel, (*columns, *call.arguments[alone:]), ()


def _is_row_as(one: Call, other: Call, alone: int) -> bool:
    """Whether two calls differ in their first arguments only, and work on arrays of one dtype, all of a row alike."""
    if other.kernel != one.kernel or not all(map(_same, one.arguments[alone:], other.arguments[alone:])):
        return False
    if any((a is None) is not (b is None) for a, b in zip(one.arguments, other.arguments, strict=True)):
        return False
    first, *values = (a for a in other.arguments[:alone] if isinstance(a, Value))
    return first.dtype == one.arguments[0].dtype and all(
        value.shape == first.shape and value.dtype == first.dtype for value in values
    )


def _same(a: Any, b: Any) -> bool:
    """Whether two arguments are one object, or equal numbers."""
    return a is b or (isinstance(a, int | float | str) and type(a) is type(b) and a == b)


def _without_copies(program: Program, kept: Collection[Value]) -> list[Call]:
    """Return the calls without copies that nobody edits, of what nobody edits, and views that show the same.

    What is rounded for several readers is rounded once, unless it is edited.
    """
    edited = {memory for call in program.calls for memory in memories(call.writes())}
    instead: dict[Value, Value] = {}
    rounded: dict[tuple[str, Value], Value] = {}
    left: list[Call] = []
    for call in program.calls:
        call = replace(call, arguments=tuple(_replaced(argument, instead) for argument in call.arguments))
        if call.kernel in ("bfloat16", "tf32") and call.arguments[0].memory not in edited:
            first = rounded.setdefault((call.kernel, call.arguments[0]), call.outputs[0])
            if first is not call.outputs[0] and call.outputs[0] not in kept:
                instead[call.outputs[0]] = first
                continue
        if not _is_needless(call, edited, program):
            left.append(call)
            continue
        (x, *_), (y,) = call.arguments, call.outputs
        if y in kept and y is not x:
            left.append(call)
        else:
            instead[y] = x
    return left


def _is_needless(call: Call, edited: Collection[int], program: Program) -> bool:
    """Whether the argument of a call may stand for its result."""
    if call.kernel in ("reshape", "sum_to", "broadcast_to"):
        return bool(call.arguments[0].shape == call.outputs[0].shape)
    if call.kernel != "copy":
        return False
    x, y = call.arguments[0], call.outputs[0]
    return _is_contiguous(x, program) and x.memory not in edited and y.memory not in edited


def _is_contiguous(value: Value, program: Program) -> bool:
    """Whether a Value is known to be in C order on the device."""
    while value.call is not None and value.call.kernel == "reshape":
        value = value.call.arguments[0]
    if value.call is not None:
        return not value.call.facts.view
    return value in program.inputs or bool(value.array.flags.c_contiguous)


def _replaced(argument: Any, instead: dict[Value, Value]) -> Any:
    if isinstance(argument, list | tuple):
        return type(argument)(_replaced(a, instead) for a in argument)
    return instead.get(argument, argument) if isinstance(argument, Value) else argument


def _without_unread(calls: Sequence[Call], kept: Collection[Value]) -> list[Call]:
    """Return the calls without those of whose results nothing is read."""
    left: list[Call] = []
    wanted = set(kept)
    for call in reversed(calls):
        if not call.outputs or call.facts.writes or not wanted.isdisjoint(call.outputs):
            left.append(call)
            wanted.update(call.reads())
    return left[::-1]
