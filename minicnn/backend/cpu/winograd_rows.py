"""Convolution of one block by kernels of 5 columns, with 8 instead of 20 multiplications a kernel row for 4 outputs.

F(4, 5) along the rows (Winograd, 1980; Lavin and Gray, 2016): with d the 8 pixels that 4 outputs see, and u = G g of a
row g of the filter,

    y = A^T [u * (B^T d)]        * element by element, summed over the input channels and the rows of the filter

for the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity. At each of the 8 points the sum is a convolution by a kernel of
one column, which the instructions of ordinary convolution compute, and its gradients. The gradients of both transforms
are their adjoints, B and A; neighbours overlap in B. Vectors are 8 images, as everywhere, so that no transform mixes
lanes.

A transformed block is (8, channels, rows, tiles of 4 outputs). Rounding is two to four times that of direct sums; the
tests allow 4e-6 of the largest result.
"""

import numpy as np

from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import element, fill, load, multiply_add, store, where_greater

POINTS, OUTPUTS = 8, 4
"""Multiplications and outputs of a tile."""


def _filter() -> np.ndarray:
    points = np.array([0, 1, -1, 2, -2, 0.5, -0.5])
    others = [np.prod([p - q for q in points if q != p]) for p in points]
    rows = [p ** np.arange(5) / other for p, other in zip(points, others, strict=True)]
    return np.array([-rows[0], *rows[1:], np.eye(5)[4]], dtype=np.float32)


FILTER = _filter()
"""G, (8, 5)."""


@helper
def _pixel(memory, row, j, width):
    return load(memory, row + j * LANES) if (j >= 0) & (j < width) else fill(0.0)


@helper
def _put(memory, row, j, width, value):
    if (j >= 0) & (j < width):
        store(memory, row + j * LANES, value)


@helper
def _load_points(memory, at, step):
    return (
        load(memory, at), load(memory, at + step), load(memory, at + 2 * step), load(memory, at + 3 * step),
        load(memory, at + 4 * step), load(memory, at + 5 * step), load(memory, at + 6 * step),
        load(memory, at + 7 * step),
    )  # fmt: skip


@helper
def _store_points(memory, at, step, values):
    store(memory, at, values[0])
    store(memory, at + step, values[1])
    store(memory, at + 2 * step, values[2])
    store(memory, at + 3 * step, values[3])
    store(memory, at + 4 * step, values[4])
    store(memory, at + 5 * step, values[5])
    store(memory, at + 6 * step, values[6])
    store(memory, at + 7 * step, values[7])


@helper
def _sums(v):
    """Sums and differences of the points of one size: what both A^T and B are made of."""
    return v[1] + v[2], v[1] - v[2], v[3] + v[4], v[3] - v[4], v[5] + v[6], v[5] - v[6]


@instruction("x:view size:size tiles:word padding:word -> y:view")
@helper
def spread_rows(memory, x, size, tiles, padding, y):
    """y = B^T d for every tile of the rows of x, which is of ``size``."""
    channels, height, width = size
    for c in range(channels):
        for i in range(height):
            row, to = x.at + c * x.plane + i * x.row, y.at + c * y.plane + i * y.row
            for t in range(tiles):
                j = OUTPUTS * t - padding
                d0, d1 = _pixel(memory, row, j, width), _pixel(memory, row, j + 1, width)
                d2, d3 = _pixel(memory, row, j + 2, width), _pixel(memory, row, j + 3, width)
                d4, d5 = _pixel(memory, row, j + 4, width), _pixel(memory, row, j + 5, width)
                d6, d7 = _pixel(memory, row, j + 6, width), _pixel(memory, row, j + 7, width)
                a, b = multiply_add(fill(-4.25), d4, d2 + d6), multiply_add(fill(-4.25), d3, d1 + d5)
                e = multiply_add(fill(0.25), d2, multiply_add(fill(-1.25), d4, d6))
                f = multiply_add(fill(0.5), d1, multiply_add(fill(-2.5), d3, fill(2.0) * d5))
                g = multiply_add(fill(4.0), d2, multiply_add(fill(-5.0), d4, d6))
                h = multiply_add(fill(2.0), d1, multiply_add(fill(-2.5), d3, fill(0.5) * d5))
                first = multiply_add(fill(5.25), d4 - d2, d0 - d6)
                last = multiply_add(fill(5.25), d3 - d5, d7 - d1)
                points = first, a + b, a - b, e + f, e - f, g + h, g - h, last
                _store_points(memory, to + t * LANES, channels * y.plane, points)


