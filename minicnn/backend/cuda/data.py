"""From stored pictures to a batch, in one launch."""

from minicnn.backend.cuda.launch import cupy, launch

_MODES = {"constant": 0, "reflect": 1, "replicate": 2}


def gather_images(images, index, flip, dy, dx, mean, std, mode):
    return _batch("gather_images", images, index, flip, dy, dx, mean, std, _MODES[mode])


def warp_images(images, index, matrix, mean, std, mode):
    return _batch("warp_images", images, index, matrix, mean, std, _MODES[mode])


def _batch(name, images, index, *operands):
    c, h, w = images.shape[1:]
    y = cupy.empty((len(index), c, h, w), dtype="float32")
    launch(name, y.dtype, y.size, images, index, *operands, y, c, h, w, y.size)
    return y
