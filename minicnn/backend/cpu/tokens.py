"""Layer norm and attention of one block: of sequences of vectors (N, L, E), as (E, 1, L), so that vectors are columns.

The lanes are images, and no sum goes over lanes but that of a gradient for a weight.
"""

import numpy as np

from minicnn.backend.cpu.exponential import exp
from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import (
    divide,
    element,
    fill,
    first,
    load,
    maximum,
    multiply_add,
    square_root,
    store,
    total,
    where_greater,
)
from minicnn.backend.cpu.pointwise import add_to_sum
from minicnn.backend.cpu.tile import TILES, tile

_PIECE = 16
"""Vectors that are added up before their sum is added to that of others."""


@instruction("x:view size:size -> y:view")
@helper
def turn(memory, x, size, y):
    """y[c, 0, j] = x[j, 0, c]; size: of y."""
    for c in range(size[0]):
        for j in range(size[2]):
            store(memory, y.at + c * y.plane + j * LANES, load(memory, x.at + j * x.plane + c * LANES))


@instruction("x:view weight:region bias:region eps:number size:size -> y:view statistics:view")
@helper
def layer_norm(memory, images_in_block, x, weight, bias, eps, size, y, statistics):
    """y = (x - mean) / sqrt(variance + eps) weight + bias of each vector; mean and 1 / sqrt to the statistics.

    The sums have two levels, and the mean what the distances from it add up to: a long sum rounds more. 1 / sqrt is 0
    for absent images, where the variance is.
    """
    channels, plane, zero = size[0], x.plane, fill(0.0)
    share, one, is_present = fill(np.float32(1) / np.float32(channels)), fill(1.0), first(images_in_block)
    for j in range(0, size[2] * LANES, LANES):
        at, whole = x.at + j, zero
        for piece in range(0, channels, _PIECE):
            sums = zero
            for c in range(piece, min(piece + _PIECE, channels)):
                sums = sums + load(memory, at + c * plane)
            whole = whole + sums
        mean, whole, squares = whole * share, zero, zero
        for piece in range(0, channels, _PIECE):
            sums, square_sums = zero, zero
            for c in range(piece, min(piece + _PIECE, channels)):
                distance = load(memory, at + c * plane) - mean
                sums, square_sums = sums + distance, multiply_add(distance, distance, square_sums)
            whole, squares = whole + sums, squares + square_sums
        rest = whole * share
        mean, variance = mean + rest, squares * share - rest * rest
        scale = divide(one, square_root(maximum(variance, zero) + fill(eps)))
        scale = where_greater(is_present, zero, scale, zero)
        store(memory, statistics.at + j, mean)
        store(memory, statistics.at + statistics.plane + j, scale)
        for c in range(channels):
            value = (load(memory, at + c * plane) - mean) * scale
            w, b = fill(element(memory, weight + c)), fill(element(memory, bias + c))
            store(memory, y.at + c * y.plane + j, multiply_add(value, w, b))


@instruction("gy:view x:view statistics:view weight:region size:size -> gx:view(gy)")
@helper
def layer_norm_grad(memory, gy, x, statistics, weight, size, gx):
    """gx = scale (g - mean of g - xhat mean of g xhat), with g = gy weight and xhat = (x - mean) scale."""
    share, zero = fill(np.float32(1) / np.float32(size[0])), fill(0.0)
    for j in range(0, size[2] * LANES, LANES):
        mean, scale = load(memory, statistics.at + j), load(memory, statistics.at + statistics.plane + j)
        whole, whole_product = zero, zero
        for piece in range(0, size[0], _PIECE):
            sums, products = zero, zero
            for c in range(piece, min(piece + _PIECE, size[0])):
                g = load(memory, gy.at + c * gy.plane + j) * fill(element(memory, weight + c))
                sums = sums + g
                products = multiply_add(g, (load(memory, x.at + c * x.plane + j) - mean) * scale, products)
            whole, whole_product = whole + sums, whole_product + products
        whole, whole_product = whole * share, whole_product * share
        for c in range(size[0]):
            g = load(memory, gy.at + c * gy.plane + j) * fill(element(memory, weight + c))
            xhat = (load(memory, x.at + c * x.plane + j) - mean) * scale
            store(memory, gx.at + c * gx.plane + j, (g - whole - xhat * whole_product) * scale)


@instruction("gy:view x:view statistics:view size:size rest:part -> partial:part")
@helper
def layer_norm_sums(memory, accumulate, gy, x, statistics, size, rest, partial):
    """The gradient for the weight, sums of gy (x - mean) scale, and in ``rest`` what rounding lost of it."""
    for c in range(size[0]):
        whole, u, v = np.float64(0), gy.at + c * gy.plane, x.at + c * x.plane
        for piece in range(0, size[2] * LANES, _PIECE * LANES):
            sums = fill(0.0)
            for j in range(piece, min(piece + _PIECE * LANES, size[2] * LANES), LANES):
                distance = load(memory, v + j) - load(memory, statistics.at + j)
                xhat = distance * load(memory, statistics.at + statistics.plane + j)
                sums = multiply_add(load(memory, u + j), xhat, sums)
            whole += total(sums)
        add_to_sum(memory, partial + c, rest + c, whole, accumulate)


