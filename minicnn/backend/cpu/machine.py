"""The machine that runs a plan: a list of block operations, interpreted by compiled code.

Each thread takes parts of the batch, and each block of LANES images of a part through the whole program (see
:mod:`minicnn.backend.cpu.instruction`), so that what lives inside a block stays in the thread's caches; the threads
meet once, at the end. A part is a fixed set of blocks, and each has its own sums over images, so the bits do not depend
on the number of threads. Where the whole batch is one block, the threads share its instructions instead
(:mod:`minicnn.backend.cpu.tickets`).

What an instruction may take beside its operands: ``memory``, float32; ``table``, int64, lists of offsets; ``images``
and ``labels``, what the plan was fed; ``count``, the images; of this block its number ``block``, its ``first`` image
and the number ``images_in_block``; the ``part`` that it belongs to, and ``accumulate``, whether the part has begun its
sums.
"""

import ctypes
import textwrap
from functools import cache
from math import prod

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.backend.cpu import (  # which declare the instructions
    blocks,
    channels,
    filters,
    pointwise,
    winograd,
    winograd_rows,
)
from minicnn.backend.cpu.amx import HAS_MATRICES, REGISTER, SIDE, STEPS, has_amx
from minicnn.backend.cpu.elementwise import sgd_step_flat
from minicnn.backend.cpu.geometry import (
    ONE,
    Window,
    reach,
    sweeps,
    tile_for,
    tile_for_matrix,
    tiles_for_channels,
    up,
)
from minicnn.backend.cpu.instruction import INSTRUCTIONS, WIDTH, View, after, calls, disassembled, row
from minicnn.backend.cpu.jit import HAS_BFLOAT16, LANES, helper, require_bfloat16
from minicnn.backend.cpu.objects import c_function, pointer_to
from minicnn.backend.cpu.packing import is_depthwise, pack, packed_size, runs, steps
from minicnn.backend.cpu.threads import NUMBER
from minicnn.backend.cpu.tickets import APART, done, next_ticket, wait  # noqa: F401  # _SOURCE calls them
from minicnn.backend.cpu.tile import CHANNEL_TILES, DEPTHWISE, TILES
from minicnn.backend.cpu.winograd import APART as POINTS_APART
from minicnn.backend.cpu.winograd_rows import OUTPUTS as ROW_OUTPUTS
from minicnn.backend.cpu.winograd_rows import POINTS as ROW_POINTS

_PLAIN = tuple(INSTRUCTIONS)
from minicnn.backend.cpu import tokens  # noqa: E402, F401  # which declares some more

if HAS_BFLOAT16:
    from minicnn.backend.cpu import pairs  # noqa: F401
if HAS_BFLOAT16 and HAS_MATRICES:
    from minicnn.backend.cpu import registers  # noqa: F401  # as this: LLVM knows its code for such processors alone

__all__ = [
    "CHANNEL_TILES", "DEPTHWISE", "FILTERS", "FILTER_WORK", "INSTRUCTIONS", "LANES", "ONE", "PARTS", "POINTS_APART",
    "REGISTER", "ROW_OUTPUTS", "ROW_POINTS", "SIDE", "STEPS", "TILES", "WIDTH", "Context", "Window", "after",
    "amx_gathered", "amx_weight", "blocks", "channels", "disassembled", "filter_gradient", "filter_operands",
    "filter_points", "filters", "has_amx", "is_depthwise", "pack",
    "packed_size", "pointwise", "reach", "require_bfloat16", "row", "runs", "sgd_steps", "steps", "sums", "sweeps",
    "tile_for", "tile_for_matrix", "tiles_for_channels", "up",
]  # fmt: skip

PARTS = 8
"""Into how many parts a batch is divided, where there are as many blocks."""
ROWS = 4
"""How many rows of filters a thread transforms at a time."""
FILTER_WORK = filters.WORK
"""Floats of scratch that a transform of filters needs."""
FILTERS = {len(matrix): np.ascontiguousarray(matrix) for matrix in (*winograd.FILTERS, winograd_rows.FILTER)}
"""The transforms of filters, (points, taps), by the number of points."""


