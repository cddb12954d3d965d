"""Pooling. A maximum remembers which tap of its window won; an average is a product with two small matrices."""

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import kernel


@kernel(
    lambda x, kernel_size, stride, padding, dilation, output_size: [(*x.shape[:2], *output_size)] * 2,
    lambda x, *_: [x.dtype, "uint16"],
)
def max_pool2d(x, kernel_size, stride, padding, dilation, output_size):
    """Largest value of each window, and which tap it was (the first, in row order; a NaN wins and stays).

    x: (N, C, H, W); windows may reach past the picture, where there is -infinity
    -> y: (N, C, OH, OW), taps: uint16 (N, C, OH, OW), the winning u*KW + v.
    """
    xp = namespace(x)
    kh, kw = kernel_size
    padded = _pad(x, kernel_size, stride, padding, dilation, output_size, -xp.inf)
    y = xp.full((*x.shape[:2], *output_size), -xp.inf, dtype=x.dtype)
    taps = xp.full(y.shape, _first_inside(x.shape, kernel_size, stride, padding, dilation, output_size, xp))
    for u in range(kh):
        for v in range(kw):
            value = padded[_window(u, v, stride, dilation, output_size)]
            wins = (value > y) | (xp.isnan(value) & ~xp.isnan(y))
            y = xp.where(wins, value, y)
            taps = xp.where(wins, xp.uint16(u * kw + v), taps)
    return y, taps


@kernel(lambda gy, taps, shape, *_: shape)
def max_pool2d_grad(gy, taps, shape, kernel_size, stride, padding, dilation):
    """Gradient of ``max_pool2d`` for x of ``shape``: gy goes to the winning taps and adds up where windows overlap."""
    xp = namespace(gy)
    n, c, h, w = shape
    kh, kw = kernel_size
    output_size = gy.shape[2:]
    height, width = _padded_size((h, w), kernel_size, stride, padding, dilation, output_size)
    padded = xp.zeros((n, c, height, width), dtype=gy.dtype)
    for u in range(kh):
        for v in range(kw):
            padded[_window(u, v, stride, dilation, output_size)] += xp.where(taps == u * kw + v, gy, gy.dtype.type(0))
    return padded[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w]


@kernel(lambda x, rows, columns: (*x.shape[:2], len(rows), len(columns)))
def avg_pool2d(x, rows, columns):
    """rows @ x @ columns^T: any averaging over windows of rows and columns, and with the transposes its gradient.

    A row of a matrix is 0 but for one run of factors. Pixels outside of it do not count, whatever they are: infinities
    stay in their windows. x: (N, C, H, W); rows: (OH, H); columns: (OW, W) -> (N, C, OH, OW).
    """
    y = _means(x.transpose(0, 1, 3, 2), rows)  # (N, C, W, OH)
    return _means(y.transpose(0, 1, 3, 2), columns)  # (N, C, OH, OW)


@kernel(lambda like, size, starts, *_: (len(starts), size))
def window_means(like, size, starts, stops, counts):
    """(len(starts), size) matrix in the dtype of ``like`` whose row i has 1/counts[i] in starts[i] <= j < stops[i]."""
    xp = namespace(like)
    matrix = xp.zeros((len(starts), size), dtype=like.dtype)
    for i, (start, stop, count) in enumerate(zip(starts, stops, counts, strict=True)):
        matrix[i, start:stop] = 1 / count
    return matrix


def _means(x, matrix):
    """(..., L) -> (..., len(matrix)): x times the rows of the matrix, where these are not 0."""
    y = namespace(x).zeros((*x.shape[:-1], len(matrix)), dtype=x.dtype)
    for j in range(len(matrix)):
        window = matrix[j] != 0
        y[..., j] = (x[..., window] * matrix[j][window]).sum(axis=-1)
    return y


def _window(u, v, stride, dilation, output_size):
    """Slices of the padded picture that tap (u, v) of every window sees."""
    top, left = u * dilation[0], v * dilation[1]
    return (
        slice(None),
        slice(None),
        slice(top, top + (output_size[0] - 1) * stride[0] + 1, stride[0]),
        slice(left, left + (output_size[1] - 1) * stride[1] + 1, stride[1]),
    )


def _padded_size(size, kernel_size, stride, padding, dilation, output_size):
    """Height and width that all windows cover, at least those of the picture with its padding."""
    reach = ((output_size[i] - 1) * stride[i] + dilation[i] * (kernel_size[i] - 1) + 1 for i in range(2))
    return tuple(max(size[i] + 2 * padding[i], r) for i, r in enumerate(reach))


def _pad(x, kernel_size, stride, padding, dilation, output_size, value):
    height, width = _padded_size(x.shape[2:], kernel_size, stride, padding, dilation, output_size)
    bottom, right = height - x.shape[2] - padding[0], width - x.shape[3] - padding[1]
    pads = ((0, 0), (0, 0), (padding[0], bottom), (padding[1], right))
    return namespace(x).pad(x, pads, constant_values=value)


def _first_inside(shape, kernel_size, stride, padding, dilation, output_size, xp):
    """The first tap of each window that lies on the picture: it wins when the window holds nothing but -infinity."""
    first = []
    for axis in range(2):
        start = xp.arange(output_size[axis]) * stride[axis] - padding[axis]
        first.append(xp.maximum(0, -(start // dilation[axis])))
    return (first[0][:, None] * kernel_size[1] + first[1]).astype(xp.uint16)
