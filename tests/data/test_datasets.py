"""Dataset, splits and the digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from minicnn import data
from minicnn.data.dataset import channel_statistics


def make(labels, classes=10):
    labels = np.asarray(labels, np.int64)
    images = np.zeros((len(labels), 3, 4, 5), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return data.Dataset(images, labels, tuple(map(str, range(classes))), "made")


def test_invalid_datasets_are_refused():
    images, labels = np.zeros((3, 3, 32, 32), np.uint8), np.zeros(3, np.int64)
    for bad_images, bad_labels, error, message in [
        (images.astype(np.float32), labels, TypeError, "images must be a uint8 array. Received: float32"),
        (images, labels.astype(np.float64), TypeError, "labels must be a int64 array. Received: float64"),
        (images, [0, 0, 0], TypeError, "Received: list"),
        (images[:, :1], labels, ValueError, "expected images"),
        (images, labels[:2], ValueError, r"Received: \(3, 3, 32, 32\) and \(2,\)"),
        (images[:, :, ::-1], labels, ValueError, "C-contiguous"),
        (images, np.array([0, 2, 0]), ValueError, r"record 1 has label 2, expected one in 0\.\.1"),
        (images, np.array([0, 0, -1]), ValueError, "record 2 has label -1"),
    ]:
        with pytest.raises(error, match=message):
            data.Dataset(bad_images, bad_labels, ("a", "b"), "made")


def test_subset_keeps_pictures_and_labels_together():
    part = make([0, 1, 2, 3]).subset([3, 1])
    assert len(part) == 2 and part.labels.tolist() == [3, 1] and part.images[:, 0, 0, 0].tolist() == [3, 1]


@pytest.mark.parametrize("size", [20, 0.2])
def test_split_is_a_seeded_partition_that_keeps_the_classes(size):
    dataset = make([0] * 50 + [1] * 30 + [2] * 20)
    rest, taken = data.stratified_split(dataset, size, 7)
    assert np.bincount(taken.labels).tolist() == [10, 6, 4] and np.bincount(rest.labels).tolist() == [40, 24, 16]
    first = [part.images[:, 0, 0, 0].tolist() for part in (rest, taken)]
    assert sorted(first[0] + first[1]) == list(range(100)) and first[1] == sorted(first[1])
    assert data.stratified_split(dataset, size, 7)[1].images[:, 0, 0, 0].tolist() == first[1]
    assert data.stratified_split(dataset, size, 8)[1].images[:, 0, 0, 0].tolist() != first[1]


@pytest.mark.parametrize("size", [0, 1, 100, 101, 0.0, 1.5, -1])
def test_impossible_splits_are_refused(size):
    with pytest.raises(ValueError, match=f"cannot split {size} of the 100 records of 'made' by class"):
        data.stratified_split(make([0, 1] * 50), size, 0)


def test_subset_by_class():
    dataset = make([0] * 60 + [1] * 40)
    assert np.bincount(data.stratified_subset(dataset, 10, 0).labels).tolist() == [6, 4]
    assert data.stratified_subset(dataset, 100, 0) is dataset


def test_channel_statistics_are_those_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (700, 3, 4, 5), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)), rtol=1e-12)


def test_digits():
    splits = data.load("digits", seed=1)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [1293, 144, 360]
    assert all(part.images.shape[1:] == (3, 32, 32) for part in parts)
    pixels, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(sum(np.bincount(part.labels) for part in parts), np.bincount(labels))
    assert min(part.images.min() for part in parts) == 0 and max(part.images.max() for part in parts) == 255
    # Averaging 4x4 blocks of the picture gives the original back, up to the filter's blur.
    small = splits.test.images[:, 0].reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64)
    nearest = ((small[:40, None] - pixels * 255 / 16) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(labels[nearest], splits.test.labels[:40])
    assert (splits.train.images[:, 0] == splits.train.images[:, 2]).all()


def test_digits_keep_their_test_pictures_whatever_the_seed():
    one, two = data.load("digits", seed=1), data.load("digits", seed=2, train_size=500, validation=100)
    np.testing.assert_array_equal(one.test.images, two.test.images)
    assert len(two.train) == 500 and len(two.validation) == 100
