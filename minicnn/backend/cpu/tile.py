"""The micro-kernel of the convolutions: a register tile over batch-interleaved arrays.

Activations are (C, H, W, LANES), LANES images innermost, so that every load is one full vector whatever the channels,
the width or the stride. One tile keeps ROWS x COLUMNS vector accumulators in registers and runs

    acc[i, j] += a[i, k] * x[offset_j[j] + offset_k[k]]      for k = 0 ... K - 1

where the two tables replace im2col: the address of a value under a window is the offset of the pixel plus that of the
tap. Convolution has j = pixels and k = taps with a = the weight, a scalar for all lanes; the gradient of the weight has
j = taps and k = pixels with a = gy, a vector; a linear layer is a convolution of one pixel. A step of k costs
ROWS + COLUMNS loads for ROWS x COLUMNS fused multiply-adds of LANES x 2 FLOP: at 6 x 4 and float32, 152 bytes
(scalar a) for 384 FLOP, all from the L1 and L2 caches.
"""

from functools import partial

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.backend.cpu.jit import LANES
from minicnn.backend.cpu.lanes import call, spread

_WIDE = llvm.get_host_cpu_features().get("avx512vl", False) or llvm.get_process_triple().startswith("aarch64")
TILES = ((6, 4), (8, 3), (16, 1)) if _WIDE else ((6, 2), (4, 3), (8, 1))
"""ROWS x COLUMNS of the tiles: 24 accumulators where there are 32 vector registers, 12 where there are 16; the last is
for a single pixel."""
CHANNEL_TILES = (
    ((4, 6), (3, 8), (2, 10), (1, 8), (16, 1), (4, 4), (1, 8))
    if _WIDE
    else ((4, 3), (3, 4), (2, 6), (1, 8), (8, 1), (4, 2), (1, 8))
)
"""The same where lanes are channels: vectors of output channels x pixels. The last is for DEPTHWISE convolutions."""
DEPTHWISE = len(CHANNEL_TILES) - 1
TERMS = 32
"""Products whose sum is made in registers before it is added to that of others: a long sum rounds more. Not for vectors
by vectors, the gradient of a weight: there a lane sums the pixels of one image, and all images are added later."""


