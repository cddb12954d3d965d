"""Instructions that treat every pixel of a block alike, and the sums of batch norm; see blocks.py for the layout.

``terms``: where the numbers of the channels are, one list over all channels after the other.
"""

import numpy as np

from minicnn.backend.cpu.exponential import expm1, normal
from minicnn.backend.cpu.halves import bfloat16
from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import (
    element,
    fill,
    fill_like,
    first,
    load,
    load_wide,
    maximum,
    multiply_add,
    random_bits,
    store,
    total,
    where_greater,
)

_PIECE = 32  # so many vectors are summed to a line, and so many lines before their sum goes to a float64


@instruction("a:view size:pixels -> y:view")
@helper
def copy(memory, a, size, y):
    """y = a."""
    for c in range(size[0]):
        for i in range(size[1]):
            u, w = a.at + c * a.plane + i * a.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, load(memory, u + j))


@instruction("size:size halo:pair -> y:place")
@helper
def frame(memory, size, halo, y):
    """Write the zeros around planes that lie one after the other from y, and those before a next one.

    size, halo: rows and columns of both.
    """
    planes, height, width = size
    row, zero = (width + 2 * halo[1]) * LANES, fill(0.0)
    side = halo[1] * LANES
    for start in range(y, y + planes * (height + 2 * halo[0]) * row, (height + 2 * halo[0]) * row):
        top, bottom = start + halo[0] * row, start + (halo[0] + height) * row
        for at in range(start, top + side, LANES):
            store(memory, at, zero)
        for end in range(top + row, bottom, row):
            for at in range(end - side, end + side, LANES):
                store(memory, at, zero)
        for at in range(bottom - side, bottom + halo[0] * row, LANES):
            store(memory, at, zero)
    behind = y + planes * (height + 2 * halo[0]) * row
    for at in range(behind, behind + halo[0] * row + side, LANES):
        store(memory, at, zero)


@instruction("a:view size:pixels -> y:view(a)")
@helper
def present(memory, images_in_block, a, size, y):
    """y = a, and 0 for absent images."""
    zero, is_present = fill(0.0), first(images_in_block)
    for c in range(size[0]):
        for i in range(size[1]):
            u, w = a.at + c * a.plane + i * a.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, where_greater(is_present, zero, load(memory, u + j), zero))


@instruction("a:view size:pixels -> y:view(a)")
@helper
def round_to_bfloat16(memory, a, size, y):
    """y = a rounded to bfloat16."""
    for c in range(size[0]):
        for i in range(size[1]):
            u, w = a.at + c * a.plane + i * a.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, bfloat16(load(memory, u + j)))


@instruction("a:view size:pixels -> y:view(a)")
@helper
def relu(memory, a, size, y):
    """y = max(a, 0)."""
    zero = fill(0.0)
    for c in range(size[0]):
        for i in range(size[1]):
            u, w = a.at + c * a.plane + i * a.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, maximum(load(memory, u + j), zero))


@instruction("a:view b:view size:pixels -> y:view(a)")
@helper
def relu_grad(memory, a, b, size, y):
    """y = a where b > 0, else 0; b: the output of ReLU."""
    zero = fill(0.0)
    for c in range(size[0]):
        for i in range(size[1]):
            u, v, w = a.at + c * a.plane + i * a.row, b.at + c * b.plane + i * b.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, where_greater(load(memory, v + j), zero, load(memory, u + j), zero))


@instruction("a:view alpha:number size:pixels -> y:view(a)")
@helper
def elu(memory, a, alpha, size, y):
    """y = a where a > 0, else alpha (e^a - 1)."""
    zero, scale = fill(0.0), fill(alpha)
    for c in range(size[0]):
        for i in range(size[1]):
            u, w = a.at + c * a.plane + i * a.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                value = load(memory, u + j)
                store(memory, w + j, where_greater(value, zero, value, scale * expm1(value)))


@instruction("a:view b:view alpha:number size:pixels -> y:view(a)")
@helper
def elu_grad(memory, a, b, alpha, size, y):
    """y = a where b > 0, else a (b + alpha); b: the output of ELU."""
    zero, scale = fill(0.0), fill(alpha)
    for c in range(size[0]):
        for i in range(size[1]):
            u, v, w = a.at + c * a.plane + i * a.row, b.at + c * b.plane + i * b.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                gradient, output = load(memory, u + j), load(memory, v + j)
                store(memory, w + j, where_greater(output, zero, gradient, gradient * (output + scale)))


