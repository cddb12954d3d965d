"""Operations on one image in plain order, (C, H, W), for batches too small to fill the lanes of a block.

Vectors run along the rows instead: LANES pixels of one image. Convolution is
:func:`minicnn.backend.cpu.blocks.products` all the same, with other offsets. ``plane`` and ``row`` are as in blocks.py.
"""

from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import fill, load, multiply_add, total


@helper
def _copy_in(source, at, memory, y, size):
    """Write an image of ``size``, contiguous at source[at:], with the strides of y."""
    for c in range(size[0]):
        for i in range(size[1]):
            for j in range(size[2]):
                memory[y.at + c * y.plane + i * y.row + j] = source[at]
                at += 1


@instruction("size:size -> y:view")
@helper
def feed_single(memory, images, block, size, y):
    """Take an image of what the plan was fed."""
    _copy_in(images.ravel(), block * size[0] * size[1] * size[2], memory, y, size)


@instruction("x:word size:size -> y:view")
@helper
def read_single(memory, block, x, size, y):
    """Take an image of a contiguous array of all."""
    _copy_in(memory, x + block * size[0] * size[1] * size[2], memory, y, size)


@instruction("x:view size:size -> y:word")
@helper
def write_single(memory, block, x, size, y):
    """Write an image into a contiguous array of all."""
    to = y + block * size[0] * size[1] * size[2]
    for c in range(size[0]):
        for i in range(size[1]):
            for j in range(size[2]):
                memory[to] = memory[x.at + c * x.plane + i * x.row + j]
                to += 1


@instruction("a:view size:pixels -> y:view(a)")
@helper
def relu_single(memory, a, size, y):
    """y = max(a, 0), a NaN stays."""
    zero = memory.dtype.type(0)
    for c in range(size[0]):
        for i in range(size[1]):
            for j in range(size[2]):
                value = memory[a.at + c * a.plane + i * a.row + j]
                memory[y.at + c * y.plane + i * y.row + j] = zero if value < zero else value


@instruction("x:view size:size window:pair stride:pair floor:number -> y:view")
@helper
def max_pool_single(memory, x, size, window, stride, floor, y):
    """y = max(largest of each window, floor), a NaN stays; the windows lie inside x. size: of y."""
    for c in range(size[0]):
        for i in range(size[1]):
            line, out = x.at + c * x.plane + i * stride[0] * x.row, y.at + c * y.plane + i * y.row
            for j in range(size[2]):
                best = floor
                for u in range(window[0]):
                    for v in range(window[1]):
                        value = memory[line + u * x.row + j * stride[1] + v]
                        best = best if value <= best else value if best == best else best
                memory[out + j] = best


@instruction("x:place inputs:word weight:word bias:word outputs:word floor:number -> y:place")
@helper
def linear_single(memory, x, inputs, weight, bias, outputs, floor, y):
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