@helper
def _products(shape, memory, table, out, out_row, out_j, a, a_row, a_k, x, x_j, x_k, steps, rows, columns, zeros):
    """out[i, j] = sum_k a[i, k] x[j, k] lane by lane, for at least as many rows as a tile has.

    The last tile may make rows again that one before it made.
    """
    none = memory.dtype.type(-np.inf)
    high, wide = TILES[shape]
    for i in range(0, rows, high):
        first = min(i, rows - high)
        for j in range(0, columns, wide):
            tile(
                1, shape, memory, out + first * out_row, out_row, memory, a + first * a_row, a_row, memory, x, table,
                a_k, out_j + j, x_j + j, x_k, steps, memory, zeros, none,
            )  # fmt: skip


@instruction(
    "shape:word x:view size:size scale:number tokens:word lines:word channels:word zeros:word -> y:view weights:view"
)
@helper
def attention(memory, table, shape, x, size, scale, tokens, lines, channels, zeros, y, weights):
    """y = softmax(scale q k^T) v for each head; x: queries, keys and values, and the softmax to ``weights``.

    size: heads, channels of a head, tokens. tokens, lines, channels: tables of the places of tokens, of the lines of
    ``weights``, and of the channels of x.
    """
    heads, width, length = size
    factor, one = fill(scale), fill(1.0)
    for head in range(heads):
        q, p = x.at + head * width * x.plane, weights.at + head * weights.plane
        k, v = q + heads * width * x.plane, q + 2 * heads * width * x.plane
        _products(
            shape, memory, table, p, weights.row, tokens, q, LANES, channels, k, tokens, channels, width, length,
            length, zeros,
        )  # fmt: skip
        for line in range(p, p + length * weights.row, weights.row):
            highest, sums = load(memory, line), fill(0.0)
            for j in range(line + LANES, line + length * LANES, LANES):
                highest = maximum(load(memory, j), highest)
            for j in range(line, line + length * LANES, LANES):
                value = exp((load(memory, j) - highest) * factor)
                sums = sums + value
                store(memory, j, value)
            share = divide(one, sums)
            for j in range(line, line + length * LANES, LANES):
                store(memory, j, load(memory, j) * share)
        _products(
            shape, memory, table, y.at + head * width * y.plane, y.plane, tokens, v, x.plane, tokens, p, lines, tokens,
            length, width, length, zeros,
        )  # fmt: skip


@instruction(
    "shape:word gy:view x:view weights:view size:size scale:number tokens:word lines:word channels:word "
    "gy_channels:word work_lines:word zeros:word work:place -> gx:view"
)
@helper
def attention_grad(
    memory, table, shape, gy, x, weights, size, scale, tokens, lines, channels, gy_channels, work_lines, zeros, work,
    gx,
):  # fmt: skip
    """The gradient for queries, keys and values; see :func:`attention`. work: room for the scores of a head."""
    heads, width, length = size
    factor, row = fill(scale), length * LANES
    for head in range(heads):
        first, p, g = head * width, weights.at + head * weights.plane, gy.at + head * width * gy.plane
        q, gq = x.at + first * x.plane, gx.at + first * gx.plane
        k, v = q + heads * width * x.plane, q + 2 * heads * width * x.plane
        gk, gv = gq + heads * width * gx.plane, gq + 2 * heads * width * gx.plane
        _products(
            shape, memory, table, gv, gx.plane, tokens, g, gy.plane, tokens, p, tokens, lines, length, width, length,
            zeros,
        )  # fmt: skip
        _products(
            shape, memory, table, work, row, tokens, g, LANES, gy_channels, v, tokens, channels, width, length, length,
            zeros,
        )  # fmt: skip
        for i in range(length):
            line, made, sums = p + i * weights.row, work + i * row, fill(0.0)
            for j in range(0, row, LANES):
                sums = multiply_add(load(memory, made + j), load(memory, line + j), sums)
            for j in range(0, row, LANES):
                store(memory, made + j, (load(memory, made + j) - sums) * load(memory, line + j) * factor)
        _products(
            shape, memory, table, gq, gx.plane, tokens, k, x.plane, tokens, work, work_lines, tokens, length, width,
            length, zeros,
        )  # fmt: skip
        _products(
            shape, memory, table, gk, gx.plane, tokens, q, x.plane, tokens, work, tokens, work_lines, length, width,
            length, zeros,
        )  # fmt: skip
