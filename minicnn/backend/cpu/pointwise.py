"""Operations on one block that treat every pixel alike, and the sums of batch norm; see blocks.py for the layout."""

import numpy as np

from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import (
    fill,
    first,
    load,
    maximum,
    multiply_add,
    power_of_two,
    round_even,
    store,
    total,
    where_greater,
)

_PIECE = 32  # vectors are added in pieces of this length, and so many pieces before their sum goes to a float64
POINTWISE = ("copy", "relu", "relu_grad", "elu", "elu_grad", "add", "affine", "norm_grad")
"""Names of the operations of :func:`pointwise`, by code."""


@helper
def pointwise(code, memory, a, a_plane, a_row, b, b_plane, b_row, y, y_plane, y_row, size, terms, number, images):
    """y = f(a, b) for every pixel of a block of ``size``; y may be a or b.

    ====  =========  ================================================================================
    code  name       f
    ====  =========  ================================================================================
    0     copy       a
    1     relu       max(a, 0)
    2     relu_grad  a where b > 0, else 0
    3     elu        a where a > 0, else number (e^a - 1)
    4     elu_grad   a where b > 0, else a (b + number): from the output b of ELU
    5     add        max(a + b, number)
    6     affine     max(p a + q, number), p and q of the channel: batch norm
    7     norm_grad  p a + q b + r of the channel, 0 for absent images: the gradient of batch norm
    ====  =========  ================================================================================

    terms: where p, q and r are, one list of all channels after the other.
    """
    channels, height, width = size
    zero, s, present = fill(0.0), fill(number), first(images)
    for c in range(channels):
        p, q, r = fill(memory[terms + c]), fill(memory[terms + channels + c]), zero
        if code == 7:
            p, q, r = p * present, q * present, fill(memory[terms + 2 * channels + c]) * present
        for i in range(height):
            u, v, w = a + c * a_plane + i * a_row, b + c * b_plane + i * b_row, y + c * y_plane + i * y_row
            if code == 0:
                for j in range(0, width * LANES, LANES):
                    store(memory, w + j, load(memory, u + j))
            elif code == 1:
                for j in range(0, width * LANES, LANES):
                    store(memory, w + j, maximum(load(memory, u + j), zero))
            elif code == 2:
                for j in range(0, width * LANES, LANES):
                    store(memory, w + j, where_greater(load(memory, v + j), zero, load(memory, u + j), zero))
            elif code == 3:
                for j in range(0, width * LANES, LANES):
                    value = load(memory, u + j)
                    store(memory, w + j, where_greater(value, zero, value, s * _expm1(value)))
            elif code == 4:
                for j in range(0, width * LANES, LANES):
                    gradient, output = load(memory, u + j), load(memory, v + j)
                    store(memory, w + j, where_greater(output, zero, gradient, gradient * (output + s)))
            elif code == 5:
                for j in range(0, width * LANES, LANES):
                    store(memory, w + j, maximum(load(memory, u + j) + load(memory, v + j), s))
            elif code == 6:
                for j in range(0, width * LANES, LANES):
                    store(memory, w + j, maximum(multiply_add(load(memory, u + j), p, q), s))
            else:
                for j in range(0, width * LANES, LANES):
                    value = multiply_add(load(memory, v + j), q, r)
                    store(memory, w + j, multiply_add(load(memory, u + j), p, value))


@helper
def exp_parts(x):
    """2^n and e^r - 1, where x = n ln 2 + r, for x up to 0: e^x is 2^n (e^r - 1) + 2^n. From -87 down as at -87."""
    x = maximum(x, fill(-87.0))
    n = round_even(x * fill(1.4426950408889634))
    r = multiply_add(n, fill(-0.693359375), x)  # ln 2 in two parts
    r = multiply_add(n, fill(2.12194440e-4), r)
    series = fill(1 / 5040)
    series = multiply_add(series, r, fill(1 / 720))
    series = multiply_add(series, r, fill(1 / 120))
    series = multiply_add(series, r, fill(1 / 24))
    series = multiply_add(series, r, fill(1 / 6))
    series = multiply_add(series, r, fill(1 / 2))
    return power_of_two(n), multiply_add(series * r, r, r)


@helper
def _expm1(x):
    """e^x - 1 for x up to 0."""
    power, rest = exp_parts(x)
    return multiply_add(power, rest, power - fill(1.0))


