"""Batches: their order, their augmentation and their values."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import backend
from minicnn.data import Augment, Dataset, Loader

RNG = np.random.default_rng(0)
DATASET = Dataset(RNG.integers(0, 256, (23, 3, 6, 9), dtype=np.uint8), np.arange(23) % 10, tuple("0123456789"), "made")
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
COLOURS = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5, "sharpness": 3.0}
AFFINE = {"shift": 2, "rotation": 20, "translate": 0.1, "shear": 10, "zoom": 0.2}
EVERYTHING = AFFINE | COLOURS | {"erasing": 0.5, "cutout": 3, "mixup": 0.4, "cutmix": 1.0}


def make(batch_size=5, dataset=DATASET, **options):
    options = {"backend": backend.get("reference"), "mean": MEAN, "std": STD} | options
    return Loader(dataset, batch_size, **options)


def batches(loader, epoch=0, *more):
    return [(images.copy(), labels.copy()) for images, labels in loader.epoch(epoch, *more)]


def assert_same(one, two):
    assert len(one) == len(two)
    for (images, labels), (other_images, other_labels) in zip(one, two, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


@pytest.mark.parametrize("drop_last, sizes", [(False, [5, 5, 5, 5, 3]), (True, [5, 5, 5, 5])])
def test_in_order_and_normalised(drop_last, sizes):
    loader = make(drop_last=drop_last)
    result = batches(loader, 0)
    assert [len(labels) for _, labels in result] == sizes and len(loader) == len(sizes)
    n = sum(sizes)
    images, labels = (np.concatenate(part) for part in zip(*result, strict=True))
    assert images.dtype == np.float32 and labels.dtype == np.int64
    np.testing.assert_array_equal(labels, DATASET.labels[:n])
    mean, std = np.reshape(MEAN, (3, 1, 1)), np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(images, (DATASET.images[:n] / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_shuffling_visits_every_record_once_and_differs_by_epoch_and_seed():
    def visit(seed, epoch):
        index = {image.tobytes(): i for i, image in enumerate(next(iter(make(23).epoch(0)))[0])}
        loader = make(shuffle=True, seed=seed)
        return [index[image.tobytes()] for images, _ in loader.epoch(epoch) for image in images]

    first = visit(1, 0)
    assert sorted(first) == list(range(23)) and first != sorted(first)
    assert visit(1, 0) == first != visit(1, 1) and visit(2, 0) != first


def test_an_epoch_is_taken_up_in_the_middle_with_the_same_bits():
    options = {"shuffle": True, "augment": Augment(0.5, 2), "seed": 5}
    whole = batches(make(**options), 3)
    for start in range(6):
        assert_same(batches(make(**options), 3, start), whole[start:])


@pytest.mark.parametrize("padding_mode", ["constant", "reflect", "replicate"])
def test_with_everything_on_an_epoch_is_taken_up_in_the_middle_with_the_same_bits(padding_mode):
    augment = Augment(padding_mode=padding_mode, **EVERYTHING)
    options = {"shuffle": True, "augment": augment, "seed": 5}
    whole = batches(make(**options), 3)
    for start in range(6):
        assert_same(batches(make(**options), 3, start), whole[start:])
    for other in (batches(make(**options), 4), batches(make(**options | {"seed": 6}), 3)):
        assert not np.array_equal(other[0][0], whole[0][0])
    assert_same(batches(make(backend=backend.get("numpy"), **options), 3), whole)


@pytest.mark.parametrize(
    "augment, digest",
    [
        (None, "77be7a7423a17d3fbd379b854def3da9"),
        (Augment(0.5, 3), "1ab51a87d78e78c1298ed90146164e32"),
        (Augment(0.3, 2, "constant"), "261fde1ffeed9dc86dd14dbb108f401f"),
    ],
)
@pytest.mark.parametrize("name", ["reference", "numpy"])
def test_flips_and_shifts_give_the_bits_that_published_results_rest_on(name, augment, digest):
    found = hashlib.sha256()
    for batch in make(shuffle=True, augment=augment, seed=7, backend=backend.get(name)).epoch(2):
        for array in batch:
            found.update(array.tobytes())
    assert found.hexdigest().startswith(digest)


def test_alternating_flips_show_each_picture_both_ways_in_turn():
    def flipped(epoch, **options):
        """Which pictures of an epoch are mirrored, by their numbers."""
        loader = make(shuffle=True, augment=Augment(0.4, alternate=True), seed=3, **options)
        found = {}
        for images, _ in loader.epoch(epoch):
            for image in images:
                (number,) = [
                    i for i, plain in enumerate(PLAIN) if any((image == v).all() for v in (plain, plain[..., ::-1]))
                ]
                found[number] = bool((image == PLAIN[number][..., ::-1]).all())
        return [found[i] for i in range(23)]

    PLAIN = next(make(23).epoch(0))[0].copy()
    first = flipped(0)
    assert 3 <= sum(first) <= 16
    assert flipped(1) == flipped(3) == [not x for x in first] and flipped(2) == flipped(0, batch_size=7) == first


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_other_channels_and_floats_with_everything_on(channels, dtype):
    levels = np.random.default_rng(1).integers(0, 256, (12, channels, 6, 9), dtype=np.uint8)
    images = levels if dtype == np.uint8 else levels / np.float32(255)
    dataset = Dataset(images, np.arange(12) % 3, tuple("abc"), "made")
    scaling = {"mean": [0.4] * channels, "std": [0.2] * channels}
    (plain, _), *_ = batches(make(12, dataset, **scaling))
    np.testing.assert_allclose(plain, (levels / 255 - 0.4) / 0.2, rtol=1e-5, atol=1e-6)
    found, expected = (
        batches(make(5, dataset, augment=Augment(**EVERYTHING), backend=backend.get(name), **scaling), 2)
        for name in ("numpy", "reference")
    )
    assert_same(found, expected)
    assert found[0][0].shape == (5, channels, 6, 9) and np.isfinite(found[0][0]).all()


def kernels_of(**options):
    """The kernels that one batch calls, in their order."""
    calls, kernels = [], backend.get("reference").kernels

    def spy(name):
        return lambda *arguments: calls.append(name) or getattr(kernels, name)(*arguments)

    names = [name for name in vars(kernels) if name.endswith("_images") or name.startswith("adjust_")]
    recorder = backend.Backend("reference", np, SimpleNamespace(**{name: spy(name) for name in names}))
    next(make(augment=Augment(**options), backend=recorder).epoch(0))
    return calls


def test_only_what_is_on_is_computed():
    assert kernels_of(flip=0.5, shift=2) == ["gather_images"]
    assert kernels_of(rotation=5, zoom=0.1) == ["warp_images"]
    assert kernels_of(contrast=0.1) == ["gather_images", "adjust_colors", "normalize_images"]
    assert kernels_of(sharpness=0.5) == ["gather_images", "adjust_sharpness", "normalize_images"]
    assert kernels_of(erasing=0.1) == ["gather_images", "erase_images"]
    assert kernels_of(**EVERYTHING) == [
        "warp_images", "adjust_colors", "adjust_sharpness", "normalize_images",
        "erase_images", "erase_images", "mix_images",
    ]  # fmt: skip


def test_augmentation_is_switched_off_for_an_epoch():
    loader = make(shuffle=True, augment=Augment(**EVERYTHING), seed=5)
    assert_same(batches(loader, 3, 1, False), batches(make(shuffle=True, seed=5), 3, 1))


@pytest.mark.parametrize("change", [{"brightness": 0.1}, {"contrast": 0.1}, {"saturation": 0.1}, {"sharpness": 2}])
@pytest.mark.parametrize("pixel", [-0.5, 1.5])
def test_colours_of_floats_beyond_white_are_refused(change, pixel):
    """They would become black or white."""
    images = np.full((2, 1, 4, 4), 0.5, np.float32)
    images[1, 0, 2, 3] = pixel
    dataset = Dataset(images, np.arange(2), ("a", "b"), "x")
    how = {"mean": [0], "std": [1], "backend": backend.get("reference")}
    least, most = min(pixel, 0.5), max(pixel, 0.5)
    with pytest.raises(ValueError, match=f"expected pixels of float32 from 0 to 1,.*received {least:g} to {most:g}"):
        Loader(dataset, 2, augment=Augment(**change), **how)
    Loader(dataset, 2, augment=Augment(rotation=3), **how)


def test_labels_are_probabilities_where_pictures_are_mixed():
    for options in ({"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 2.0}):
        for images, labels in make(augment=Augment(**options)).epoch(0):
            assert labels.shape == (len(images), 10) and labels.dtype == np.float32
            assert (labels >= 0).all() and ((labels > 0).sum(axis=1) <= 2).all()
            np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)


def colours_of_classes():
    """Four pictures of each class k, all of the one level 20 k + 10: levels tell what a pixel is made of."""
    labels = np.arange(40) % 10
    levels = (20 * labels + 10).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(levels, (40, 3, 8, 12)).copy()
    return Dataset(images, labels, tuple("0123456789"), "levels")


@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.3, "cutmix": 0.7}])
def test_probabilities_are_the_shares_of_the_pixels(options):
    """The mean level of a mixed picture is the mean of the levels of its classes, weighted by their probabilities."""
    loader = make(20, colours_of_classes(), augment=Augment(0.5, **options), mean=(0, 0, 0), std=(1, 1, 1))
    mixed = 0
    for epoch in range(5):
        for images, labels in loader.epoch(epoch):
            np.testing.assert_allclose(images.mean(axis=(1, 2, 3)) * 255, labels @ (20 * np.arange(10) + 10), atol=1e-3)
            mixed += ((labels > 0).sum(axis=1) == 2).sum()
    assert mixed > 50


def test_what_is_erased_is_zero_after_normalisation_and_then_mixed():
    everything = AFFINE | COLOURS | {"cutout": 4}
    images, _ = next(make(23, augment=Augment(**everything)).epoch(0))
    holes = (images == 0).all(axis=1).sum(axis=(1, 2))
    assert ((holes >= 4) & (holes <= 16)).all() and holes.max() == 16  # as much as lies within the picture
    white = Dataset(np.full((50, 3, 6, 9), 255, np.uint8), np.zeros(50, np.int64), ("a",), "white")
    mixed, _ = next(make(50, white, augment=Augment(0, cutout=4, mixup=5.0), mean=(0, 0, 0), std=(1, 1, 1)).epoch(0))
    assert len(np.unique(np.round(mixed, 4))) > 2  # a hole shows the other picture


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 7), (2, 3, 5, 1), (1, 3, 2, 2)])
@pytest.mark.parametrize("name", ["reference", "numpy"])
def test_small_pictures_and_batches_of_one(name, shape):
    dataset = Dataset(RNG.integers(0, 256, shape, dtype=np.uint8), np.zeros(shape[0], np.int64), ("a",), "small")
    augment = Augment(**(EVERYTHING | {"shift": 0}))
    for images, labels in make(1, dataset, augment=augment, backend=backend.get(name)).epoch(0):
        assert images.shape == (1, *shape[1:]) and np.isfinite(images).all()
        np.testing.assert_allclose(labels, [[1]], atol=1e-6)


def test_flips_and_shifts_are_numpys_reflected_crops():
    augment = Augment(0.5, 3)
    (images, labels), *_ = batches(make(23, augment=augment, seed=2, mean=(0, 0, 0), std=(1, 1, 1)), 4)
    flip, dy, dx = augment.draw(make(seed=2)._rng(4, 1), 23)
    padded = np.pad(DATASET.images, ((0, 0), (0, 0), (3, 3), (3, 3)), mode="reflect")
    for i in range(23):
        crop = padded[i, :, 3 + dy[i] : 9 + dy[i], 3 + dx[i] : 12 + dx[i]]
        np.testing.assert_allclose(images[i], (crop[:, :, ::-1] if flip[i] else crop) / 255, rtol=1e-6)
    np.testing.assert_array_equal(labels, DATASET.labels)


def test_constant_padding_is_black():
    white = Dataset(np.full((50, 3, 6, 9), 255, np.uint8), np.zeros(50, np.int64), ("a",), "white")
    images, _ = next(iter(make(50, white, augment=Augment(0, 5, "constant"), mean=(0, 0, 0), std=(1, 1, 1)).epoch(0)))
    assert sorted(np.unique(np.round(images, 5))) == [0, 1]


def test_draws_cover_their_range_evenly():
    flip, dy, dx = Augment(0.25, 2).draw(np.random.default_rng(0), 100_000)
    assert flip.dtype == bool and dy.dtype == dx.dtype == np.int64
    assert flip.mean() == pytest.approx(0.25, abs=0.01)
    for shifts in (dy, dx):
        np.testing.assert_allclose(np.bincount(shifts + 2) / 100_000, [0.2] * 5, atol=0.01)
    assert abs(np.corrcoef([flip, dy, dx]) - np.eye(3)).max() < 0.02


def test_order_and_augmentation_are_separate_streams():
    loader = make(seed=3)
    streams = [loader._rng(epoch, i).random() for epoch in range(5) for i in range(5)]
    assert len(set(streams)) == 25


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "expected batch_size from 1, received 0"),
        ({"batch_size": 24, "drop_last": True}, "no batch of 24 in the 23 records"),
        ({"dataset": DATASET.subset(np.arange(0))}, "no batch of 5 in the 0 records"),
        ({"mean": [0.5], "std": [0.2]}, "expected mean and std of the 3 channels of 'made', received 1 and 1 numbers"),
        ({"augment": Augment(shift=6)}, r"expected a shift smaller than the pictures, \(6, 9\), received 6"),
    ],
)
def test_impossible_loaders_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