@intrinsic(prefer_literal=True)
def tile(
    typing, kind, shape,
    out, out_at, out_row, a, a_at, a_row, x, x_at, table, a_k, out_j, x_j, x_k, steps, bias, bias_at, floor,
):  # fmt: skip
    """out[i, j] = max(bias[i] + sum_k a[i, k] x[j, k], floor), LANES values each; a NaN stays.

    ``kind``: 0 for scalars a[i, k], 1 for vectors, 2 for scalars, of which the sums are added to out[i, j]; no bias; 3
    for scalars and x[j, k] that each are two of bfloat16, whose products are summed.

    out[i, j] is at out[out_at + i out_row + table[out_j + j]]; a[i, k] at a[a_at + i a_row + table[a_k + k]], LANES
    values or one scalar; x[j, k] at x[x_at + table[x_j + j] + table[x_k + k]], k from 0 to
    ``steps`` - 1, at least one; bias[i] at bias[bias_at + i]. ``shape``: index into TILES, of kinds 1 and 2 the first
    two.
    """
    is_vector, is_sum, is_pair = (kind.literal_value == k for k in (1, 2, 3))
    signature = types.void(
        kind, shape,
        out, out_at, out_row, a, a_at, a_row, x, x_at, table, a_k, out_j, x_j, x_k, steps, bias, bias_at, floor,
    )  # fmt: skip

    def codegen(context, builder, signature, arguments):
        integer = ir.IntType(64)
        out_p, a_p, x_p, table_p, bias_p = (_data(context, builder, signature, arguments, i) for i in (2, 5, 8, 10, 16))
        shape, out_at, out_row, a_at, a_row, x_at, a_k = (arguments[i] for i in (1, 3, 4, 6, 7, 9, 11))
        out_j, x_j, x_k, steps, bias_at, floor = (arguments[i] for i in (12, 13, 14, 15, 17, 18))
        vectors = _Vectors(context, builder, signature.args[8].dtype)
        plus, entry = _arithmetic(builder, table_p)

        def emit(rows, columns):
            bases = [builder.gep(x_p, [builder.add(x_at, entry(x_j, c))]) for c in range(columns)]
            a_starts = [plus(a_at, a_row, r) for r in range(rows)]
            corners = [builder.add(out_at, entry(out_j, c)) for c in range(columns)]
            places = [[plus(corner, out_row, r) for corner in corners] for r in range(rows)]
            first_sums = [[vectors.none] * columns] * rows
            if not is_sum:
                biases = (builder.load(builder.gep(bias_p, [plus(bias_at, integer(1), r)])) for r in range(rows))
                first_sums = [[spread(builder, bias)] * columns for bias in biases]

            def kept(k):
                offset = builder.load(builder.gep(table_p, [builder.add(x_k, k)]))
                return [vectors.load(base, offset) for base in bases]

            def passing(k):
                offset = builder.load(builder.gep(table_p, [builder.add(a_k, k)]))
                for start in a_starts:
                    at = builder.add(start, offset)
                    yield vectors.load(a_p, at) if is_vector else spread(builder, builder.load(builder.gep(a_p, [at])))

            is_added, terms = ir.Constant(ir.IntType(1), is_sum), steps if is_vector else integer(TERMS)
            how = pairs_added if is_pair else products_added
            _sum(builder, vectors, out_p, places, first_sums, is_added, floor, steps, terms, kept, passing, how)

        _choose(builder, shape, TILES[:2] if is_vector or is_sum else TILES, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def channel_tile(
    typing, shape, out, out_at, out_row, a, a_at, a_row, x, x_at, table, a_k, out_j, x_j, x_k, steps, bias_at, is_sum,
    floor,
):  # fmt: skip
    """out[i, j] = max(bias[i] + sum_k a[i, k] x[j, k], floor), lanes of output channels; a NaN stays.

    As :func:`tile`, but a[i, k] are vectors and x[j, k] scalars (in the tile DEPTHWISE vectors too); bias[i] is a
    vector at a[bias_at + LANES i]; where ``is_sum`` is not 0, out[i, j] as it was is added. ``shape``: index into
    CHANNEL_TILES.
    """
    signature = types.void(
        shape, out, out_at, out_row, a, a_at, a_row, x, x_at, table, a_k, out_j, x_j, x_k, steps, bias_at, is_sum,
        floor,
    )  # fmt: skip

    def codegen(context, builder, signature, arguments):
        out_p, a_p, x_p, table_p = (_data(context, builder, signature, arguments, i) for i in (1, 4, 7, 9))
        shape, out_at, out_row, a_at, a_row, x_at, a_k = (arguments[i] for i in (0, 2, 3, 5, 6, 8, 10))
        out_j, x_j, x_k, steps, bias_at, is_sum, floor = arguments[11:]
        vectors = _Vectors(context, builder, signature.args[7].dtype)
        plus, entry = _arithmetic(builder, table_p)

        def emit(rows, columns, depthwise=False):
            bases = [builder.gep(x_p, [builder.add(x_at, entry(x_j, c))]) for c in range(columns)]
            starts = [plus(a_at, a_row, r) for r in range(rows)]
            corners = [builder.add(out_at, entry(out_j, c)) for c in range(columns)]
            places = [[plus(corner, out_row, r) for r in range(rows)] for corner in corners]
            biases = [vectors.load(a_p, plus(bias_at, ir.IntType(64)(LANES), r)) for r in range(rows)]
            first_sums = [biases] * columns

            def kept(k):
                offset = builder.load(builder.gep(table_p, [builder.add(a_k, k)]))
                return [vectors.load(a_p, builder.add(start, offset)) for start in starts]

            def passing(k):
                offset = builder.load(builder.gep(table_p, [builder.add(x_k, k)]))
                for base in bases:
                    if depthwise:
                        yield vectors.load(base, offset)
                    else:
                        yield spread(builder, builder.load(builder.gep(base, [offset])))

            is_added = builder.icmp_signed("!=", is_sum, is_sum.type(0))
            terms = ir.IntType(64)(TERMS)
            _sum(builder, vectors, out_p, places, first_sums, is_added, floor, steps, terms, kept, passing)

        _choose(builder, shape, CHANNEL_TILES[:DEPTHWISE], emit, partial(emit, *CHANNEL_TILES[DEPTHWISE], True))
        return context.get_dummy_value()

    return signature, codegen


def _choose(builder, shape, shapes, emit, *others):
    """Emit for each number that ``shape`` may be the code for its rows and columns, then that of ``others``."""
    end = builder.append_basic_block("end")
    choice = builder.switch(shape, end)
    for index, code in enumerate([*(partial(emit, *sizes) for sizes in shapes), *others]):
        block = builder.append_basic_block(f"tile{index}")
        choice.add_case(shape.type(index), block)
        builder.position_at_end(block)
        code()
        builder.branch(end)
    builder.position_at_end(end)


class _Vectors:
    """Loads and stores of vectors of LANES elements."""

    def __init__(self, context, builder, dtype):
        element = context.get_data_type(dtype)
        self.builder, self.kind, self.size = builder, ir.VectorType(element, LANES), context.get_abi_sizeof(element)
        self.none = ir.Constant(self.kind, [0.0] * LANES)

    def load(self, base, offset):
        return self.builder.load(self._at(base, offset), align=self.size)

    def store(self, value, base, offset):
        self.builder.store(value, self._at(base, offset), align=self.size)

    def _at(self, base, offset):
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.kind.as_pointer())


