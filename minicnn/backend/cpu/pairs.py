"""Products of bfloat16, two at a time in each lane of float32 (AVX512_BF16): half the steps of float32.

Such a block holds in a word the bfloat16 of two channels that follow each other, the first in the lower half; so it has
half as many channels. The weights have pairs of input channels alike.
"""

from minicnn.backend.cpu.instruction import instruction
from minicnn.backend.cpu.jit import LANES, helper
from minicnn.backend.cpu.lanes import fill, load, paired, store
from minicnn.backend.cpu.tile import TILES, tile


@instruction("x:view channels:word size:size -> y:view")
@helper
def pair(memory, x, channels, size, y):
    """y = the ``channels`` of x, rounded to bfloat16, in pairs; 0 behind the last. size: of y."""
    zero = fill(0.0)
    for c in range(size[0]):
        for i in range(size[1]):
            low, w = x.at + 2 * c * x.plane + i * x.row, y.at + c * y.plane + i * y.row
            for j in range(0, size[2] * LANES, LANES):
                first = load(memory, low + j) if 2 * c < channels else zero
                second = load(memory, low + x.plane + j) if 2 * c + 1 < channels else zero
                store(memory, w + j, paired(first, second))


@instruction(
    "shape:word weight:place weight_row:word x:place y_columns:word x_columns:word weight_steps:word x_steps:word "
    "steps:word columns:word rows:word bias:region floor:number y_row:word -> y:place"
)
@helper
def pair_products(
    shape, memory, table, y, y_row, weight, weight_row, x, y_columns, x_columns, weight_steps, x_steps, steps, columns,
    rows, bias, floor,
):  # fmt: skip
    """As :func:`minicnn.backend.cpu.blocks.products`, of pairs."""
    high, wide = TILES[shape]
    for i in range(0, rows, high):
        for j in range(0, columns, wide):
            tile(
                3, shape, memory, y + i * y_row, y_row, memory, weight + i * weight_row, weight_row, memory, x, table,
                weight_steps, y_columns + j, x_columns + j, x_steps, steps, memory, bias + i, floor,
            )  # fmt: skip