@instruction("a:view b:view floor:number size:pixels -> y:view(a,b)")
@helper
def add(memory, a, b, floor, size, y):
    """y = max(a + b, floor)."""
    least = fill(floor)
    for c in range(size[0]):
        for i in range(size[1]):
            u, v, w = a.at + c * a.plane + i * a.row, b.at + c * b.plane + i * b.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, maximum(load(memory, u + j) + load(memory, v + j), least))


@instruction("a:view terms:region floor:number size:pixels -> y:view(a)")
@helper
def affine(memory, a, terms, floor, size, y):
    """y = max(p a + q, floor), terms p and q: batch norm."""
    least = fill(floor)
    for c in range(size[0]):
        p, q = fill(element(memory, terms + c)), fill(element(memory, terms + size[0] + c))
        for i in range(size[1]):
            u, w = a.at + c * a.plane + i * a.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, maximum(multiply_add(load(memory, u + j), p, q), least))


@helper
def norm_grad_terms(memory, terms, channel, channels, present):
    """p, q and r of a channel, 0 for absent images."""
    p, q = element(memory, terms + channel), element(memory, terms + channels + channel)
    return fill(p) * present, fill(q) * present, fill(element(memory, terms + 2 * channels + channel)) * present


@instruction("a:view b:view terms:region size:pixels -> y:view(a)")
@helper
def norm_grad(memory, images_in_block, a, b, terms, size, y):
    """y = p a + q b + r, terms p, q and r, 0 for absent images: the gradient of batch norm."""
    present, channels = first(images_in_block), size[0]
    for c in range(channels):
        p, q, r = norm_grad_terms(memory, terms, c, channels, present)
        for i in range(size[1]):
            u, v, w = a.at + c * a.plane + i * a.row, b.at + c * b.plane + i * b.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                value = multiply_add(load(memory, v + j), q, r)
                store(memory, w + j, multiply_add(load(memory, u + j), p, value))


@helper
def norm_terms(memory, terms, channel, channels):
    """p and q of a channel's batch norm; 1 and 0 where ``terms`` is 0, and there is none."""
    if terms == 0:
        return memory.dtype.type(1), memory.dtype.type(0)
    return element(memory, terms + channel), element(memory, terms + channels + channel)


@helper
def gelu_of(a, p, q):
    """z Phi(z) of z = p a + q, and its derivative Phi(z) + z phi(z)."""
    value = multiply_add(a, fill_like(a, p), fill_like(a, q))
    cdf, density = normal(value)
    return value * cdf, multiply_add(value, density, cdf)


@instruction("a:view terms:region size:pixels -> y:view(a)")
@helper
def gelu(memory, a, terms, size, y):
    """y = z Phi(z) of z = p a + q, terms p and q: batch norm, or none."""
    end = size[2] * LANES
    wide = end - end % (2 * LANES)
    for c in range(size[0]):
        p, q = norm_terms(memory, terms, c, size[0])
        for i in range(size[1]):
            u, w = a.at + c * a.plane + i * a.row, y.at + c * y.plane + i * y.row
            for j in range(0, wide, 2 * LANES):
                store(memory, w + j, gelu_of(load_wide(memory, u + j), p, q)[0])
            for j in range(wide, end, LANES):
                store(memory, w + j, gelu_of(load(memory, u + j), p, q)[0])


@instruction("a:view terms:region size:pixels -> y:view slope:view(a)")
@helper
def gelu_and_slope(memory, a, terms, size, y, slope):
    """y as of ``gelu``, and its derivative for z, of which the gradient is a multiple."""
    end = size[2] * LANES
    wide = end - end % (2 * LANES)
    for c in range(size[0]):
        p, q = norm_terms(memory, terms, c, size[0])
        for i in range(size[1]):
            u, v = a.at + c * a.plane + i * a.row, slope.at + c * slope.plane + i * slope.row
            w = y.at + c * y.plane + i * y.row
            for j in range(0, wide, 2 * LANES):
                value, derivative = gelu_of(load_wide(memory, u + j), p, q)
                store(memory, w + j, value)
                store(memory, v + j, derivative)
            for j in range(wide, end, LANES):
                value, derivative = gelu_of(load(memory, u + j), p, q)
                store(memory, w + j, value)
                store(memory, v + j, derivative)


@instruction("a:view b:view size:pixels -> y:view(a,b)")
@helper
def multiply(memory, a, b, size, y):
    """y = a b."""
    for c in range(size[0]):
        for i in range(size[1]):
            u, v, w = a.at + c * a.plane + i * a.row, b.at + c * b.plane + i * b.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                store(memory, w + j, load(memory, u + j) * load(memory, v + j))


