"""A vector of LANES floats as a Numba type, for loops that LLVM would not vectorise by itself.

``load`` and ``store`` move one between memory and a register; +, - and * work lane by lane. A comparison and the
choice it makes are one function, so that no type of masks is needed.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from minicnn.backend.cpu.jit import LANES


class Lanes(types.Type):
    """The type of a vector of ``count`` numbers, of the type ``element``: float32 or float64."""

    def __init__(self, element, count=LANES):
        self.element, self.count = element, count
        super().__init__(name=f"Lanes({element}, {count})")


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.element).get_value_type(), kind.count))


def place(context, builder, array_type, array, index):
    """Emit a pointer to the vector that begins at array[index]."""
    data = context.make_array(array_type)(context, builder, value=array).data
    kind = context.get_value_type(Lanes(array_type.dtype))
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def spread(builder, value, count=LANES):
    """Emit ``value`` in every one of ``count`` lanes."""
    kind = ir.VectorType(value.type, count)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count))


def call(builder, name, *arguments):
    """Emit a call of LLVM's intrinsic ``name`` on vectors of one type."""
    kind = arguments[0].type
    suffix = f"v{kind.count}f{64 if isinstance(kind.element, ir.DoubleType) else 32}"
    function = ir.FunctionType(kind, [kind] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), arguments)


@intrinsic
def load(typing, memory, at):
    """memory[at : at + LANES]."""

    def codegen(context, builder, signature, arguments):
        return builder.load(place(context, builder, signature.args[0], *arguments), align=4)

    return Lanes(memory.dtype)(memory, at), codegen


@intrinsic
def load_wide(typing, memory, at):
    """memory[at : at + 2 * LANES], for functions of one lane after the other."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
        kind = context.get_value_type(signature.return_type)
        return builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), kind.as_pointer()), align=4)

    return Lanes(memory.dtype, 2 * LANES)(memory, at), codegen


@intrinsic
def element(typing, memory, at):
    """memory[at], also where ``at`` lies outside of the array: Python's negative indices do not count from its end."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return memory.dtype(memory, at), codegen


@intrinsic
def put(typing, memory, at, value):
    """memory[at] = value, also where ``at`` lies outside of the array."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
        builder.store(arguments[2], builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(memory, at, memory.dtype), codegen


@intrinsic
def load_pixels(typing, memory, at):
    """memory[at : at + LANES] of uint8 or float32, as float32."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
        of_bytes = memory.dtype == types.uint8
        kind = ir.VectorType(ir.IntType(8) if of_bytes else ir.FloatType(), LANES)
        place = builder.bitcast(builder.gep(data, [arguments[1]]), kind.as_pointer())
        pixels = builder.load(place, align=1 if of_bytes else 4)
        return builder.uitofp(pixels, ir.VectorType(ir.FloatType(), LANES)) if of_bytes else pixels

    return Lanes(types.float32)(memory, at), codegen


