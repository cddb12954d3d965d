"""The transforms of Winograd's convolution for k x k taps and m x m outputs, and the code that applies them to a tile.

Polynomials are multiplied by their values at n = m + k - 1 points, the last of which is infinity (Toom, 1963; Cook,
1966), and the transpose of that map is a correlation (Winograd, 1980; Lavin and Gray, 2016). For a finite point p, with
M(x) the product of x - q over the other finite points q,

    row p of A = 1, p, p^2, ...    row p of G = (1, p, p^2, ...) / M(p)    row p of B^T = the coefficients of M

and for infinity a unit vector, a unit vector, and M over all finite points. Where p is a point, so is -p: a sum of even
powers and one of odd powers serve both.
"""

from fractions import Fraction

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnn.backend.cpu.jit import LANES
from minicnn.backend.cpu.lanes import call, place, spread

TAPS = 3
POINTS = {2: (0, 1, -1), 4: (0, Fraction(5, 8), -Fraction(5, 8), Fraction(3, 2), -Fraction(3, 2))}
"""By the outputs of a tile along one axis the finite points. For 4 outputs 0, 1, -1, 2, -2 would round more (see
Barabasz et al., 2020, on the choice); with 5/8 and 3/2 A and B are exact in float32."""


def matrices(points, taps):
    """Return A (n, m), B^T (n, n) and G (n, taps) for the finite ``points`` and infinity, float64."""
    count = len(points) + 1
    a, b, g = ([[Fraction(0)] * width for _ in range(count)] for width in (count - taps + 1, count, taps))
    a[-1][-1] = g[-1][-1] = Fraction(1)
    for i, p in enumerate((*points, None)):
        polynomial = [Fraction(1)]
        for q in points:
            if q != p:
                polynomial = [low - q * high for low, high in zip([0, *polynomial], [*polynomial, 0], strict=True)]
        b[i][: len(polynomial)] = polynomial
        if p is not None:
            value = sum(c * Fraction(p) ** k for k, c in enumerate(polynomial))
            a[i] = [Fraction(p) ** k for k in range(len(a[i]))]
            g[i] = [Fraction(p) ** k / value for k in range(taps)]
    return tuple(np.array(m, dtype=np.float64) for m in (a, b, g))


_MATRICES = {m: matrices(points, TAPS) for m, points in POINTS.items()}
FILTERS = [np.kron(g, g).astype(np.float32) for _, _, g in _MATRICES.values()]
"""For each number of outputs G g G^T of the flat filter g, (n^2, 9)."""


@intrinsic(prefer_literal=True)
def spread_tile(typing, outputs, memory, at, row, to, step):
    """Write B^T d B of the pixels at ``at``, its positions ``step`` apart from ``to``; ``outputs``: a literal."""
    signature = types.void(outputs, memory, at, row, to, step)
    return signature, _to_points(_MATRICES[outputs.literal_value][1])


@intrinsic(prefer_literal=True)
def spread_gradient(typing, outputs, memory, at, row, to, step):
    """The same with A dY A^T of the outputs at ``at``."""
    signature = types.void(outputs, memory, at, row, to, step)
    return signature, _to_points(_MATRICES[outputs.literal_value][0])


@intrinsic(prefer_literal=True)
def spread_filter(typing, outputs, memory, at, row, to, step):
    """The same with G g G^T of the filter at ``at``."""
    signature = types.void(outputs, memory, at, row, to, step)
    return signature, _to_points(_MATRICES[outputs.literal_value][2])


@intrinsic(prefer_literal=True)
def gather_filter(typing, outputs, memory, at, step, to, row):
    """Write G^T M G, of positions ``step`` apart from ``at``, to the filter at ``to``."""
    signature = types.void(outputs, memory, at, step, to, row)
    return signature, _from_points(_MATRICES[outputs.literal_value][2].T)


@intrinsic(prefer_literal=True)
def gather_tile(typing, outputs, memory, at, step, to, row, offset, floors):
    """Write max(A^T M A + offset, floors) to the outputs at ``to``, of positions ``step`` apart from ``at``."""
    signature = types.void(outputs, memory, at, step, to, row, offset, floors)
    return signature, _from_points(_MATRICES[outputs.literal_value][0].T)


def _to_points(matrix):
    def codegen(context, builder, signature, arguments):
        _, memory, at, row, to, step = arguments
        pointer = _pointers(context, builder, signature.args[1], memory)
        points = _both_ways(builder, matrix, lambda i, j: pointer(at, (i, row), (j, LANES)))
        for k, value in enumerate(value for line in points for value in line):
            builder.store(value, pointer(to, (k, step)), align=4)
        return context.get_dummy_value()

    return codegen


def _from_points(matrix):
    def codegen(context, builder, signature, arguments):
        _, memory, at, step, to, row, *ends = arguments
        pointer = _pointers(context, builder, signature.args[1], memory)
        pixels = _both_ways(builder, matrix, lambda i, j: pointer(at, (matrix.shape[1] * i + j, step)))
        for i, line in enumerate(pixels):
            for j, value in enumerate(line):
                if ends:
                    offset, floors = ends
                    value = call(builder, "maximum", builder.fadd(value, offset), floors)
                builder.store(value, pointer(to, (i, row), (j, LANES)), align=4)
        return context.get_dummy_value()

    return codegen


def _pointers(context, builder, array_type, array):
    """Return a function of a place and of (count, step) that follow it, to a pointer to a vector."""
    integer = ir.IntType(64)

    def pointer(at, *moves):
        for count, step in moves:
            step = integer(step) if isinstance(step, int) else step
            at = builder.add(at, builder.mul(integer(count), step))
        return place(context, builder, array_type, array, at)

    return pointer


def _both_ways(builder, matrix, pointer):
    """Emit ``matrix`` V of the vectors V[i][j] at pointer(i, j), times its transpose."""
    size = range(matrix.shape[1])
    columns = [_product(builder, matrix, [builder.load(pointer(i, j), align=4) for i in size]) for j in size]
    return [_product(builder, matrix, list(line)) for line in zip(*columns, strict=True)]


def _product(builder, matrix, vectors):
    """Emit ``matrix`` times ``vectors``. Its rows or its columns belong to points; those of p and -p share sums."""
    rows, columns = matrix.shape
    mixed = np.eye(max(rows, columns))
    for i in range(1, len(mixed) - 1, 2):
        mixed[i : i + 2, i : i + 2] = [[1, 1], [1, -1]]
    if rows < columns:
        return _sums(builder, matrix @ np.linalg.inv(mixed), _sums(builder, mixed, vectors))
    return _sums(builder, mixed, _sums(builder, np.linalg.inv(mixed) @ matrix, vectors))


def _sums(builder, matrix, vectors):
    return [_sum(builder, [(f, v) for f, v in zip(row, vectors, strict=True) if f != 0]) for row in matrix]


def _sum(builder, terms):
    """Emit the sum of factors times vectors; those by 1 first, for they need no multiplication."""
    total = None
    for factor, vector in sorted(terms, key=lambda term: -term[0] if abs(term[0]) == 1 else 2):
        if total is None:
            total = vector if factor == 1 else builder.fmul(vector, spread(builder, vector.type.element(factor)))
        elif abs(factor) == 1:
            total = (builder.fadd if factor == 1 else builder.fsub)(total, vector)
        else:
            total = call(builder, "fmuladd", vector, spread(builder, vector.type.element(factor)), total)
    return total
