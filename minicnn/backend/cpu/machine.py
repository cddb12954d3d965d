"""The machine that runs a plan: a list of block operations, interpreted by compiled code.

A program is an int64 array, one instruction a row: an operation code and its operands. Each thread takes parts of the
batch, and each block of LANES images of a part through the whole program, so that what lives inside a block stays in
the thread's caches; the threads meet once, at the end. A part is a fixed set of blocks, and sums over images are kept a
part, so the bits do not depend on the number of threads.

An operand in memory is a pair (at, step): at + block * step, or at + thread * room for step -1: scratch of the thread.
Other operands are sizes, strides, offsets into the table of offsets, and offsets into the numbers (float32).
"""

import ctypes
from functools import cache

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from minicnn.backend.cpu import blocks, pointwise, single, winograd, winograd_rows
from minicnn.backend.cpu.elementwise import sgd_step_flat
from minicnn.backend.cpu.geometry import ONE, Window, sweeps, tile_for, tile_for_matrix, up
from minicnn.backend.cpu.jit import LANES
from minicnn.backend.cpu.matmul import multiply
from minicnn.backend.cpu.objects import c_function
from minicnn.backend.cpu.pointwise import POINTWISE
from minicnn.backend.cpu.threads import NUMBER
from minicnn.backend.cpu.tile import TILES
from minicnn.backend.cpu.winograd_rows import OUTPUTS, POINTS

__all__ = [
    "FILTERS", "LANES", "ONE", "OPERATIONS", "OUTPUTS", "PARTS", "POINTS", "POINTWISE", "TILES", "WIDTH", "Context",
    "Window", "multiply", "sgd_steps", "sweeps", "tile_for", "tile_for_matrix", "up",
]  # fmt: skip

WIDTH = 32
"""Length of an instruction."""
PARTS = 8
"""Into how many parts a batch is divided, where there are as many blocks."""

OPERATIONS = (
    "interleave", "deinterleave", "products", "weight_gradient", "channel_sums", "max_pool", "max_pool_grad",
    "cross_entropy", "cross_entropy_grad", "moments", "norm_sums", "dropout", "winograd",
    "winograd_gradient", "winograd_operands", "fetch", "put", "max_pool_single", "linear_single", "avg_pool",
    "avg_pool_grad", "spread_rows", "spread_rows_grad", "gather_rows", "gather_rows_grad", *POINTWISE,
)  # fmt: skip
"""Names of the operation codes."""
FILTERS = {len(matrix): matrix for matrix in (winograd.FILTER, winograd_rows.FILTER)}
"""The transforms of filters, (points, taps), by the number of points."""
_POINTWISE = len(OPERATIONS) - len(POINTWISE)


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
def _invoke(typing, address, program, length, context, count, part, parts, thread):
    """Call the function at ``address`` with the seven integers."""

    def codegen(target, builder, signature, arguments):
        integer = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [integer] * 7)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return target.get_dummy_value()

    return types.void(address, program, length, context, count, part, parts, thread), codegen


