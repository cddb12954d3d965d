"""From stored pictures to a batch: gather, move, warp and normalise, and what is done to the batch afterwards."""

import math

from minicnn.backend.arrays import namespace
from minicnn.backend.kernel import kernel, like_first, nbytes


def _gathered(images, index, *_):
    """The shape of a batch of ``images``."""
    return len(index), *images.shape[1:]


def _gathered_bytes(arguments, outputs):
    """Of all images, those of the batch are read."""
    images, *others = arguments
    return math.prod(outputs[0].shape) * images.dtype.itemsize + nbytes([*others, *outputs])


@kernel(_gathered, "float32", bytes=_gathered_bytes)
def gather_images(images, index, flip, dy, dx, mean, std, mode):
    """A normalised float32 batch of shifted and mirrored pictures.

    y[i,c,h,w] = (s/white - mean[c]) / std[c], s = images[index[i], c, h + dy[i], (W-1-w if flip[i] else w) + dx[i]];
    outside the picture s is mirrored at the edge pixel (mode "reflect"), the edge pixel ("replicate") or 0
    ("constant"), as in torch.nn.functional.pad. White is 255 of uint8, and 1 of float32.
    images: uint8 or float32 (M, C, H, W); index, dy, dx: int64 (N,), shifts of any size; flip: bool (N,);
    mean, std: float32 (C,) -> float32 (N, C, H, W).
    """
    xp = namespace(images)
    h, w = images.shape[2:]
    rows = xp.arange(h) + dy[:, None]  # (N, H)
    columns = xp.where(flip[:, None], w - 1 - xp.arange(w), xp.arange(w)) + dx[:, None]  # (N, W)
    pixels = _pixels(images, index[:, None, None], rows[:, :, None], columns[:, None, :], mode, xp)
    return _normalised(pixels, white(images), mean, std, xp)


@kernel(_gathered, "float32", bytes=_gathered_bytes)
def warp_images(images, index, matrix, mean, std, mode):
    """A normalised float32 batch of pictures under affine maps, sampled bilinearly.

    y[i,c,h,w] = (s/white - mean[c]) / std[c], s between the four pixels of images[index[i], c] around column
    matrix[i,0] . (w, h, 1) and row matrix[i,1] . (w, h, 1): the inverse map, from the new picture to the old one.
    White, and pixels outside the picture, are those of :func:`gather_images`.
    images: uint8 or float32 (M, C, H, W); index: int64 (N,); matrix: float32 (N, 2, 3); mean, std: float32 (C,)
    -> float32 (N, C, H, W).
    """
    xp = namespace(images)
    h, w = images.shape[2:]
    across, down = xp.arange(w, dtype=xp.float32), xp.arange(h, dtype=xp.float32)[:, None]
    m = matrix[:, :, :, None, None]
    x, y = (m[:, i, 0] * across + (m[:, i, 1] * down + m[:, i, 2]) for i in (0, 1))  # (N, H, W)
    left, top = xp.floor(x), xp.floor(y)
    column, row, index = left.astype(xp.int64), top.astype(xp.int64), index[:, None, None]
    a, b = (x - left)[..., None], (y - top)[..., None]

    def between(row):
        first, second = (_pixels(images, index, row, c, mode, xp).astype(xp.float32) for c in (column, column + 1))
        return first + (second - first) * a

    upper, lower = between(row), between(row + 1)
    return _normalised(upper + (lower - upper) * b, white(images), mean, std, xp)


def _cropped(images, index, boxes, size):
    """The shape of a batch of parts of ``images``."""
    return len(index), images.shape[1], *size


@kernel(_cropped, "float32")
def crop_images(images, index, boxes, size):
    """A float32 batch of parts of pictures, resized with a triangle filter, antialiased on the way down; white is 1.

    Rows boxes[i,0] to boxes[i,1] - 1 and columns boxes[i,2] to boxes[i,3] - 1 of images[index[i]], resized to ``size``
    as torch.nn.functional.interpolate(mode="bilinear", antialias=True) does it: pixels of the part weigh
    max(1 - d / s, 0), d their distance from the centre of the new pixel, s the scale, 1 or more; their sum is 1.
    images: uint8 or float32 (M, C, H, W); index: int64 (N,); boxes: int64 (N, 4), not empty, within the picture;
    size: (h, w) -> float32 (N, C, h, w).
    """
    xp = namespace(images)
    place = index[:, None, None]
    rows, row_weights = taps(boxes[:, :2], images.shape[2], size[0], xp)
    columns, column_weights = taps(boxes[:, 2:], images.shape[3], size[1], xp)
    y = 0
    for k in range(rows.shape[2]):
        row = 0
        for j in range(columns.shape[2]):
            pixels = images[place, :, rows[:, :, None, k], columns[:, None, :, j]]  # (N, h, w, C)
            row = row + pixels.astype(xp.float32) * column_weights[:, None, :, None, j]
        y = y + row * row_weights[:, :, None, None, k]
    return xp.ascontiguousarray((y / xp.float32(white(images))).transpose(0, 3, 1, 2))