@instruction("x:view size:size tiles:word padding:word -> y:view")
@helper
def spread_rows_grad(memory, x, size, tiles, padding, y):
    """y = the sum of B x over the tiles, of ``size``: the gradient of :func:`spread_rows`."""
    channels, height, width = size
    for c in range(channels):
        for i in range(height):
            at, row = x.at + c * x.plane + i * x.row, y.at + c * y.plane + i * y.row
            x0 = x1 = x2 = x3 = fill(0.0)  # what the tile before adds
            j = -padding
            for t in range(tiles):
                v = _load_points(memory, at + t * LANES, channels * x.plane)
                s1, d1, s2, d2, s3, d3 = _sums(v)
                outer, inner = fill(5.25) * v[0], fill(5.25) * v[7]
                _put(memory, row, j, width, x0 + v[0])
                x1 = x1 + multiply_add(fill(0.5), d2, multiply_add(fill(2.0), d3, d1 - v[7]))
                _put(memory, row, j + 1, width, x1)
                x2 = x2 + multiply_add(fill(0.25), s2, multiply_add(fill(4.0), s3, s1 - outer))
                _put(memory, row, j + 2, width, x2)
                x3 = x3 + multiply_add(fill(-4.25), d1, multiply_add(fill(-2.5), d2 + d3, inner))
                _put(memory, row, j + 3, width, x3)
                x0 = multiply_add(fill(-4.25), s1, multiply_add(fill(-1.25), s2, multiply_add(fill(-5.0), s3, outer)))
                x1 = multiply_add(fill(2.0), d2, multiply_add(fill(0.5), d3, d1 - inner))
                x2, x3 = s1 + s2 + (s3 - v[0]), v[7]
                j += OUTPUTS
            _put(memory, row, j, width, x0)
            _put(memory, row, j + 1, width, x1)
            _put(memory, row, j + 2, width, x2)
            _put(memory, row, j + 3, width, x3)


@instruction("x:view size:size tiles:word bias:region floor:number -> y:view")
@helper
def gather_rows(memory, x, size, tiles, bias, floor, y):
    """y = max(A^T x + bias, floor) for every tile of the rows of y, which is of ``size``; a NaN stays."""
    channels, height, width = size
    floors = fill(floor)
    for c in range(channels):
        offset = fill(element(memory, bias + c))
        for i in range(height):
            at, row = x.at + c * x.plane + i * x.row, y.at + c * y.plane + i * y.row
            for t in range(tiles):
                m = _load_points(memory, at + t * LANES, channels * x.plane)
                s1, d1, s2, d2, s3, d3 = _sums(m)
                s1, d1 = s1 + offset, d1 + offset
                y0, y1 = m[0] + s1 + (s2 + s3), multiply_add(fill(2.0), d2, multiply_add(fill(0.5), d3, d1))
                y2 = multiply_add(fill(4.0), s2, multiply_add(fill(0.25), s3, s1))
                y3 = multiply_add(fill(8.0), d2, multiply_add(fill(0.125), d3, d1 + m[7]))
                j = OUTPUTS * t
                _put(memory, row, j, width, where_greater(floors, y0, floors, y0))
                _put(memory, row, j + 1, width, where_greater(floors, y1, floors, y1))
                _put(memory, row, j + 2, width, where_greater(floors, y2, floors, y2))
                _put(memory, row, j + 3, width, where_greater(floors, y3, floors, y3))


@instruction("x:view size:size tiles:word -> y:view")
@helper
def gather_rows_grad(memory, x, size, tiles, y):
    """y = A x for every tile of x, which is of ``size``: the gradient of :func:`gather_rows`."""
    channels, height, width = size
    for c in range(channels):
        for i in range(height):
            row, to = x.at + c * x.plane + i * x.row, y.at + c * y.plane + i * y.row
            for t in range(tiles):
                j = OUTPUTS * t
                y0, y1 = _pixel(memory, row, j, width), _pixel(memory, row, j + 1, width)
                y2, y3 = _pixel(memory, row, j + 2, width), _pixel(memory, row, j + 3, width)
                a, b = y0 + y2, y1 + y3
                e, f = multiply_add(fill(4.0), y2, y0), multiply_add(fill(8.0), y3, fill(2.0) * y1)
                g, h = multiply_add(fill(0.25), y2, y0), multiply_add(fill(0.125), y3, fill(0.5) * y1)
                points = y0, a + b, a - b, e + f, e - f, g + h, g - h, y3
                _store_points(memory, to + t * LANES, channels * y.plane, points)
