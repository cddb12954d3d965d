"""Centre crops and random resized crops, beside torchvision's, or its formulas written out, and PyTorch."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from minicnn.backend import get
from minicnn.backend.reference import data as reference
from minicnn.data import Augment, Dataset, Loader, load_image
from minicnn.data.images import center_crop

RNG = np.random.default_rng(0)
BACKENDS = ("reference", "numpy")


def loader(dataset, batch_size, backend="reference", **options):
    channels = dataset.images.shape[1]
    return Loader(dataset, batch_size, mean=[0] * channels, std=[1] * channels, backend=get(backend), **options)


def resize_and_crop(image, resize, size):
    """torchvision's Resize(resize) and CenterCrop(size) of a picture of Pillow, as its functions compute them."""
    w, h = image.size
    short, long = min(w, h), max(w, h)
    new_short, new_long = resize, int(resize * long / short)
    w, h = (new_short, new_long) if w <= h else (new_long, new_short)
    image = image.resize((w, h), Image.Resampling.BILINEAR)
    top, left = int(round((h - size) / 2.0)), int(round((w - size) / 2.0))
    return image.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("resize, size", [(20, 20), (20, 17), (23, 16), (40, 32), (64, 28)])
@pytest.mark.parametrize("extent", [(30, 50), (51, 30), (37, 37), (20, 20), (9, 64), (33, 32)])
def test_pictures_are_resized_and_cropped_as_by_torchvision(tmp_path, extent, resize, size):
    """Up to one level, as Pillow rounds the place of a part to float32."""
    pixels = RNG.integers(0, 256, (extent[1], extent[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = load_image(tmp_path / "x.png", size, resize=resize).astype(int)
    expected = np.asarray(resize_and_crop(Image.fromarray(pixels), resize, size)).transpose(2, 0, 1)
    assert found.shape == (3, size, size) and abs(found - expected).max() <= 1
    margin = load_image(tmp_path / "x.png", size, resize=resize, margin=True)
    assert margin.shape == (3, resize, resize)
    np.testing.assert_array_equal(center_crop(margin, size), found)


def test_extreme_ratios_take_little_memory(tmp_path):
    """Resize(256) of 20,000 x 1 pixels would have 5,120,000 x 256."""
    Image.new("RGB", (20_000, 1), (10, 20, 30)).save(tmp_path / "x.png")
    found = load_image(tmp_path / "x.png", 224, resize=256)
    assert (found == np.reshape([10, 20, 30], (3, 1, 1))).all()


def test_grey_is_that_of_pillow(tmp_path):
    colour = Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    colour.save(tmp_path / "colour.png")
    np.testing.assert_array_equal(load_image(tmp_path / "colour.png", 9, 1)[0], np.asarray(colour.convert("L")))
    grey = Image.fromarray(RNG.integers(0, 256, (9, 9), dtype=np.uint8))
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(load_image(tmp_path / "grey.png", 9, 1)[0], np.asarray(grey))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 0}, "image_size: expected a whole number from 1 to 16384, received 0"),
        ({"channels": 2}, "channels: expected 1, for grey, or 3, for colours, received 2"),
        ({"size": 40, "resize": 39}, "resize: expected 0, or from image_size, 40, received 39"),
    ],
)
def test_impossible_shapes_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        load_image(tmp_path / "x.png", **options)


