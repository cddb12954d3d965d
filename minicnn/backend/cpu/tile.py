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

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnn.backend.cpu.jit import LANES
from minicnn.backend.cpu.lanes import call, spread

_WIDE = llvm.get_host_cpu_features().get("avx512vl", False) or llvm.get_process_triple().startswith("aarch64")
TILES = ((6, 4), (8, 3), (16, 1)) if _WIDE else ((6, 2), (4, 3), (8, 1))
"""ROWS x COLUMNS of the tiles: 24 accumulators where there are 32 vector registers, 12 where there are 16; the last is
for a single pixel."""


@intrinsic(prefer_literal=True)
def tile(
    typing, shape, kind,
    out, out_at, out_row, a, a_at, a_row, x, x_at, table, a_k, out_j, x_j, x_k, steps, bias, bias_at, floor,
):  # fmt: skip
    """out[i, j] = max(bias[i] + sum_k a[i, k] x[j, k], floor), LANES values each; a NaN stays.

    ``kind``: 0 for scalars a[i, k], 1 for vectors, 2 for scalars, of which the sums are added to out[i, j]; no bias.

    out[i, j] is at out[out_at + i out_row + table[out_j + j]]; a[i, k] at a[a_at + i a_row + table[a_k + k]], LANES
    values or one scalar; x[j, k] at x[x_at + table[x_j + j] + table[x_k + k]], k from 0 to
    ``steps`` - 1, at least one; bias[i] at bias[bias_at + i]. ``shape`` is the literal index into TILES.
    """
    rows, columns = TILES[shape.literal_value]
    is_vector, is_sum = kind.literal_value == 1, kind.literal_value == 2
    signature = types.void(
        shape, kind,
        out, out_at, out_row, a, a_at, a_row, x, x_at, table, a_k, out_j, x_j, x_k, steps, bias, bias_at, floor,
    )  # fmt: skip

    def codegen(context, builder, signature, arguments):
        def pointer(index):
            array = context.make_array(signature.args[index])(context, builder, value=arguments[index])
            return array.data

        integer = ir.IntType(64)
        out_p, a_p, x_p, table_p, bias_p = (pointer(i) for i in (2, 5, 8, 10, 16))
        out_at, out_row, a_at, a_row, x_at, a_k = (arguments[i] for i in (3, 4, 6, 7, 9, 11))
        out_j, x_j, x_k, steps, bias_at, floor = (arguments[i] for i in (12, 13, 14, 15, 17, 18))
        element = context.get_data_type(signature.args[8].dtype)
        vector = ir.VectorType(element, LANES)
        size = context.get_abi_sizeof(element)

        def vector_at(base, offset):
            return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

        def plus(start, step, count):
            return builder.add(start, builder.mul(step, ir.Constant(integer, count)))

        def entry(first, index):
            return builder.load(builder.gep(table_p, [plus(first, one_step, index)]))

        one_step = ir.Constant(integer, 1)
        bases = [builder.gep(x_p, [builder.add(x_at, entry(x_j, c))]) for c in range(columns)]
        a_starts = [plus(a_at, a_row, r) for r in range(rows)]
        places = [[plus(builder.add(out_at, entry(out_j, c)), out_row, r) for c in range(columns)] for r in range(rows)]
        if is_sum:  # a sum of short sums rounds less than a long one
            first_sums = [[ir.Constant(vector, [element(0.0)] * LANES)] * columns] * rows
        else:
            biases = (builder.load(builder.gep(bias_p, [plus(bias_at, one_step, r)])) for r in range(rows))
            first_sums = [[spread(builder, bias)] * columns for bias in biases]

        before = builder.block
        loop = builder.append_basic_block("steps")
        after = builder.append_basic_block("stored")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(integer)
        k.add_incoming(ir.Constant(integer, 0), before)
        sums = [[builder.phi(vector) for _ in range(columns)] for _ in range(rows)]
        offset = builder.load(builder.gep(table_p, [builder.add(x_k, k)]))
        values = [builder.load(vector_at(base, offset), align=size) for base in bases]
        a_offset = builder.load(builder.gep(table_p, [builder.add(a_k, k)]))
        for r in range(rows):
            place = builder.add(a_starts[r], a_offset)
            if is_vector:
                factor = builder.load(vector_at(a_p, place), align=size)
            else:
                factor = spread(builder, builder.load(builder.gep(a_p, [place])))
            for c in range(columns):
                total = call(builder, "fmuladd", factor, values[c], sums[r][c])
                sums[r][c].add_incoming(first_sums[r][c], before)
                sums[r][c].add_incoming(total, loop)
                sums[r][c] = total
        following = builder.add(k, one_step)
        k.add_incoming(following, loop)
        branch = builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
        branch.set_metadata("llvm.loop", _not_unrolled(builder.module))
        builder.position_at_end(after)

        if is_sum:  # all are read before any is written: columns may be the same
            before = [[builder.load(vector_at(out_p, place), align=size) for place in row] for row in places]
            sums = [list(map(builder.fadd, *rows)) for rows in zip(before, sums, strict=True)]
        floors = spread(builder, floor)
        for r in range(rows):
            for c in range(columns):
                value = sums[r][c]
                value = builder.select(builder.fcmp_ordered("<", value, floors), floors, value)
                builder.store(value, vector_at(out_p, places[r][c]), align=size)
        return context.get_dummy_value()

    return signature, codegen


def _not_unrolled(module):
    """Loop metadata: an unrolled loop would need more registers than there are, and spill its accumulators."""
    loop = module.add_metadata([module.add_metadata(["llvm.loop.unroll.disable"])])
    loop.operands = (loop, *loop.operands)  # its first operand names the loop: itself
    return loop