_number_of_threads = types.ExternalFunction(NUMBER, types.intp())
_floats, _integers = pointer_to(types.float32), pointer_to(types.int64)


@intrinsic
def _now(typing):
    """Return the processor's counter of ticks, which runs at one rate."""

    def codegen(target, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(64), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

    return types.int64(), codegen


@intrinsic
def _invoke(typing, address, program, length, context, count, part, parts, thread, ticks, tickets):
    """Call the function at ``address`` with the nine integers."""

    def codegen(target, builder, signature, arguments):
        integer = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [integer] * 9)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return target.get_dummy_value()

    return types.void(address, program, length, context, count, part, parts, thread, ticks, tickets), codegen


class Context:
    """What the programs of a plan work on: addresses and sizes, where compiled code finds them."""

    def __init__(self, memory, room, table, numbers, images, labels):
        """Take what stays where it is.

        memory: float32, with ``room`` for each thread at its end; table: int64; numbers: float32; images, labels: the
        shapes (N, C, H, W) and (N,) of what is fed, None for none.
        """
        arrays = self._arrays = (memory, table, numbers)  # an address keeps nothing alive
        addresses = [n for array in arrays for n in (array.ctypes.data, array.size)]
        self._entries = np.array([*addresses, 0, *(labels or (0,)), room, 0, prod(images or (0,))], dtype=np.int64)
        self._labels, self._images = self._entries[6:7], self._entries[9:10]  # where their addresses stand

    def label(self, labels):
        """Take these from now on, int64 (N,) and contiguous; the caller keeps them alive."""
        self._labels[0] = labels.ctypes.data

    def feed(self, images):
        """Take these from now on, float32 (N, C, H, W) and contiguous; the caller keeps them alive."""
        self._images[0] = images.ctypes.data

    def runner(self, program, count, ticks=0, shared=False, alone=False):
        """Return what runs ``program``, int64 (instructions, WIDTH), over ``count`` images.

        ticks: int64 (PARTS, instructions), to which each thread adds the ticks that each instruction takes, or 0;
        shared: whether all images are one block, whose instructions the threads share; alone: whether one thread does
        them all.
        """
        launch, parts = c_function(_launch, parallel=True), PARTS if shared else min(-(-count // LANES), PARTS)
        parts = 1 if alone else parts
        tickets = np.zeros(2 * APART, dtype=np.int64) if shared else 0
        interpreter = _interpreter(bool((program[:, 0] >= len(_PLAIN)).any()))
        return _bound(launch, interpreter, program, program.shape[0], self._entries, count, parts, ticks, tickets)


def sgd_steps(addresses, sizes, numbers, nesterov):
    """Return what takes the steps of several parameters, float32.

    addresses: int64 (n, 3), where parameter, gradient and velocity (0: none) begin; sizes: int64 (n,), their elements;
    numbers: float32 (n, 5), whether it is the first step, lr, momentum, 1 - dampening, weight decay; nesterov: bool.
    """
    return _bound(c_function(_steps_of_sgd), addresses, sizes, numbers, sizes.size, nesterov)


def filter_points(matrix, weight, out, adjoint):
    """Return what transforms filters: out[p] = matrix[p] weight, over the taps, the last axis of both.

    matrix: float32 (points, taps); weight: contiguous, (O, C, taps); out: contiguous, (points, O, C), or, ``adjoint``,
    (points, C, O) of the filters turned by 180 degrees.
    """
    operands = filter_operands(matrix, weight.shape, adjoint)
    operands |= {"plane": out[0].size, "matrix": matrix, "weight": weight, "y": out}
    operands["at_once"] = ROWS
    return _rows_of(filter_points.__name__, ROWS, operands, {"weight": operands["row"], "y": operands["columns"]})


def filter_operands(matrix, shape, adjoint, rounded=False):
    """Return operands of :func:`minicnn.backend.cpu.filters.filter_points`, for a weight (O, C, taps) of ``shape``."""
    points, taps = matrix.shape
    outputs, inputs, _ = shape
    rows, columns, row, column = outputs, inputs, inputs * taps, taps
    if adjoint:
        rows, columns, row, column = inputs, outputs, taps, inputs * taps
    return {
        "row": row, "column": column, "columns": columns, "rows": rows, "turned": int(adjoint),
        "rounded": int(rounded), "points": points, "taps": taps,
    }  # fmt: skip


def filter_gradient(matrix, sums, outputs, out):
    """Return what transforms back: out = matrix^T sums, added up over the parts.

    sums: contiguous, (parts, points, rows, C) with at least ``outputs`` rows; out: contiguous, (O, C, taps).
    """
    parts, points, rows, columns = sums.shape
    operands = {
        "parts": parts, "part": points * rows * columns, "plane": rows * columns, "columns": columns, "rows": outputs,
        "matrix": matrix, "points": points, "taps": matrix.shape[1], "sums": sums, "y": out, "at_once": ROWS,
    }  # fmt: skip
    return _rows_of(filter_gradient.__name__, ROWS, operands, {"sums": columns, "y": columns * matrix.shape[1]})


def amx_weight(weight, out, adjoint):
    """Return what writes a weight (O, C, taps), contiguous, as :func:`minicnn.backend.cpu.registers.amx_weight`.

    out: contiguous, (rows / SIDE, columns / STEPS, taps, REGISTER), both rounded up; rows and columns of the weight are
    its first and second axis, or, ``adjoint``, the second and first.
    """
    outputs, inputs, taps = weight.shape
    (rows, row), (columns, column) = (outputs, inputs * taps), (inputs, taps)
    if adjoint:
        rows, row, columns, column = columns, column, rows, row
    operands = {
        "row": row, "column": column, "columns": columns, "rows": rows, "taps": taps, "weight": weight, "y": out,
    }  # fmt: skip
    return _rows_of("amx_weight", SIDE, operands, {"weight": row, "y": out[0].size // SIDE})


def amx_gathered(sums, out):
    """Return what adds up the gradients for a weight (O, C, taps) in parts: out, contiguous.

    sums: contiguous, (parts, O rounded up to SIDE, columns) as :func:`minicnn.backend.cpu.registers.amx_gradient`.
    """
    rows, columns, taps = out.shape
    operands = {
        "parts": sums.shape[0], "part": sums[0].size, "row": sums.shape[2], "columns": columns, "rows": rows,
        "taps": taps, "sums": sums, "y": out, "at_once": SIDE,
    }  # fmt: skip
    return _rows_of("amx_gathered", SIDE, operands, {"sums": sums.shape[2], "y": columns * taps})


def _rows_of(name, at_once, operands, distances):
    """Return a program of one instruction, for ``at_once`` rows of filters; arrays are outside of its memory.

    distances: of the operands that move with the rows, how far a row is from the next.
    """
    words = {n: (-(v.ctypes.data // 4) if isinstance(v, np.ndarray) else v,) for n, v in operands.items()}
    words |= {name: (*words[name], at_once * distance) for name, distance in distances.items()}
    program = np.array([row(name, work=(0, -1), **words)], dtype=np.int64)
    memory = np.zeros(PARTS * filters.WORK, dtype=np.float32)
    context = Context(memory, filters.WORK, np.zeros(1, np.int64), np.zeros(1, np.float32), None, None)
    run = context.runner(program, up(operands["rows"], at_once) // at_once * LANES)
    return lambda kept=(context, operands): run()


def sums(pairs):
    """Return what adds up the rows of arrays; pairs: float32 (rows, n) and the result, contiguous, of n elements."""
    rows = [(a.ctypes.data, a.shape[0], a.shape[1], out.ctypes.data) for a, out in pairs]
    return _bound(c_function(_sums), np.array(rows, dtype=np.int64), len(rows))


def _bound(function, *arguments):
    """Return a call of compiled code: arrays are passed by their addresses, and kept."""
    integers = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    return lambda kept=arguments: function(*integers)


def _sums(rows, count):
    table = carray(_integers(rows), (count, 4))
    for i in range(count):
        source, parts, size, to = table[i]
        values, result = carray(_floats(source), (parts, size)), carray(_floats(to), size)
        for j in range(size):
            result[j] = values[0, j]
        for part in range(1, parts):
            for j in range(size):
                result[j] += values[part, j]


def _steps_of_sgd(addresses, sizes, numbers, count, nesterov):
    places, lengths = carray(_integers(addresses), (count, 3)), carray(_integers(sizes), count)
    options = carray(_floats(numbers), (count, 5))
    for i in range(count):
        w, gradient, velocity = places[i]
        first, lr, momentum, share, weight_decay = options[i]
        state = velocity if velocity else w  # without momentum it is only an argument of the right type
        sgd_step_flat(
            carray(_floats(w), lengths[i]), carray(_floats(gradient), lengths[i]), carray(_floats(state), lengths[i]),
            velocity != 0, first != 0, lr, momentum, share, weight_decay, nesterov != 0,
        )  # fmt: skip


def _launch(interpreter, program, length, context, count, parts, ticks, tickets):
    threads = min(parts, _number_of_threads())
    if tickets:
        counters = carray(_integers(tickets), 2 * APART)
        counters[0] = counters[APART] = 0
        parts = threads
    if threads == 1:  # the team is not woken, and nobody waits for it
        for part in range(parts):
            _invoke(interpreter, program, length, context, count, part, parts, 0, ticks, tickets)
        return
    for thread in numba.prange(threads):
        for part in range(thread, parts, threads):
            _invoke(interpreter, program, length, context, count, part, parts, thread, ticks, tickets)


@cache
def _interpreter(whole):
    """Address of an interpreter as machine code: called by the launcher, not linked, it is compiled only once.

    whole: whether it has the instructions for bfloat16 and for tokens too, which others need not wait for.
    """
    return ctypes.cast(c_function(_interpret_all if whole else _interpret), ctypes.c_void_p).value


@helper
def inside(at, origin):
    """Return an address of a row as an index into the memory, which begins at ``origin``."""
    return at if at >= 0 else -at - origin


_SOURCE = """
def {name}(program, length, context, count, part, parts, thread, ticks, tickets):
    entries = carray(_integers(context), 11)
    rows, table = carray(_integers(program), (length, WIDTH)), carray(_integers(entries[2]), entries[3])
    memory, numbers = carray(_floats(entries[0]), entries[1]), carray(_floats(entries[4]), entries[5])
    labels, scratch = carray(_integers(entries[6]), entries[7]), thread * entries[8]
    images, origin = carray(_floats(entries[9]), entries[10]), entries[0] // 4
    times = carray(_integers(ticks), (PARTS, length))
    block, blocks, i = part, (count + LANES - 1) // LANES, -1
    while True:
        if tickets:
            block, i = 0, next_ticket(tickets)
            if i >= length:
                break
            wait(tickets, rows[i, 1])
        else:
            i += 1
            if i == length:
                block, i = block + parts, 0
            if block >= blocks:
                break
        first, accumulate = block * LANES, block >= parts
        images_in_block = count if tickets else min(LANES, count - first)
        start = _now() if ticks else 0
        r = rows[i]
        code = r[0]
        a = inside(r[2], origin) + (scratch if r[3] < 0 else block * r[3])
        b = inside(r[4], origin) + (scratch if r[5] < 0 else block * r[5])
        c = inside(r[6], origin) + (scratch if r[7] < 0 else block * r[7])
        d = inside(r[8], origin) + (scratch if r[9] < 0 else block * r[9])
        e = inside(r[10], origin) + (scratch if r[11] < 0 else block * r[11])
{calls}
        if ticks:
            times[thread, i] += _now() - start
        if tickets:
            done(tickets)
"""


def _interpreter_of(name, names):
    """Return an interpreter, which runs a program of these instructions over the blocks of a part."""
    functions = {name: INSTRUCTIONS[name].function for name in names}
    source = _SOURCE.format(name=name, calls=textwrap.indent(calls(names), " " * 8))
    scope = globals() | {"View": View} | functions
    exec(compile(source, __file__, "exec"), scope)
    return scope[name]


_interpret, _interpret_all = _interpreter_of("_interpret", _PLAIN), _interpreter_of("_interpret_all", INSTRUCTIONS)