@pytest.mark.parametrize("size", [(8, 8), (3, 17), (1, 1), (20, 30)])
@pytest.mark.parametrize("name", BACKENDS)
def test_parts_are_resized_as_by_pytorch(torch, name, size):
    images = RNG.random((3, 2, 15, 22), dtype=np.float32)
    boxes = np.array([[0, 15, 0, 22], [3, 4, 5, 6], [2, 15, 7, 9], [0, 8, 14, 22], [1, 4, 0, 21]])
    index = np.array([0, 1, 2, 1, 0])
    found = get(name).kernels.crop_images(images, index, boxes, size)
    assert found.shape == (5, 2, *size) and found.dtype == np.float32
    for picture, i, (top, bottom, left, right) in zip(found, index, boxes, strict=True):
        part = torch.from_numpy(images[i : i + 1, :, top:bottom, left:right].copy())
        expected = torch.nn.functional.interpolate(part, size, mode="bilinear", antialias=True)[0].numpy()
        np.testing.assert_allclose(picture, expected, atol=2e-6)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_part_of_the_right_size_keeps_its_pixels(name):
    images = RNG.integers(0, 256, (2, 3, 9, 11), dtype=np.uint8)
    boxes = np.array([[2, 7, 1, 9], [4, 9, 3, 11]])
    found = get(name).kernels.crop_images(images, np.array([1, 0]), boxes, (5, 8))
    np.testing.assert_array_equal(found[0], images[1, :, 2:7, 1:9] / np.float32(255))
    np.testing.assert_array_equal(found[1], images[0, :, 4:9, 3:11] / np.float32(255))


def torchvisions_draw(uniform, integer, width, height, scale, ratio):
    """RandomResizedCrop.get_params with the numbers that it draws: uniform(low, high), integer(low, high)."""
    area = height * width
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        target_area = area * uniform(*scale)
        aspect_ratio = math.exp(uniform(*log_ratio))
        w = int(round(math.sqrt(target_area * aspect_ratio)))
        h = int(round(math.sqrt(target_area / aspect_ratio)))
        if 0 < w <= width and 0 < h <= height:
            i, j = integer(0, height - h + 1), integer(0, width - w + 1)
            return i, i + h, j, j + w
    in_ratio = width / height
    if in_ratio < min(ratio):
        w, h = width, int(round(width / min(ratio)))
    elif in_ratio > max(ratio):
        w, h = int(round(height * max(ratio))), height
    else:
        w, h = width, height
    i, j = (height - h) // 2, (width - w) // 2
    return i, i + h, j, j + w


@pytest.mark.parametrize("size, scale, ratio", [
    ((32, 32), (0.08, 1.0), (3 / 4, 4 / 3)), ((20, 48), (0.3, 0.9), (0.5, 1.0)), ((64, 64), (0.9, 1.0), (1.2, 3.0)),
])  # fmt: skip
def test_random_parts_follow_the_law_of_torchvision(size, scale, ratio):
    """Area, ratio and place: two samples, by Kolmogorov and Smirnov's test."""
    n, rng = 4000, np.random.default_rng(5)
    found = Augment(random_resized_crop=True, crop_scale=scale, crop_ratio=ratio).draw_crops(rng, n, size)
    expected = np.array([torchvisions_draw(rng.uniform, rng.integers, *size[::-1], scale, ratio) for _ in range(n)])
    assert found.shape == (n, 4) and found.dtype == np.int64
    for top, bottom, left, right in (found.T, expected.T):
        assert (top >= 0).all() and (left >= 0).all() and (bottom <= size[0]).all() and (right <= size[1]).all()
    for measure in (
        lambda b: (b[:, 1] - b[:, 0]) * (b[:, 3] - b[:, 2]),
        lambda b: (b[:, 3] - b[:, 2]) / (b[:, 1] - b[:, 0]),
        lambda b: b[:, 0] + b[:, 1],
        lambda b: b[:, 2] + b[:, 3],
    ):
        assert stats.ks_2samp(measure(found), measure(expected)).pvalue > 1e-3


@pytest.mark.parametrize("size, ratio, box", [
    ((8, 100), (3 / 4, 4 / 3), (0, 8, 44, 55)),  # 8 x 11 of 100 columns
    ((100, 9), (3 / 4, 4 / 3), (44, 56, 0, 9)),
])  # fmt: skip
def test_where_no_part_fits_the_middle_is_shown(size, ratio, box):
    augment = Augment(random_resized_crop=True, crop_scale=(1.0, 1.0), crop_ratio=ratio)
    found = augment.draw_crops(np.random.default_rng(0), 50, size)
    assert (found == box).all()
    assert torchvisions_draw(np.random.default_rng(0).uniform, None, *size[::-1], (1, 1), ratio) == box
    least = Augment(random_resized_crop=True, crop_ratio=(500.0, 1000.0)).draw_crops(
        np.random.default_rng(0), 9, (9, 9)
    )
    assert (least == [4, 5, 0, 9]).all()  # of a height below half a pixel, one is left


