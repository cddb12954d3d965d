"""Batches: their order, their augmentation and their values."""

import numpy as np
import pytest

from minicnn import backend
from minicnn.data import Augment, Dataset, Loader

RNG = np.random.default_rng(0)
DATASET = Dataset(RNG.integers(0, 256, (23, 3, 6, 9), dtype=np.uint8), np.arange(23) % 10, tuple("0123456789"), "made")
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def make(batch_size=5, dataset=DATASET, **options):
    options = {"backend": backend.get("reference"), "mean": MEAN, "std": STD} | options
    return Loader(dataset, batch_size, **options)


def batches(loader, *epoch):
    return [(images.copy(), labels.copy()) for images, labels in loader.epoch(*epoch)]


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
        ({"batch_size": 0}, "batch_size must be 1 or more. Received: 0"),
        ({"batch_size": 24, "drop_last": True}, "no batch of 24 in the 23 records"),
        ({"dataset": DATASET.subset(np.arange(0))}, "no batch of 5 in the 0 records"),
        ({"augment": Augment(shift=6)}, r"shift must be smaller than the pictures, \(6, 9\). Received: 6"),
    ],
)
def test_impossible_loaders_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    "options", [{"flip": 1.5}, {"flip": -0.1}, {"shift": -1}, {"shift": 1.5}, {"padding_mode": "x"}]
)
def test_impossible_augmentations_are_refused(options):
    with pytest.raises(ValueError, match=f"Augment: {next(iter(options))} must be"):
        Augment(**options)
