"""The micro-kernel of the convolutions: a register tile over batch-interleaved arrays.

Activations are (C, H, W, LANES), LANES images innermost, so that every load is one full vector whatever the channels,
the width or the stride. One tile keeps ROWS x COLUMNS vector accumulators in registers and runs

    acc[i, j] += a[i, k] * x[offset_j[j] + offset_k[k]]      for k = 0 ... K - 1

where the two tables replace im2col: the address of a value under a window is the offset of the pixel plus that of the
tap. Convolution has j = pixels and k = taps with a = the weight, a scalar for all lanes; the gradient of the weight has
j = taps and k = pixels with a = gy, a vector. A step of k costs ROWS + COLUMNS loads for ROWS x COLUMNS fused
multiply-adds of LANES x 2 FLOP: at 6 x 4 and float32, 152 bytes (scalar a) for 384 FLOP, all from the L1 and L2 caches.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.backend.cpu.jit import LANES, jit

_WIDE = llvm.get_host_cpu_features().get("avx512vl", False) or llvm.get_process_triple().startswith("aarch64")
TILES = ((6, 4), (8, 3)) if _WIDE else ((6, 2), (4, 3))
"""ROWS x COLUMNS of the two tiles: 24 accumulators where there are 32 vector registers, 12 where there are 16."""


@intrinsic(prefer_literal=True)
def tile(
    typing, out, out_first, out_row, out_column, a, a_first, a_row, a_k, x, offset_j, j, offset_k, count, shape, vector
):
    """Store acc[i, j] at out[out_first + i out_row + j out_column ...], LANES values each.

    a[i, k] is at a[a_first + i a_row + k a_k], LANES values if ``vector`` is 1, one scalar if 0. The columns are
    offset_j[j : j + COLUMNS], the steps offset_k[:count], count from 1. ``shape`` is the literal index into TILES.
    """
    rows, columns = TILES[shape.literal_value]
    is_vector = bool(vector.literal_value)

    def codegen(context, builder, signature, arguments):
        def pointer(index):
            array = context.make_array(signature.args[index])(context, builder, value=arguments[index])
            return array.data

        integer = ir.IntType(64)
        out_p, a_p, x_p, offset_j_p, offset_k_p = (pointer(i) for i in (0, 4, 8, 9, 11))
        out_first_v, out_row_v, out_column_v = arguments[1:4]
        a_first_v, a_row_v, a_k_v = arguments[5:8]
        j_v, count_v = arguments[10], arguments[12]
        element = context.get_data_type(signature.args[8].dtype)
        kind = ir.VectorType(element, LANES)
        bytes_ = context.get_abi_sizeof(element)
        name = f"llvm.fmuladd.v{LANES}f{8 * bytes_}"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)

        def load(base, offset):
            place = builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())
            return builder.load(place, align=bytes_)

        def spread(value):
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)

        def constant(value):
            return ir.Constant(integer, value)

        starts = [builder.load(builder.gep(offset_j_p, [builder.add(j_v, constant(c))])) for c in range(columns)]
        bases = [builder.gep(x_p, [start]) for start in starts]
        a_starts = [builder.add(a_first_v, builder.mul(a_row_v, constant(r))) for r in range(rows)]
        zero = ir.Constant(kind, [ir.Constant(element, 0.0)] * LANES)

        before = builder.block
        loop = builder.append_basic_block("steps")
        after = builder.append_basic_block("stored")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(integer)
        k.add_incoming(constant(0), before)
        sums = [[builder.phi(kind) for _ in range(columns)] for _ in range(rows)]
        offset = builder.load(builder.gep(offset_k_p, [k]))
        values = [load(base, offset) for base in bases]
        a_offset = builder.mul(k, a_k_v)
        for r in range(rows):
            place = builder.add(a_starts[r], a_offset)
            factor = load(a_p, place) if is_vector else spread(builder.load(builder.gep(a_p, [place])))
            for c in range(columns):
                total = builder.call(fma, [factor, values[c], sums[r][c]])
                sums[r][c].add_incoming(zero, before)
                sums[r][c].add_incoming(total, loop)
                sums[r][c] = total
        following = builder.add(k, constant(1))
        k.add_incoming(following, loop)
        branch = builder.cbranch(builder.icmp_signed("<", following, count_v), loop, after)
        branch.set_metadata("llvm.loop", _not_unrolled(builder.module))
        builder.position_at_end(after)

        for r in range(rows):
            row = builder.add(out_first_v, builder.mul(out_row_v, constant(r)))
            for c in range(columns):
                place = builder.add(row, builder.mul(out_column_v, constant(c)))
                target = builder.bitcast(builder.gep(out_p, [place]), kind.as_pointer())
                builder.store(sums[r][c], target, align=bytes_)
        return context.get_dummy_value()

    signature = types.void(
        out, out_first, out_row, out_column, a, a_first, a_row, a_k, x, offset_j, j, offset_k, count, shape, vector
    )
    return signature, codegen


def _not_unrolled(module):
    """Loop metadata: an unrolled loop would need more registers than there are, and spill its accumulators."""
    loop = module.add_metadata([module.add_metadata(["llvm.loop.unroll.disable"])])
    loop.operands = (loop, *loop.operands)  # its first operand names the loop: itself
    return loop


@jit()
def convolve_tile(choice, out, first, plane, weights, at, rows, x, pixels, p, taps):
    """The tile TILES[choice] of a convolution: weights[at:] is (taps, rows), out a plane of pixels a row."""
    if choice == 0:
        tile(out, first, plane, LANES, weights, at, 1, rows, x, pixels, p, taps, taps.size, 0, 0)
    else:
        tile(out, first, plane, LANES, weights, at, 1, rows, x, pixels, p, taps, taps.size, 1, 0)


@jit()
def weight_tile(choice, out, columns, gradients, at, plane, x, taps, t, pixels):
    """The tile TILES[choice] of a weight's gradient: gradients[at:] is a plane of pixels a row, out (rows, columns)."""
    if choice == 0:
        tile(out, 0, columns * LANES, LANES, gradients, at, plane, LANES, x, taps, t, pixels, pixels.size, 0, 1)
    else:
        tile(out, 0, columns * LANES, LANES, gradients, at, plane, LANES, x, taps, t, pixels, pixels.size, 1, 1)