def noise(n=12, channels=3, size=(20, 20)):
    images = RNG.integers(0, 256, (n, channels, *size), dtype=np.uint8)
    return Dataset(images, np.arange(n) % 2, ("a", "b"), "noise")


@pytest.mark.parametrize("name", BACKENDS)
def test_batches_show_the_parts_that_are_drawn(torch, name):
    dataset, augment = noise(), Augment(random_resized_crop=True)
    batches = loader(dataset, 12, name, augment=augment, image_size=14, seed=3)
    found, _ = next(batches.epoch(2))
    boxes = augment.draw_crops(batches._rng(2, 1), 12, (20, 20))
    assert len(np.unique(boxes, axis=0)) > 6
    for picture, image, (top, bottom, left, right) in zip(found, dataset.images, boxes, strict=True):
        part = torch.from_numpy(image[None, :, top:bottom, left:right] / np.float32(255))
        expected = torch.nn.functional.interpolate(part, (14, 14), mode="bilinear", antialias=True)[0].numpy()
        np.testing.assert_allclose(picture, expected, atol=2e-6)


def test_without_augmentation_the_middle_is_shown():
    dataset = noise(size=(21, 21))
    for augment in (None, Augment(random_resized_crop=True, flip=0.5)):
        found, _ = next(loader(dataset, 12, augment=augment, image_size=14).epoch(0, augment=False))
        np.testing.assert_allclose(found, dataset.images[:, :, 4:18, 4:18] / 255, atol=1e-6)  # round(3.5) is 4
    np.testing.assert_array_equal(dataset.center_crop(14).images, dataset.images[:, :, 4:18, 4:18])
    assert dataset.center_crop(0) is dataset.center_crop(21) is dataset


def test_parts_are_moved_and_recoloured_like_whole_pictures():
    """The part of a picture, as a picture of its own, is changed by everything else in the same way."""
    changes = {"flip": 0.5, "shift": 2, "rotation": 20, "zoom": 0.2, "contrast": 0.4, "sharpness": 2.0, "erasing": 0.5}
    everything = Augment(random_resized_crop=True, **changes)
    dataset = noise()
    found, _ = next(loader(dataset, 12, augment=everything, image_size=16, seed=1).epoch(0))
    rng = loader(dataset, 12, seed=1)._rng(0, 1)
    boxes = everything.draw_crops(rng, 12, (20, 20))
    parts = reference.crop_images(dataset.images, np.arange(12), boxes, (16, 16))
    others = loader(Dataset(parts, dataset.labels, ("a", "b"), "parts"), 12, augment=Augment(**changes))
    others._rng = lambda *stream: rng  # goes on where the parts were drawn
    expected, _ = next(others.epoch(0))
    np.testing.assert_array_equal(found, expected)


def test_impossible_options_are_refused():
    for options, message in (
        ({"crop_scale": (0.5, 0.2)}, "crop_scale: expected the least first, received 0.5, 0.2"),
        ({"crop_scale": (0.0, 1.0)}, r"crop_scale\[0\]: expected a number above 0 to 1, received 0"),
        ({"crop_scale": (0.5,)}, "crop_scale: expected a list of 2"),
        ({"crop_ratio": (1.0, 2000.0)}, r"crop_ratio\[1\]: expected a number from 0.001 to 1000"),
    ):
        with pytest.raises(ValueError, match=message):
            Augment(**options)
    with pytest.raises(
        ValueError, match=r"expected image_size of at most that of the pictures, \(20, 20\), received 21"
    ):
        loader(noise(), 4, image_size=21)
    assert Augment(crop_scale=[0.5, 1.0]) == Augment(crop_scale=(0.5, 1.0))