@intrinsic
def prefetch(typing, memory, at):
    """Ask for the cache line of memory[at], which may lie outside of it."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(memory, at), codegen


@intrinsic
def store(typing, memory, at, vector):
    """memory[at : at + its length] = vector."""

    def codegen(context, builder, signature, arguments):
        array, at, vector = arguments
        data = context.make_array(signature.args[0])(context, builder, value=array).data
        builder.store(vector, builder.bitcast(builder.gep(data, [at]), vector.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(memory, at, vector), codegen


@intrinsic
def transpose(typing, source, at, step, target, to, to_step):
    """target[to + i to_step + j] = source[at + j step + i] for i and j below LANES."""

    def codegen(context, builder, signature, arguments):
        source, at, step, target, to, to_step = arguments

        def moved(index, array, start, distance, i):
            offset = builder.add(start, builder.mul(distance, ir.Constant(ir.IntType(64), i)))
            return place(context, builder, signature.args[index], array, offset)

        rows = [builder.load(moved(0, source, at, step, i), align=4) for i in range(LANES)]
        half = LANES // 2
        while half:  # exchange blocks of half x half across the diagonal
            low = [k if not k & half else k - half + LANES for k in range(LANES)]
            high = [k + half if not k & half else k + LANES for k in range(LANES)]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), mask) for mask in (low, high)]
            for i in range(LANES):
                if not i & half:
                    pair = rows[i], rows[i + half]
                    rows[i], rows[i + half] = (builder.shuffle_vector(*pair, mask) for mask in masks)
            half //= 2
        for i, row in enumerate(rows):
            builder.store(row, moved(3, target, to, to_step, i), align=4)
        return context.get_dummy_value()

    return types.void(source, at, step, target, to, to_step), codegen


@intrinsic
def fill(typing, value):
    """``value`` as float32 in every lane."""

    def codegen(context, builder, signature, arguments):
        return spread(builder, context.cast(builder, arguments[0], signature.args[0], types.float32))

    return Lanes(types.float32)(value), codegen


@intrinsic
def fill_like(typing, vector, value):
    """``value`` as float32 in every lane of a vector that is as long as ``vector``."""

    def codegen(context, builder, signature, arguments):
        number = context.cast(builder, arguments[1], signature.args[1], types.float32)
        return spread(builder, number, arguments[0].type.count)

    return vector(vector, value), codegen


@intrinsic
def random_bits(typing, key, position, step):
    """24 bits in each lane, as a whole number in float32: SplitMix64 at ``position`` + lane ``step`` of a stream.

    See :func:`minicnn.backend.reference.normalization.dropout`.
    """

    def codegen(context, builder, signature, arguments):
        integer = ir.IntType(64)
        kind = ir.VectorType(integer, LANES)

        def every(value):
            return ir.Constant(kind, [value] * LANES)

        def mixed(z, bits, factor):
            return builder.mul(builder.xor(z, builder.lshr(z, every(bits))), every(factor))

        key, position, step = (spread(builder, argument) for argument in arguments)
        counter = builder.add(position, builder.mul(ir.Constant(kind, list(range(LANES))), step))
        counter = builder.add(counter, every(1))
        z = builder.add(key, builder.mul(counter, every(0x9E3779B97F4A7C15)))
        z = mixed(mixed(z, 30, 0xBF58476D1CE4E5B9), 27, 0x94D049BB133111EB)
        z = builder.lshr(builder.xor(z, builder.lshr(z, every(31))), every(40))
        bits = builder.trunc(z, ir.VectorType(ir.IntType(32), LANES))
        return builder.sitofp(bits, ir.VectorType(ir.FloatType(), LANES))

    return Lanes(types.float32)(types.int64, types.int64, types.int64), codegen


@intrinsic
def reversed_lanes(typing, vector):
    """The lanes from last to first."""

    def codegen(context, builder, signature, arguments):
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(range(LANES))[::-1])
        return builder.shuffle_vector(arguments[0], arguments[0], order)

    return vector(vector), codegen


@intrinsic
def total(typing, vector):
    """Sum of the lanes, pairwise, in one fixed order."""

    def codegen(context, builder, signature, arguments):
        value, count = arguments[0], LANES
        while count > 1:
            count //= 2
            low, high = (
                ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(s, s + count))) for s in (0, count)
            )
            value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return vector.element(vector), codegen


def _binary(emit):
    @intrinsic
    def function(typing, a, b):
        return a(a, b), lambda context, builder, signature, arguments: emit(builder, *arguments)

    return function


divide = _binary(lambda builder, a, b: builder.fdiv(a, b))
maximum = _binary(lambda builder, a, b: call(builder, "maximum", a, b))  # a NaN stays


@intrinsic
def multiply_add(typing, a, b, c):
    """a b + c."""
    return a(a, b, c), lambda context, builder, signature, arguments: call(builder, "fmuladd", *arguments)


@intrinsic
def round_even(typing, vector):
    """Each lane's nearest whole number."""
    return vector(vector), lambda context, builder, signature, arguments: call(builder, "nearbyint", *arguments)


@intrinsic
def square_root(typing, vector):
    """Each lane's square root."""
    return vector(vector), lambda context, builder, signature, arguments: call(builder, "sqrt", *arguments)


@intrinsic
def absolute(typing, vector):
    """Each lane without its sign."""
    return vector(vector), lambda context, builder, signature, arguments: call(builder, "fabs", *arguments)


@intrinsic
def power_of_two(typing, vector):
    """2^n for lanes of float32 that are whole numbers from -126 to 127: n + 127 are the bits of its exponent."""

    def codegen(context, builder, signature, arguments):
        count = arguments[0].type.count
        kind = ir.VectorType(ir.IntType(32), count)
        exponent = builder.add(builder.fptosi(arguments[0], kind), ir.Constant(kind, [127] * count))
        bits = builder.shl(exponent, ir.Constant(kind, [23] * count))
        return builder.bitcast(bits, arguments[0].type)

    return vector(vector), codegen


@intrinsic
def first(typing, count):
    """1 in the first ``count`` lanes, 0 in the others, as float32."""

    def codegen(context, builder, signature, arguments):
        kind = ir.VectorType(arguments[0].type, LANES)
        inside = builder.icmp_signed("<", ir.Constant(kind, list(range(LANES))), spread(builder, arguments[0]))
        return builder.uitofp(inside, ir.VectorType(ir.FloatType(), LANES))

    return Lanes(types.float32)(count), codegen


def _chosen(comparison):
    @intrinsic
    def function(typing, a, b, yes, no):
        def codegen(context, builder, signature, arguments):
            return builder.select(builder.fcmp_ordered(comparison, *arguments[:2]), *arguments[2:])

        return yes(a, b, yes, no), codegen

    return function


where_equal = _chosen("==")  # yes where a == b, else no
where_greater = _chosen(">")


@intrinsic
def where_wins(typing, a, b, yes, no):
    """yes where a > b, or a is the first NaN of both, else no: so a maximum is found."""

    def codegen(context, builder, signature, arguments):
        a, b, *chosen = arguments
        return builder.select(
            builder.and_(builder.fcmp_unordered(">", a, b), builder.fcmp_ordered("ord", b, b)), *chosen
        )

    return yes(a, b, yes, no), codegen


def _operator(function, emit):
    @type_callable(function)
    def types_of(context):
        return lambda a, b: a if isinstance(a, Lanes) and a == b else None

    @lower_builtin(function, Lanes, Lanes)
    def lowered(context, builder, signature, arguments):
        return emit(builder, *arguments)


_operator(operator.add, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, lambda builder, a, b: builder.fmul(a, b))
