"""Products of bfloat16 in matrix registers (AMX, Advanced Matrix Extensions): 16 x 32 times 32 x 16 in one instruction.

A matrix register holds 16 rows of 64 bytes. One instruction takes rows of 32 bfloat16 as a, columns of 32 bfloat16 as x
and adds their products to 16 x 16 sums of float32: 16,384 FLOP, where a vector instruction has 32 or 64. In x the
values of two steps of a sum lie side by side: row r holds for each of 16 columns the steps 2 r and 2 r + 1.
"""

import ctypes
import platform
import sys
from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.backend.cpu.jit import HAS_BFLOAT16, has_feature

SIDE = 16
"""Rows of a matrix register, and columns of a product."""
STEPS = 32
"""Steps of a sum that one instruction makes."""
REGISTER = 256
"""Words, of 4 bytes, of a matrix register."""

HAS_MATRICES = has_feature("amx-tile") and has_feature("amx-bf16")
"""Whether the processor has the registers, whatever the system allows."""

_REQUEST, _TILE_DATA, _ARCH_PRCTL = 0x1023, 18, 158  # ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA, the call of the system


@cache
def has_amx() -> bool:
    """Whether the processor has these registers, and the system gives them to this process, which is asked once."""
    if not (HAS_MATRICES and HAS_BFLOAT16) or sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0


def _call(builder, name, *arguments):
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)


def _number(register):
    return ir.IntType(8)(register)


@intrinsic
def begin(typing):
    """Give this thread the registers, all of 16 rows of 64 bytes."""

    def codegen(context, builder, signature, arguments):
        # palette 1; from byte 16 on the bytes of a row, 16 bits each; from byte 48 on the rows
        content = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[SIDE] * 8, *[0] * 8])
        place = cgutils.global_constant(builder, "amx_configuration", cgutils.make_bytearray(content))
        _call(builder, "ldtilecfg", builder.bitcast(place, ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def end(typing):
    """Give the registers back, which the system would keep for this thread when another runs."""

    def codegen(context, builder, signature, arguments):
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def matrix_products(
    typing, memory, table, rows, columns, is_added, out, out_i, out_j, out_row, a, a_i, a_k, x, x_row, x_j, x_k, steps
):
    """out[i, j] = sum_k a[i, k] x[j, k], plus out[i, j] as it was where ``is_added``: registers of 16 x 16 sums.

    For i < ``rows`` and j < ``columns``, each 1 or 2, and k < ``steps``. Counted in words of ``memory``: out[i, j] is
    at out + i out_i + j out_j, its rows ``out_row`` apart; a[i, k] at a + i a_i + table[a_k + k], contiguous; x[j, k]
    at x + table[x_j + j] + table[x_k + k], its rows ``x_row`` apart.
    """
    signature = types.void(
        memory, table, rows, columns, is_added, out, out_i, out_j, out_row, a, a_i, a_k, x, x_row, x_j, x_k, steps
    )

    def codegen(context, builder, signature, arguments):
        integer, octets = ir.IntType(64), ir.IntType(8).as_pointer()
        memory, table = (
            context.make_array(kind)(context, builder, value=value).data
            for kind, value in zip(signature.args[:2], arguments[:2], strict=True)
        )
        rows, columns, is_added, out, out_i, out_j, out_row, a, a_i, a_k, x, x_row, x_j, x_k, steps = arguments[2:]
        out_row, a_row, x_row = (builder.mul(row, integer(4)) for row in (out_row, integer(SIDE), x_row))

        def entry(first, index):
            return builder.load(builder.gep(table, [builder.add(first, index)]))

        def pointer(at):
            return builder.bitcast(builder.gep(memory, [at]), octets)

        def moved(start, *distances):
            for distance, count in distances:
                start = builder.add(start, builder.mul(distance, integer(count)))
            return start

        def emit(rows, columns):
            sums = {(i, j): 2 * i + j for i in range(rows) for j in range(columns)}
            places = {(i, j): pointer(moved(out, (out_i, i), (out_j, j))) for i, j in sums}
            with builder.if_else(is_added) as (added, fresh):
                with added:
                    for key, register in sums.items():
                        _call(builder, "tileloadd64", _number(register), places[key], out_row)
                with fresh:
                    for register in sums.values():
                        _call(builder, "tilezero", _number(register))
            starts = [moved(a, (a_i, i)) for i in range(rows)]
            bases = [builder.add(x, entry(x_j, integer(j))) for j in range(columns)]
            with cgutils.for_range(builder, steps) as loop:
                to_a, to_x = entry(a_k, loop.index), entry(x_k, loop.index)
                for i, start in enumerate(starts):
                    _call(builder, "tileloadd64", _number(4 + i), pointer(builder.add(start, to_a)), a_row)
                for j, base in enumerate(bases):
                    _call(builder, "tileloadd64", _number(6 + j), pointer(builder.add(base, to_x)), x_row)
                for (i, j), register in sums.items():
                    _call(builder, "tdpbf16ps", _number(register), _number(4 + i), _number(6 + j))
            for key, register in sums.items():
                _call(builder, "tilestored64", _number(register), places[key], out_row)

        shapes = [(i, j) for i in (1, 2) for j in (1, 2)]
        shape = builder.add(builder.mul(rows, rows.type(2)), columns)
        end = builder.append_basic_block("end")
        choice = builder.switch(shape, end)
        for i, j in shapes:
            block = builder.append_basic_block(f"registers{i}{j}")
            choice.add_case(shape.type(2 * i + j), block)
            builder.position_at_end(block)
            emit(i, j)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, codegen