@helper
def moments(memory, x, plane, row, size, images, out):
    """Mean of each channel over the pixels of ``images`` and the sum of squares about it: out[c], out[C + c]."""
    channels, height, width = size
    present, end = first(images), width * LANES
    for c in range(channels):
        whole, sums, lines = np.float64(0), fill(0.0), 0
        for i in range(height):
            start = x + c * plane + i * row
            for piece in range(0, end, _PIECE * LANES):
                line = fill(0.0)
                for j in range(piece, min(piece + _PIECE * LANES, end), LANES):
                    line = line + load(memory, start + j)
                sums, lines = sums + line, lines + 1
                if lines % _PIECE == 0:
                    whole, sums = whole + total(sums * present), fill(0.0)
        mean = memory.dtype.type((whole + total(sums * present)) / (images * height * width))
        middle, whole, sums, lines = fill(mean), np.float64(0), fill(0.0), 0
        for i in range(height):
            start = x + c * plane + i * row
            for piece in range(0, end, _PIECE * LANES):
                line = fill(0.0)
                for j in range(piece, min(piece + _PIECE * LANES, end), LANES):
                    distance = load(memory, start + j) - middle
                    line = multiply_add(distance, distance, line)
                sums, lines = sums + line, lines + 1
                if lines % _PIECE == 0:
                    whole, sums = whole + total(sums * present), fill(0.0)
        memory[out + c] = mean
        memory[out + channels + c] = whole + total(sums * present)


@helper
def norm_sums(memory, g, g_plane, g_row, x, x_plane, x_row, size, means, out, rest, again):
    """Add, or write if not ``again``, the sums of g and of g (x - mean) of each channel: c and C + c of out, rest."""
    channels, height, width = size
    end = width * LANES
    for c in range(channels):
        mean, lines = fill(memory[means + c]), 0
        whole, whole_product, plain, weighted = np.float64(0), np.float64(0), fill(0.0), fill(0.0)
        for i in range(height):
            u, v = g + c * g_plane + i * g_row, x + c * x_plane + i * x_row
            for piece in range(0, end, _PIECE * LANES):
                line, product = fill(0.0), fill(0.0)
                for j in range(piece, min(piece + _PIECE * LANES, end), LANES):
                    gradient = load(memory, u + j)
                    line = line + gradient
                    product = multiply_add(gradient, load(memory, v + j) - mean, product)
                plain, weighted, lines = plain + line, weighted + product, lines + 1
                if lines % _PIECE == 0:
                    whole, plain = whole + total(plain), fill(0.0)
                    whole_product, weighted = whole_product + total(weighted), fill(0.0)
        _add(memory, out + c, rest + c, whole + total(plain), again)
        _add(memory, out + channels + c, rest + channels + c, whole_product + total(weighted), again)


@helper
def channel_sums(memory, x, plane, row, size, out, rest, again):
    """Add, or write if not ``again``, the sum of each channel: out[c], rest[c]."""
    end = size[2] * LANES
    for c in range(size[0]):
        whole, sums, lines = np.float64(0), fill(0.0), 0
        for i in range(size[1]):
            start = x + c * plane + i * row
            for piece in range(0, end, _PIECE * LANES):
                line = fill(0.0)
                for j in range(piece, min(piece + _PIECE * LANES, end), LANES):
                    line = line + load(memory, start + j)
                sums, lines = sums + line, lines + 1
                if lines % _PIECE == 0:
                    whole, sums = whole + total(sums), fill(0.0)
        _add(memory, out + c, rest + c, whole + total(sums), again)


@helper
def _add(memory, place, rest, value, again):
    """Add to a sum over blocks, or begin it: float64, kept as two float32, what rounding loses beside the rounded."""
    if again:
        value += np.float64(memory[place]) + np.float64(memory[rest])
    memory[place] = value
    memory[rest] = value - np.float64(memory[place])


@helper
def dropout(memory, x, x_plane, x_row, y, y_plane, y_row, size, first_image, key, threshold, scale):
    """y = scale x where the random bits of the element are at least ``threshold``; see the reference's dropout."""
    channels, height, width = size
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                u, v = x + c * x_plane + i * x_row + j * LANES, y + c * y_plane + i * y_row + j * LANES
                for lane in range(LANES):
                    element = (((first_image + lane) * channels + c) * height + i) * width + j
                    z = np.uint64(key) + np.uint64(element + 1) * np.uint64(0x9E3779B97F4A7C15)
                    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                    z = (z ^ (z >> np.uint64(31))) >> np.uint64(40)
                    memory[v + lane] = memory[u + lane] * scale if z >= threshold else np.float32(0)
