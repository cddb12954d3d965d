"""Operations on one image in plain order, (C, H, W), for batches too small to fill the lanes of a block.

Vectors run along the rows instead: LANES pixels of one image. Convolution is
:func:`minicnn.backend.cpu.blocks.products` all the same, with other offsets. ``plane`` and ``row`` are as in blocks.py.
"""

from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import fill, load, multiply_add, total


@helper
def fetch(x, at, memory, to, plane, row, size):
    """Copy an image of ``size`` from the flat x[at:]."""
    channels, height, width = size
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                memory[to + c * plane + i * row + j] = x[at]
                at += 1


@helper
def put(memory, at, plane, row, size, to):
    """Copy an image of ``size`` to memory[to:], in C order."""
    channels, height, width = size
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                memory[to] = memory[at + c * plane + i * row + j]
                to += 1


@helper
def max_pool(memory, x, x_plane, x_row, y, y_plane, y_row, size, window, stride, least):
    """y = max(largest of each window, least), a NaN stays; the windows lie inside x. size: of y."""
    for c in range(size[0]):
        for i in range(size[1]):
            line, out = x + c * x_plane + i * stride[0] * x_row, y + c * y_plane + i * y_row
            for j in range(size[2]):
                best = least
                for u in range(window[0]):
                    for v in range(window[1]):
                        value = memory[line + u * x_row + j * stride[1] + v]
                        best = best if value <= best else value if best == best else best
                memory[out + j] = best


@helper
def linear(memory, x, inputs, weight, bias, y, outputs, floor):
    """y = max(weight x + bias, floor), a NaN stays; weight: (outputs, inputs)."""
    whole = inputs // LANES * LANES
    for i in range(outputs):
        row, even, odd = weight + i * inputs, fill(0.0), fill(0.0)
        for k in range(0, whole - LANES, 2 * LANES):
            even = multiply_add(load(memory, row + k), load(memory, x + k), even)
            odd = multiply_add(load(memory, row + k + LANES), load(memory, x + k + LANES), odd)
        if whole % (2 * LANES):
            even = multiply_add(load(memory, row + whole - LANES), load(memory, x + whole - LANES), even)
        value = memory[bias + i] + total(even + odd)
        for k in range(whole, inputs):
            value += memory[row + k] * memory[x + k]
        memory[y + i] = floor if value < floor else value