@instruction("x:view size:pixels -> partial:place")
@helper
def moments(memory, images_in_block, x, size, partial):
    """The mean of each channel over a block and the sum of squares about it, one list after the other."""
    channels, height, width = size
    present, end = first(images_in_block), width * LANES
    for c in range(channels):
        whole, sums, lines = np.float64(0), fill(0.0), 0
        for i in range(height):
            start = x.at + c * x.plane + i * x.row
            for piece in range(0, end, _PIECE * LANES):
                line = fill(0.0)
                for j in range(piece, min(piece + _PIECE * LANES, end), LANES):
                    line = line + load(memory, start + j)
                sums, lines = sums + line, lines + 1
                if lines % _PIECE == 0:
                    whole, sums = whole + total(sums * present), fill(0.0)
        mean = memory.dtype.type((whole + total(sums * present)) / (images_in_block * height * width))
        middle, whole, sums, lines = fill(mean), np.float64(0), fill(0.0), 0
        for i in range(height):
            start = x.at + c * x.plane + i * x.row
            for piece in range(0, end, _PIECE * LANES):
                line = fill(0.0)
                for j in range(piece, min(piece + _PIECE * LANES, end), LANES):
                    distance = load(memory, start + j) - middle
                    line = multiply_add(distance, distance, line)
                sums, lines = sums + line, lines + 1
                if lines % _PIECE == 0:
                    whole, sums = whole + total(sums * present), fill(0.0)
        memory[partial + c] = mean
        memory[partial + channels + c] = whole + total(sums * present)


@instruction("gy:view x:view means:region size:pixels rest:part -> partial:part")
@helper
def norm_sums(memory, accumulate, gy, x, means, size, rest, partial):
    """The sums of gy and of gy (x - mean) of each channel, and in ``rest`` what rounding lost of them."""
    channels, height, width = size
    end = width * LANES
    for c in range(channels):
        mean, lines = fill(element(memory, means + c)), 0
        whole, whole_product, sums, products = np.float64(0), np.float64(0), fill(0.0), fill(0.0)
        for i in range(height):
            u, v = gy.at + c * gy.plane + i * gy.row, x.at + c * x.plane + i * x.row
            for piece in range(0, end, _PIECE * LANES):
                line, product = fill(0.0), fill(0.0)
                for j in range(piece, min(piece + _PIECE * LANES, end), LANES):
                    gradient = load(memory, u + j)
                    line = line + gradient
                    product = multiply_add(gradient, load(memory, v + j) - mean, product)
                sums, products, lines = sums + line, products + product, lines + 1
                if lines % _PIECE == 0:
                    whole, sums = whole + total(sums), fill(0.0)
                    whole_product, products = whole_product + total(products), fill(0.0)
        add_to_sum(memory, partial + c, rest + c, whole + total(sums), accumulate)
        add_to_sum(memory, partial + channels + c, rest + channels + c, whole_product + total(products), accumulate)


@instruction("x:view size:size rest:part -> partial:part")
@helper
def channel_sums(memory, accumulate, x, size, rest, partial):
    """The sum of each channel, and in ``rest`` what rounding lost of it."""
    end = size[2] * LANES
    for c in range(size[0]):
        whole, sums, lines = np.float64(0), fill(0.0), 0
        for i in range(size[1]):
            start = x.at + c * x.plane + i * x.row
            for piece in range(0, end, _PIECE * LANES):
                line = fill(0.0)
                for j in range(piece, min(piece + _PIECE * LANES, end), LANES):
                    line = line + load(memory, start + j)
                sums, lines = sums + line, lines + 1
                if lines % _PIECE == 0:
                    whole, sums = whole + total(sums), fill(0.0)
        add_to_sum(memory, partial + c, rest + c, whole + total(sums), accumulate)


@helper
def add_to_sum(memory, place, rest, value, accumulate):
    """Add to a sum over blocks, or begin it: float64, kept as two float32, what rounding loses beside the rounded."""
    if accumulate:
        value += np.float64(memory[place]) + np.float64(memory[rest])
    memory[place] = value
    memory[rest] = value - np.float64(memory[place])


@instruction("x:view size:size key:key threshold:word scale:number -> y:view(x)")
@helper
def dropout(memory, first, x, size, key, threshold, scale, y):
    """y = scale x where the random bits of the element are at least ``threshold``; see the reference's dropout."""
    channels, height, width = size
    below, factor, zero = fill(threshold - 1), fill(scale), fill(0.0)
    for c in range(channels):
        for i in range(height):
            u, v = x.at + c * x.plane + i * x.row, y.at + c * y.plane + i * y.row
            for j in range(width):
                position = ((first * channels + c) * height + i) * width + j
                bits = random_bits(key, position, channels * height * width)
                store(memory, v + j * LANES, where_greater(bits, below, load(memory, u + j * LANES) * factor, zero))
