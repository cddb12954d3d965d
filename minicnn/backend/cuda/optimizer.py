"""Optimizer steps in CUDA, in place: eagerly a launch a parameter, in plans one for some dozens; and clipping."""

import math

import numpy as np

from minicnn.backend.cuda.launch import BLOCK, apply_in_place, contiguous, cupy, launch
from minicnn.backend.cuda.live import live

_ROWS = 48  # as in optimizer.cu
_PIECE = 4 * BLOCK
_ARRAYS = np.dtype(
    [("at", np.int64, (4, _ROWS)), ("size", np.int64, _ROWS), ("first", np.int32, _ROWS + 1), ("rows", np.int32)]
)
_NUMBERS = np.dtype(
    [
        ("there", np.int64),
        ("rows_there", np.int64),
        ("here", np.float64, 8),
        ("rows_here", np.float64, 2 * _ROWS),
        ("each", np.int64),
    ]
)


def _sgd_numbers(parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov):
    return lr, weight_decay, momentum, 1 - dampening, bool(first)


@live(_sgd_numbers)
def sgd_step(numbers, parameter, gradient, velocity, first, lr, momentum, dampening, weight_decay, nesterov):
    if velocity is None:
        apply_in_place("sgd_step", gradient, *numbers[:2], parameter)
    else:
        apply_in_place("sgd_momentum_step", gradient, *numbers, nesterov, parameter, velocity)


def _adam_numbers(parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    keep, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    return keep, decay, beta1, 1 - beta1, beta2, 1 - beta2, eps, rate, root


@live(_adam_numbers)
def adam_step(numbers, parameter, gradient, mean, square, *_):
    apply_in_place("adam_step", gradient, *numbers, parameter, mean, square)


def _sgd_steps_numbers(parameters, gradients, velocities, firsts, lr, momentum, dampening, weight_decay, nesterov):
    return lr, weight_decay, momentum, 1 - dampening, *map(float, firsts)


@live(_sgd_steps_numbers)
def sgd_steps(numbers, parameters, gradients, velocities, firsts, lr, momentum, dampening, weight_decay, nesterov):
    has_velocity = velocities[0] is not None
    columns = (parameters, gradients, velocities) if has_velocity else (parameters, gradients)
    edited = (0, 2) if has_velocity else (0,)

    _launch_steps("sgd_steps", columns, edited, numbers, 4, int(nesterov))


def _adam_steps_numbers(parameters, gradients, means, squares, steps, lr, beta1, beta2, eps, weight_decay, decoupled):
    rows = [
        _adam_numbers(None, None, None, None, step, lr, beta1, beta2, eps, weight_decay, decoupled) for step in steps
    ]
    return *rows[0][:7], *(number for row in rows for number in row[7:])


@live(_adam_steps_numbers)
def adam_steps(numbers, parameters, gradients, means, squares, *_):
    _launch_steps("adam_steps", (parameters, gradients, means, squares), (0, 2, 3), numbers, 7)


@live(lambda targets, values, weight: (weight,))
def lerps_into(numbers, targets, values, weight):
    _launch_steps("lerps_into", (targets, values), (0,), numbers, 1)


def total_norm(arrays):
    alike = [[a for a in arrays if a.dtype == dtype] for dtype in dict.fromkeys(a.dtype for a in arrays)]
    partials = cupy.empty(sum(-(-a.size // _PIECE) for a in arrays), dtype="float64")
    norm, done = cupy.empty((), dtype="float64"), 0
    for group in alike:
        for table, _ in _tables((group,)):
            count = _blocks(table)
            launch("sums_of_squares", group[0].dtype, count * BLOCK, table, partials[done : done + count])
            done += count
    launch("root_of_sum", "float32", BLOCK, partials, norm, done)
    return norm


def clip_norm(a, norm, limit):
    norm = cupy.asarray(norm, dtype="float64")
    apply_in_place("clip_norm", norm, limit, a)


def clip_norms(arrays, norm, limit):
    norm = cupy.asarray(norm, dtype="float64")
    with contiguous(*arrays) as edited:
        for table, _ in _tables((edited,)):
            launch("clip_norms", arrays[0].dtype, _blocks(table) * BLOCK, table, norm, np.array(limit, np.float64))


def _launch_steps(name, columns, edited, numbers, shared, *rest):
    """Launch a kernel for the rows of arrays in ``columns``, some of which it edits, in tables of _ROWS rows.

    numbers: ``shared`` ones, and behind them as many for each row.
    """
    count, dtype = len(columns[0]), columns[0][0].dtype
    each = (len(numbers) - shared) // count
    with contiguous(*(a for k in edited for a in columns[k])) as arrays:
        given = iter(arrays)
        columns = [[next(given) for _ in column] if k in edited else column for k, column in enumerate(columns)]
        for table, first in _tables(columns):
            rows = numbers[shared + first * each : shared + (first + _ROWS) * each]
            launch(name, dtype, _blocks(table) * BLOCK, table, _numbers(numbers[:shared], rows, each), *rest)


def _tables(columns):
    """Yield a table of the arrays of up to _ROWS rows at a time that are not empty, and the number of its first row."""
    for first in range(0, len(columns[0]), _ROWS):
        table = np.zeros((), _ARRAYS)
        kept = [[cupy.ascontiguousarray(a) for a in column[first : first + _ROWS]] for column in columns]
        for k, column in enumerate(kept):
            table["at"][k, : len(column)] = [a.data.ptr for a in column]
        sizes = [a.size for a in kept[0]]
        table["size"][: len(sizes)], table["rows"] = sizes, len(sizes)
        table["first"][1 : len(sizes) + 1] = np.cumsum([-(-size // _PIECE) for size in sizes])
        yield table, first


def _blocks(table):
    return int(table["first"][table["rows"]])


def _numbers(shared, rows, each):
    numbers = np.zeros((), _NUMBERS)
    numbers["each"] = each
    if isinstance(shared[0], cupy.ndarray):  # all side by side
        numbers["there"] = shared[0].data.ptr
        numbers["rows_there"] = rows[0].data.ptr if rows else 0
    else:
        numbers["here"][: len(shared)], numbers["rows_here"][: len(rows)] = shared, rows
    return numbers
