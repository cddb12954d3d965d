"""From stored pictures to a batch, in one launch."""

from minicnn.backend.cuda.launch import cupy, launch
from minicnn.backend.reference.data import white

_MODES = {"constant": 0, "reflect": 1, "replicate": 2}


def gather_images(images, index, flip, dy, dx, mean, std, mode):
    return _batch("gather_images", "gather_floats", images, index, flip, dy, dx, mean, std, mode=mode)


def warp_images(images, index, matrix, mean, std, mode):
    return _batch("warp_images", "warp_floats", images, index, matrix, mean, std, mode=mode)


def _batch(of_bytes, of_floats, images, index, *operands, mode):
    c, h, w = images.shape[1:]
    y = cupy.empty((len(index), c, h, w), dtype="float32")
    name = of_bytes if images.dtype == "uint8" else of_floats
    launch(name, y.dtype, y.size, images, index, *operands, float(white(images)), _MODES[mode], y, c, h, w, y.size)
    return y
