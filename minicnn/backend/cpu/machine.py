"""The machine that runs a plan: a list of block operations, interpreted by compiled code.

Each thread takes parts of the batch, and each block of LANES images of a part through the whole program (see
:mod:`minicnn.backend.cpu.instruction`), so that what lives inside a block stays in the thread's caches; the threads
meet once, at the end. A part is a fixed set of blocks, and each has its own sums over images, so the bits do not depend
on the number of threads.

What an instruction may take beside its operands: ``memory``, float32; ``table``, int64, lists of offsets; ``images``
and ``labels``, what the plan was fed; ``count``, the images; of this block its number ``block``, its ``first`` image
and the number ``images_in_block``; the ``part`` that it belongs to, and ``accumulate``, whether the part has begun its
sums.
"""

import ctypes
import textwrap
from functools import cache

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.backend.cpu import blocks, pointwise, single, winograd, winograd_rows  # which declare the instructions
from minicnn.backend.cpu.elementwise import sgd_step_flat
from minicnn.backend.cpu.geometry import ONE, Window, sweeps, tile_for, tile_for_matrix, up
from minicnn.backend.cpu.instruction import INSTRUCTIONS, WIDTH, View, calls, disassembled, row
from minicnn.backend.cpu.jit import LANES
from minicnn.backend.cpu.matmul import multiply
from minicnn.backend.cpu.objects import c_function
from minicnn.backend.cpu.threads import NUMBER
from minicnn.backend.cpu.tile import TILES
from minicnn.backend.cpu.winograd_rows import OUTPUTS as ROW_OUTPUTS
from minicnn.backend.cpu.winograd_rows import POINTS as ROW_POINTS

__all__ = [
    "FILTERS", "INSTRUCTIONS", "LANES", "ONE", "PARTS", "ROW_OUTPUTS", "ROW_POINTS", "TILES", "WIDTH", "Context",
    "Window", "blocks", "disassembled", "multiply", "pointwise", "row", "sgd_steps", "single", "sweeps", "tile_for",
    "tile_for_matrix", "up",
]  # fmt: skip

PARTS = 8
"""Into how many parts a batch is divided, where there are as many blocks."""
FILTERS = {len(matrix): matrix for matrix in (*winograd.FILTERS, winograd_rows.FILTER)}
"""The transforms of filters, (points, taps), by the number of points."""


def _pointer_to(kind):
    @intrinsic
    def pointer(typing, address):
        def codegen(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(address), codegen

    return pointer


_number_of_threads = types.ExternalFunction(NUMBER, types.intp())
_floats, _integers = _pointer_to(types.float32), _pointer_to(types.int64)


@intrinsic
def _now(typing):
    """Return the processor's counter of ticks, which runs at one rate."""

    def codegen(target, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(64), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

    return types.int64(), codegen


@intrinsic
def _invoke(typing, address, program, length, context, count, part, parts, thread, ticks):
    """Call the function at ``address`` with the eight integers."""

    def codegen(target, builder, signature, arguments):
        integer = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [integer] * 8)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return target.get_dummy_value()

    return types.void(address, program, length, context, count, part, parts, thread, ticks), codegen


class Context:
    """What the programs of a plan work on: addresses and sizes, where compiled code finds them."""

    def __init__(self, memory, room, table, numbers, images, labels):
        """Take what stays where it is.

        memory: float32, with ``room`` for each thread at its end; table: int64; numbers: float32; images, labels: the
        shapes (N, C, H, W) and (N,) of what is fed, None for none.
        """
        arrays = self._arrays = (memory, table, numbers)  # an address keeps nothing alive
        addresses = [n for array in arrays for n in (array.ctypes.data, array.size)]
        shape = images or (0, 0, 0, 0)
        self._entries = np.array([*addresses, 0, *(labels or (0,)), room, 0, *shape], dtype=np.int64)
        self._labels, self._images = self._entries[6:7], self._entries[9:10]  # where their addresses stand

    def label(self, labels):
        """Take these from now on, int64 (N,) and contiguous; the caller keeps them alive."""
        self._labels[0] = labels.ctypes.data

    def feed(self, images):
        """Take these from now on, float32 (N, C, H, W) and contiguous; the caller keeps them alive."""
        self._images[0] = images.ctypes.data

    def runner(self, program, count, ticks=0):
        """Return what runs ``program``, int64 (instructions, WIDTH), over ``count`` images.

        ticks: int64 (PARTS, instructions), to which each thread adds the ticks that each instruction takes, or 0.
        """
        launch, parts = c_function(_launch, parallel=True), min(-(-count // LANES), PARTS)
        return _bound(launch, _interpreter(), program, program.shape[0], self._entries, count, parts, ticks)


def sgd_steps(addresses, sizes, numbers, nesterov):
    """Return what takes the steps of several parameters, float32.

    addresses: int64 (n, 3), where parameter, gradient and velocity (0: none) begin; sizes: int64 (n,), their elements;
    numbers: float32 (n, 5), whether it is the first step, lr, momentum, 1 - dampening, weight decay; nesterov: bool.
    """
    return _bound(c_function(_steps_of_sgd), addresses, sizes, numbers, sizes.size, nesterov)


def _bound(function, *arguments):
    """Return a call of compiled code: arrays are passed by their addresses, and kept."""
    integers = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    return lambda kept=arguments: function(*integers)


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


def _launch(interpreter, program, length, context, count, parts, ticks):
    threads = min(parts, _number_of_threads())
    for thread in numba.prange(threads):
        for part in range(thread, parts, threads):
            _invoke(interpreter, program, length, context, count, part, parts, thread, ticks)


@cache
def _interpreter():
    """Address of the interpreter as machine code: called by the launcher, not linked, it is compiled only once."""
    return ctypes.cast(c_function(_interpret), ctypes.c_void_p).value


_SOURCE = """
def _interpret(program, length, context, count, part, parts, thread, ticks):
    entries = carray(_integers(context), 14)
    rows, table = carray(_integers(program), (length, WIDTH)), carray(_integers(entries[2]), entries[3])
    memory, numbers = carray(_floats(entries[0]), entries[1]), carray(_floats(entries[4]), entries[5])
    labels, scratch = carray(_integers(entries[6]), entries[7]), thread * entries[8]
    images = carray(_floats(entries[9]), (entries[10], entries[11], entries[12], entries[13]))
    times = carray(_integers(ticks), (PARTS, length))
    for block in range(part, (count + LANES - 1) // LANES, parts):
        first, images_in_block, accumulate = block * LANES, min(LANES, count - block * LANES), block >= parts
        for i in range(length):
            start = _now() if ticks else 0
            r = rows[i]
            code = r[0]
            a = r[1] + (scratch if r[2] < 0 else block * r[2])
            b = r[3] + (scratch if r[4] < 0 else block * r[4])
            c = r[5] + (scratch if r[6] < 0 else block * r[6])
            d = r[7] + (scratch if r[8] < 0 else block * r[8])
{calls}
            if ticks:
                times[thread, i] += _now() - start
"""


def _interpret_function():
    """Return the interpreter, which runs a program over the blocks of a part; INSTRUCTIONS give its calls."""
    scope = globals() | {"View": View} | {name: declared.function for name, declared in INSTRUCTIONS.items()}
    exec(compile(_SOURCE.format(calls=textwrap.indent(calls(), " " * 12)), __file__, "exec"), scope)
    return scope["_interpret"]


_interpret = _interpret_function()
