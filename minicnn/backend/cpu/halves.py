"""Vectors of bfloat16: numbers of float32 rounded to it, and pairs of it in the halves of each element."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnn.backend.cpu.jit import LANES
from minicnn.backend.cpu.lanes import place


def _bfloat16(builder, vector):
    """Emit the bits of a vector rounded to bfloat16, whose lower halves are 0, but of a NaN; that has one above too."""
    count = vector.type.count
    integers = ir.VectorType(ir.IntType(32), count)
    numbers = (16, 1, 0x7FFF, 0xFFFF0000, 0x400000)
    half, one, odd_half, upper, quiet = (ir.Constant(integers, [n] * count) for n in numbers)
    bits = builder.bitcast(vector, integers)
    odd = builder.and_(builder.lshr(bits, half), one)
    rounded = builder.and_(builder.add(bits, builder.add(odd, odd_half)), upper)
    return builder.select(builder.fcmp_ordered("==", vector, vector), rounded, builder.or_(bits, quiet))


@intrinsic
def bfloat16(typing, vector):
    """Its elements rounded to bfloat16, see :func:`minicnn.backend.reference.arithmetic.bfloat16`."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(_bfloat16(builder, arguments[0]), arguments[0].type)

    return vector(vector), codegen


@intrinsic
def paired(typing, low, high):
    """Both rounded to bfloat16, in the lower and in the upper half of each element."""

    def codegen(context, builder, signature, arguments):
        below, above = (_bfloat16(builder, argument) for argument in arguments)
        half, upper = (ir.Constant(below.type, [n] * below.type.count) for n in (16, 0xFFFF0000))
        bits = builder.or_(builder.lshr(below, half), builder.and_(above, upper))
        return builder.bitcast(bits, arguments[0].type)

    return low(low, high), codegen


def _halves(shift):
    """One half of each element of two vectors, one after the other in half the bytes."""

    @intrinsic
    def function(typing, low, high):
        def codegen(context, builder, signature, arguments):
            words = ir.VectorType(ir.IntType(32), LANES)
            halves = ir.VectorType(ir.IntType(16), LANES)
            bits = (builder.bitcast(argument, words) for argument in arguments)
            below, above = (builder.trunc(builder.lshr(b, ir.Constant(words, [shift] * LANES)), halves) for b in bits)
            order = ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), list(range(2 * LANES)))
            return builder.bitcast(builder.shuffle_vector(below, above, order), arguments[0].type)

        return low(low, high), codegen

    return function


lower_halves = _halves(0)
upper_halves = _halves(16)


@intrinsic
def turn_pairs(typing, memory, at, step, to, to_step):
    """From pairs of channels of each image to pairs of images of each channel, in place of words of memory.

    The halves of memory[at + i step + j], i < LANES / 2, are channels 2 i and 2 i + 1 of image j. Those of
    memory[to + r to_step + c] become images 2 r and 2 r + 1 of channel c.
    """

    def codegen(context, builder, signature, arguments):
        array, at, step, to, to_step = arguments
        kind = signature.args[0]
        halves = ir.VectorType(ir.IntType(16), 2 * LANES)
        count = LANES // 2

        def pointer(start, distance, i):
            offset = builder.add(start, builder.mul(distance, ir.Constant(ir.IntType(64), i)))
            return builder.bitcast(place(context, builder, kind, array, offset), halves.as_pointer())

        def chosen(a, b, order):
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order))

        vectors = [builder.load(pointer(at, step, i), align=4) for i in range(count)]
        width = 2 * LANES
        while len(vectors) > 1:  # all, one behind the other
            vectors = [chosen(a, b, list(range(2 * width))) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
            width *= 2
        for r in range(count):
            order = [
                c // 2 * 2 * LANES + 2 * (2 * r + image) + c % 2 for c in range(LANES) for image in range(2)
            ]  # of all halves: pair of channels, image, channel
            half = width // 2
            below, above = (chosen(vectors[0], vectors[0], list(range(s, s + half))) for s in (0, half))
            builder.store(chosen(below, above, order), pointer(to, to_step, r), align=4)
        return context.get_dummy_value()

    return types.void(memory, at, step, to, to_step), codegen


@intrinsic
def halves_where_equal(typing, low, high, number, pair):
    """The lower half of each element of ``pair`` where low == number, its upper half where high == number; else 0."""

    def codegen(context, builder, signature, arguments):
        low, high, number, pair = arguments
        words = ir.VectorType(ir.IntType(32), LANES)
        bits = builder.bitcast(pair, words)
        none = ir.Constant(words, [0] * LANES)
        masks = (
            builder.select(builder.fcmp_ordered("==", tap, number), ir.Constant(words, [half] * LANES), none)
            for tap, half in ((low, 0xFFFF), (high, 0xFFFF0000))
        )
        return builder.bitcast(builder.and_(bits, builder.or_(*masks)), pair.type)

    return pair(low, high, number, pair), codegen