def _data(context, builder, signature, arguments, index):
    """Pointer to the elements of an argument that is an array."""
    return context.make_array(signature.args[index])(context, builder, value=arguments[index]).data


def _arithmetic(builder, table):
    """Functions that emit start + count step, and an entry of a list in the table."""
    integer = ir.IntType(64)

    def plus(start, step, count):
        return builder.add(start, builder.mul(step, integer(count)))

    def entry(first, index):
        return builder.load(builder.gep(table, [plus(first, integer(1), index)]))

    return plus, entry


def _at_least(builder, value, floors):
    return builder.select(builder.fcmp_ordered("<", value, floors), floors, value)


def products_added(builder, a, x, total):
    """Emit a x + total."""
    return call(builder, "fmuladd", a, x, total)


class _BFloat16s(ir.Type):
    """LLVM's vector of 2 LANES bfloat16, which llvmlite has no type for."""

    def _to_string(self):
        return f"<{2 * LANES} x bfloat>"


_BFLOAT16S = _BFloat16s()


def pairs_added(builder, a, x, total):
    """Emit the products of the two bfloat16 in each element of a and x, added to total: AVX512_BF16."""
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * LANES}"
    function = ir.FunctionType(total.type, [total.type, _BFLOAT16S, _BFLOAT16S])
    operands = (builder.bitcast(value, _BFLOAT16S) for value in (a, x))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [total, *operands])


def _sum(
    builder, vectors, out, places, first_sums, is_added, floor, steps, terms, kept, passing, multiply_add=products_added
):  # fmt: skip
    """Emit out[places[p][q]] = max(first_sums[p][q] + sum_k passing(k)[p] kept(k)[q], floor) for k < steps.

    What was there is added where ``is_added``. ``terms`` products at a time are summed in registers, and then added to
    ``out``. ``kept`` returns vectors that stay in registers for a step, ``passing`` yields others, each used at once,
    and ``multiply_add`` emits what a step does with two of them and a sum.
    """
    integer, before = ir.IntType(64), builder.block
    names = "parts", "steps", "summed", "added", "stored", "more", "last"
    parts, loop, summed, added, stored, more, last = map(builder.append_basic_block, names)
    builder.branch(parts)
    builder.position_at_end(parts)
    start = builder.phi(integer)
    start.add_incoming(integer(0), before)
    is_first = builder.icmp_signed("==", start, integer(0))
    first_sums = [[builder.select(is_first, first, vectors.none) for first in row] for row in first_sums]
    end = builder.add(start, terms)
    is_last = builder.icmp_signed(">=", end, steps)
    end = builder.select(is_last, steps, end)
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(integer)
    k.add_incoming(start, parts)
    sums = [[builder.phi(vectors.kind) for _ in row] for row in first_sums]
    values = kept(k)
    for p, factor in enumerate(passing(k)):
        for q, value in enumerate(values):
            total = multiply_add(builder, factor, value, sums[p][q])
            sums[p][q].add_incoming(first_sums[p][q], parts)
            sums[p][q].add_incoming(total, loop)
            sums[p][q] = total
    following = builder.add(k, integer(1))
    k.add_incoming(following, loop)
    _not_unrolled(builder, builder.cbranch(builder.icmp_signed("<", following, end), loop, summed))

    builder.position_at_end(summed)
    builder.cbranch(builder.or_(is_added, builder.not_(is_first)), added, stored)

    builder.position_at_end(added)  # all are read before any is written: places may be the same
    totals = [
        [builder.fadd(vectors.load(out, place), value) for place, value in zip(*rows, strict=True)]
        for rows in zip(places, sums, strict=True)
    ]
    builder.branch(stored)

    builder.position_at_end(stored)
    results = []
    for value, total in zip(sum(sums, []), sum(totals, []), strict=True):
        results.append(builder.phi(vectors.kind))
        results[-1].add_incoming(value, summed)
        results[-1].add_incoming(total, added)
    results_at = list(zip(results, sum(places, []), strict=True))
    builder.cbranch(is_last, last, more)

    builder.position_at_end(more)
    for value, place in results_at:
        vectors.store(value, out, place)
    start.add_incoming(end, more)
    _not_unrolled(builder, builder.branch(parts))

    builder.position_at_end(last)
    floors = spread(builder, floor)
    for value, place in results_at:
        vectors.store(_at_least(builder, value, floors), out, place)


def _not_unrolled(builder, branch):
    """Mark the branch of a loop: unrolled it would need more registers than there are, and spill its accumulators."""
    loop = builder.module.add_metadata([builder.module.add_metadata(["llvm.loop.unroll.disable"])])
    loop.operands = (loop, *loop.operands)  # its first operand names the loop: itself
    branch.set_metadata("llvm.loop", loop)