def taps(edges, length, size, xp):
    """Where the pixels of a resized part come from along an axis of ``length``: indices int64, weights float32.

    edges: int64 (N, 2), the first and behind the last -> (N, size, K) each; where fewer than K count, others weigh 0.
    """
    first, last = edges[:, :1], edges[:, 1:]
    scale = (last - first) / size
    reach = xp.maximum(scale, 1.0)
    centre = first + scale * (xp.arange(size) + 0.5)  # (N, size)
    start = xp.floor(centre - reach + 0.5).astype(xp.int64)
    count = math.ceil(2 * max(length / size, 1)) + 1
    index = start[..., None] + xp.arange(count)
    weights = xp.maximum(1 - abs(index + 0.5 - centre[..., None]) / reach[..., None], 0.0)
    weights = xp.where((index >= first[..., None]) & (index < last[..., None]), weights, 0.0)
    weights = weights / weights.sum(axis=2, keepdims=True)
    return xp.clip(index, first[..., None], last[..., None] - 1), weights.astype(xp.float32)


@kernel(like_first)
def adjust_colors(x, brightness, contrast, saturation):
    """Brightness, contrast and saturation, in this order, each a blend clamped to [0, 1].

    y = factor x + (1 - factor) o, with o black, the picture's mean grey, and the pixel's grey: torchvision's
    ColorJitter. A factor of 1 changes nothing. Grey is 0.2989 R + 0.587 G + 0.114 B of three channels, and the mean of
    any other number of them; of one it is the pixel itself, so that saturation changes nothing.
    x: (N, C, H, W) in [0, 1]; brightness, contrast, saturation: (N,), 0 or more -> (N, C, H, W).
    """
    xp = namespace(x)
    b, c, s = (factor[:, None, None, None] for factor in (brightness, contrast, saturation))
    y = xp.clip(x * b, 0, 1)
    # Whole numbers: their sum, and so the bits of the mean, does not depend on the order, which differs by backend.
    total = (_grey(y) * 2**24).astype(xp.int64).sum(axis=(1, 2, 3), keepdims=True)
    mean = (total / (2**24 * x[0, 0].size)).astype(x.dtype)
    y = xp.clip(y * c + mean * (1 - c), 0, 1)
    return xp.clip(y * s + _grey(y) * (1 - s), 0, 1) if x.shape[1] > 1 else y


@kernel(like_first)
def adjust_sharpness(x, factor):
    """Sharper pictures, or with a factor below 1 smoother ones: torchvision's adjust_sharpness.

    y = factor x + (1 - factor) o clamped to [0, 1], o the mean of the 3x3 window whose middle counts five times; pixels
    at the border stay, and so do pictures of less than 3 pixels a side. x: (N, C, H, W) in [0, 1]; factor: (N,).
    """
    xp = namespace(x)
    y = xp.clip(x, 0, 1)
    if min(x.shape[2:]) > 2:
        f, middle = factor[:, None, None, None], x[:, :, 1:-1, 1:-1]
        three = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
        smooth = (three[:, :, :-2] + three[:, :, 1:-1] + three[:, :, 2:] + 4 * middle) * (1 / 13)
        y[:, :, 1:-1, 1:-1] = xp.clip(middle * f + smooth * (1 - f), 0, 1)
    return y


@kernel(like_first)
def normalize_images(x, mean, std):
    """(x - mean) / std per channel. x: (N, C, H, W); mean, std: (C,) -> (N, C, H, W)."""
    return (x - mean[:, None, None]) * (1 / std)[:, None, None]


@kernel(like_first)
def erase_images(x, boxes):
    """0 in one rectangle of each picture.

    boxes: int64 (N, 4), rows boxes[i,0] <= h < boxes[i,1] and columns boxes[i,2] <= w < boxes[i,3]; a box may reach
    over the edges, or be empty. x: (N, C, H, W) -> (N, C, H, W).
    """
    xp = namespace(x)
    top, bottom, left, right = boxes.T[:, :, None]  # (N, 1) each
    rows, columns = xp.arange(x.shape[2]), xp.arange(x.shape[3])
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
    return xp.where(inside[:, None], xp.zeros_like(x[:1, :1]), x)


@kernel(like_first)
def mix_images(x, order, weight):
    """y[i] = weight x[i] + (1 - weight) x[order[i]]. x: (N, C, H, W); order: int64 (N,); weight: (H, W) in [0, 1]."""
    return x * weight + x[order] * (1 - weight)


def _pixels(images, index, row, column, mode, xp):
    """Pixels at integer positions anywhere: index (N, 1, 1), row and column broadcast to (N, H, W) -> (N, H, W, C)."""
    h, w = images.shape[2:]
    pixels = images[index, :, _place(row, h, mode, xp), _place(column, w, mode, xp)]
    if mode == "constant":
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
        pixels = xp.where(inside[..., None], pixels, xp.zeros_like(pixels[:1, :1, :1]))
    return pixels


def _place(position, size, mode, xp):
    """Where the element at ``position`` of an endless axis comes from, in 0..size-1."""
    if mode != "reflect":
        return xp.clip(position, 0, size - 1)
    period = max(2 * (size - 1), 1)
    position = position % period
    return xp.minimum(position, period - position) if size > 1 else position


def white(images):
    """The value of a white pixel."""
    return 255 if images.dtype == "uint8" else 1


def _normalised(pixels, white, mean, std, xp):
    """(N, H, W, C) of 0 to white -> float32 (N, C, H, W)."""
    y = pixels.astype(xp.float32) * (1 / (white * std)) - mean / std
    return xp.ascontiguousarray(y.transpose(0, 3, 1, 2))


def _grey(x):
    """(N, C, H, W) -> (N, 1, H, W)."""
    if x.shape[1] != 3:
        total = x[:, :1]
        for channel in range(1, x.shape[1]):  # in order, for the same bits on every backend
            total = total + x[:, channel : channel + 1]
        return total * (1 / x.shape[1])
    return 0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