class Context:
    """What the programs of a plan work on: addresses and sizes, where compiled code finds them."""

    def __init__(self, memory, room, table, numbers, images, labels):
        """Take what stays where it is: memory, float32, with ``room`` for each thread at its end; table, int64;
        numbers, float32; the shapes (N, C, H, W) and (N,) of what is fed, None for none."""
        arrays = self._arrays = (memory, table, numbers)  # an address keeps nothing alive
        addresses = [n for array in arrays for n in (array.ctypes.data, array.size)]
        shape = images or (0, 0, 0, 0)
        self._entries = np.array([*addresses, 0, *(labels or (0,)), room, 0, *shape], dtype=np.int64)

    def label(self, labels):
        """Take these from now on, int64 (N,) and contiguous; the caller keeps them alive."""
        self._entries[6] = labels.ctypes.data

    def feed(self, images):
        """Take these from now on, float32 (N, C, H, W) and contiguous; the caller keeps them alive."""
        self._entries[9] = images.ctypes.data

    def runner(self, program, count):
        """Return what runs ``program``, int64 (instructions, WIDTH), over ``count`` images."""
        launch, parts = c_function(_launch, parallel=True), min(-(-count // LANES), PARTS)
        return _bound(launch, _interpreter(), program, program.shape[0], self._entries, count, parts)


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


def _launch(interpreter, program, length, context, count, parts):
    threads = min(parts, _number_of_threads())
    for thread in numba.prange(threads):
        for part in range(thread, parts, threads):
            _invoke(interpreter, program, length, context, count, part, parts, thread)


@cache
def _interpreter():
    """Address of :func:`_interpret` as machine code: called by the launcher, not linked, it is compiled only once."""
    return ctypes.cast(c_function(_interpret), ctypes.c_void_p).value


def _interpret(program, length, context, count, part, parts, thread):
    """Run the program over the blocks of one part."""
    ends = carray(_integers(context), 14)
    rows, table = carray(_integers(program), (length, WIDTH)), carray(_integers(ends[2]), ends[3])
    memory, numbers = carray(_floats(ends[0]), ends[1]), carray(_floats(ends[4]), ends[5])
    labels, scratch = carray(_integers(ends[6]), ends[7]), thread * ends[8]
    images = carray(_floats(ends[9]), (ends[10], ends[11], ends[12], ends[13]))
    for block in range(part, (count + LANES - 1) // LANES, parts):
        first, here, again = block * LANES, min(LANES, count - block * LANES), block >= parts
        for i in range(length):
            r = rows[i]
            code = r[0]
            a = r[1] + (scratch if r[2] < 0 else block * r[2])
            b = r[3] + (scratch if r[4] < 0 else block * r[4])
            c = r[5] + (scratch if r[6] < 0 else block * r[6])
            d = r[7] + (scratch if r[8] < 0 else block * r[8])
            if code >= _POINTWISE:
                pointwise.pointwise(
                    code - _POINTWISE, memory, a, r[9], r[10], b, r[11], r[12], c, r[13], r[14],
                    (r[15], r[16], r[17]), r[18], numbers[r[19]], here,
                )  # fmt: skip
            elif code == 0:
                if r[9] < 0:
                    blocks.interleave(images, first, here, memory, a, r[10], r[11], (1, 1))
                else:
                    plain = memory[r[9] : r[9] + count * r[12] * r[13] * r[14]].reshape(count, r[12], r[13], r[14])
                    blocks.interleave(plain, first, here, memory, a, r[10], r[11], (1, 1))
            elif code == 1:
                blocks.deinterleave(memory, a, r[9], r[10], (r[11], r[12], r[13]), memory, r[14], first, here)
            elif code == 2:
                blocks.products(
                    r[9], memory, table, a, r[10], b, r[11], c, r[12], r[13], r[14], r[15], r[16], r[17], r[18], r[19],
                    numbers[r[20]],
                )  # fmt: skip
            elif code == 3:
                blocks.weight_gradient(
                    r[9], memory, table, r[10] + part * r[11], r[12], a, r[13], b, c, r[14], r[15], r[16], r[17],
                    r[18], r[19], r[20], r[21], again,
                )  # fmt: skip
            elif code == 4:
                out = r[14] + part * r[15]
                pointwise.channel_sums(
                    memory, a, r[9], r[10], (r[11], r[12], r[13]), out, out + parts * r[15], again
                )  # fmt: skip
            elif code == 5:
                blocks.max_pool(
                    memory, a, r[9], r[10], b, r[11], r[12], (r[13], r[14], r[15]), (r[16], r[17]), (r[18], r[19]),
                    numbers[r[20]],
                )  # fmt: skip
            elif code == 6:
                blocks.max_pool_grad(
                    memory, a, r[9], r[10], b, r[11], r[12], c, r[13], r[14], d, r[15], r[16], (r[17], r[18], r[19]),
                    (r[20], r[21]), (r[22], r[23]), (r[17], r[24], r[25]), numbers[r[26]],
                )  # fmt: skip
            elif code == 7:
                blocks.cross_entropy(memory, a, r[12], r[9], labels, first, here, numbers[r[10]], b, r[13], r[11])
            elif code == 8:
                blocks.cross_entropy_grad(memory, a, r[12], r[9], labels, first, here, numbers[r[10]], r[11], b, r[13])
            elif code == 9:
                pointwise.moments(memory, a, r[9], r[10], (r[11], r[12], r[13]), here, b)
            elif code == 10:
                out = r[17] + part * r[18]
                pointwise.norm_sums(
                    memory, a, r[9], r[10], b, r[11], r[12], (r[13], r[14], r[15]), r[16], out, out + parts * r[18],
                    again,
                )  # fmt: skip
            elif code == 11:
                pointwise.dropout(
                    memory, a, r[9], r[10], b, r[11], r[12], (r[13], r[14], r[15]), first, table[r[16]],
                    np.uint64(r[17]), numbers[r[18]],
                )  # fmt: skip
            elif code == 12:
                winograd.convolution(
                    r[9], memory, table, a, r[10], r[11], r[12], b, r[13], r[14], r[15], c, r[16], r[17], r[18], r[19],
                    r[20], r[21], r[22], numbers[r[23]], d, r[24], r[25], r[26],
                )  # fmt: skip
            elif code == 13:
                winograd.gradient(
                    r[9], memory, table, a, r[10], r[11], r[12], b, r[13], r[14], r[15], r[16], r[17],
                    r[18] + part * r[19], r[20], c, r[21], r[22], r[23], r[24], again,
                )  # fmt: skip
            elif code == 14:
                place = first * r[17]
                winograd.operands(
                    memory, a, r[9], r[10], r[11], b, r[12], r[13], r[14], r[15], r[16], r[17], c,
                    r[18] + place * r[11], r[19] + place, r[20],
                )  # fmt: skip
            elif code == 15:
                size = r[11] * r[12] * r[13]
                if r[14] < 0:
                    single.fetch(images.ravel(), block * size, memory, a, r[9], r[10], (r[11], r[12], r[13]))
                else:
                    single.fetch(memory, r[14] + block * size, memory, a, r[9], r[10], (r[11], r[12], r[13]))
            elif code == 16:
                to = r[14] + block * r[11] * r[12] * r[13]
                single.put(memory, a, r[9], r[10], (r[11], r[12], r[13]), to)
            elif code == 17:
                single.max_pool(
                    memory, a, r[9], r[10], b, r[11], r[12], (r[13], r[14], r[15]), (r[16], r[17]), (r[18], r[19]),
                    numbers[r[20]],
                )  # fmt: skip
            elif code == 18:
                single.linear(memory, a, r[9], b, r[10], c, r[11], numbers[r[12]])
            elif code == 19:
                blocks.avg_pool(memory, a, r[9], r[10], (r[11], r[12], r[13]), r[14], r[15], b, r[16])
            elif code == 20:
                blocks.avg_pool_grad(memory, a, r[9], b, r[10], r[11], (r[12], r[13], r[14]), r[15], r[16])
            elif code == 21:
                winograd_rows.spread(memory, a, r[9], r[10], b, r[11], r[12], r[13], r[14], r[15], r[16], r[17])
            elif code == 22:
                winograd_rows.spread_grad(memory, a, r[9], r[10], b, r[11], r[12], r[13], r[14], r[15], r[16], r[17])
            elif code == 23:
                winograd_rows.gather(
                    memory, a, r[9], r[10], b, r[11], r[12], r[13], r[14], r[15], r[16], r[17], numbers[r[18]]
                )
            elif code == 24:
                winograd_rows.gather_grad(memory, a, r[9], r[10], b, r[11], r[12], r[13], r[14], r[15], r[16])
