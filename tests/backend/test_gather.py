"""Gathering pictures in vectors of eight pixels, against the specification: the same expression, so the same bits."""

import numpy as np
import pytest

from minicnn.backend import get
from minicnn.backend.reference import data as reference

KERNELS = get("numpy").kernels
MEAN, STD = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.25])


def check(images, index, flip, dy, dx, mode, mean=MEAN, std=STD):
    arguments = images, index, flip, dy, dx, mean, std, mode
    before = images.copy()
    found, expected = KERNELS.gather_images(*arguments), reference.gather_images(*arguments)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(images, before)


def pictures(width, height=3, count=4, channels=3, dtype="uint8"):
    drawn = np.random.default_rng(width).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return drawn if dtype == "uint8" else drawn.astype(np.float32) / 100 - 1


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("width", range(1, 41))
def test_every_shift_of_a_row(width, mode, dtype):
    reach = 2 * width + 1
    shifts = np.tile(np.arange(-reach, reach + 1), 2)
    flip = np.arange(len(shifts)) < len(shifts) // 2
    index = np.random.default_rng(0).integers(0, 4, len(shifts))
    check(pictures(width, dtype=dtype), index, flip, np.zeros_like(shifts), shifts, mode)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (5, 8), (4, 17), (9, 32)])
def test_every_shift_of_the_rows(height, width, mode):
    reach = 2 * height + 1
    dy = np.tile(np.arange(-reach, reach + 1), 2)
    flip = np.arange(len(dy)) % 2 == 0
    dx = np.random.default_rng(1).integers(1 - width, width, len(dy))
    check(pictures(width, height), np.arange(len(dy)) % 4, flip, dy, dx, mode)


@pytest.mark.parametrize("layout", ["every second", "reversed", "fortran", "transposed", "read-only"])
def test_layouts(layout):
    images, rng = pictures(17, 17, 6), np.random.default_rng(2)
    index, flip = rng.integers(0, 6, 20)[::2], (rng.random(20) < 0.5)[::2]
    dy, dx = rng.integers(-5, 6, (10, 2)).T
    if layout == "read-only":
        images.flags.writeable = False
    pick = {
        "every second": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
        "reversed": lambda a: a[::-1, :, ::-1, ::-1],
        "fortran": np.asfortranarray,
        "transposed": lambda a: a.transpose(0, 1, 3, 2),
        "read-only": lambda a: a,
    }[layout]
    assert not index.flags.c_contiguous and not dx.flags.c_contiguous
    check(pick(images), index, flip, dy, dx, "reflect")


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_channels(channels):
    rng = np.random.default_rng(3)
    mean, std = rng.uniform(0.2, 0.8, (2, channels)).astype(np.float32)
    index, flip = rng.integers(0, 4, 11), rng.random(11) < 0.5
    dy, dx = rng.integers(-4, 5, (2, 11))
    check(pictures(19, 6, channels=channels), index, flip, dy, dx, "constant", mean, std)


def test_floats_are_bytes_divided_by_255():
    """(s/255 - mean) / std of uint8 is (s - mean) / std of float32, to rounding."""
    images, rng = pictures(19, 6), np.random.default_rng(4)
    moves = rng.integers(0, 4, 11), rng.random(11) < 0.5, *rng.integers(-4, 5, (2, 11))
    for kernels in (KERNELS, get("reference").kernels):
        found, expected = (
            kernels.gather_images(x, *moves, MEAN, STD, "reflect") for x in (images.astype(np.float32) / 255, images)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_black_around_a_picture_of_nan_is_black():
    images, index, none = np.full((1, 1, 3, 3), np.nan, np.float32), np.zeros(1, int), np.zeros(1, bool)
    for kernels in (KERNELS, get("reference").kernels):
        found = kernels.gather_images(images, index, none, np.full(1, 2), index, MEAN[:1] * 0, STD[:1], "constant")
        np.testing.assert_array_equal(found[0, 0], [[np.nan] * 3, [0] * 3, [0] * 3])


def test_the_last_picture_is_not_read_past_its_end():
    """Pictures at the very end of their memory, the first at its beginning: all eight pixels are theirs."""
    images = pictures(8, 1, 2, 1)
    for flip in (False, True):
        for dx in range(-8, 9):
            check(images, np.array([0, 1]), np.full(2, flip), np.zeros(2, int), np.full(2, dx), "constant", MEAN[:1],
                  STD[:1])  # fmt: skip


def test_no_pictures():
    none = np.zeros(0, dtype=np.int64)
    check(pictures(9), none, none.astype(bool), none, none, "reflect")
