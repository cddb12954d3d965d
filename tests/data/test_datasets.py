"""Dataset, splits and the digits."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

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
        (images.astype(np.float64), labels, TypeError, "images: expected a uint8 or float32 array, received float64"),
        (images, labels.astype(np.float64), TypeError, "labels: expected a int64 array, received float64"),
        (images, [0, 0, 0], TypeError, "received list"),
        (images[:, 0], labels, ValueError, r"expected images \(N, C, H, W\), C from 1, .*received \(3, 32, 32\)"),
        (images[:, :0], labels, ValueError, "expected images"),
        (images, labels[:2], ValueError, r"received \(3, 3, 32, 32\) and \(2,\)"),
        (images[:, :, ::-1], labels, ValueError, "C-contiguous"),
        (images, np.array([0, 2, 0]), ValueError, r"record 1 has label 2, expected one in 0\.\.1"),
        (images, np.array([0, 0, -1]), ValueError, "record 2 has label -1"),
    ]:
        with pytest.raises(error, match=message):
            data.Dataset(bad_images, bad_labels, ("a", "b"), "made")
    with pytest.raises(ValueError, match="expected a file of each of the 3 records, or none, received 2"):
        data.Dataset(images, labels, ("a", "b"), "made", ("1.png", "2.png"))


def test_files_are_kept_by_subsets():
    dataset = replace(make([0, 0, 1, 1]), files=("a/1.png", "a/2.png", "b/1.png", "b/2.png"))
    assert dataset.subset(np.array([3, 0])).files == ("b/2.png", "a/1.png")
    rest, taken = data.stratified_split(dataset, 2, 0)
    for part in (rest, taken):
        assert part.files == tuple(dataset.files[i] for i in part.images[:, 0, 0, 0])
    assert make([0, 1]).subset([1]).files == ()


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_any_number_of_channels_of_bytes_or_floats(channels, dtype):
    rng = np.random.default_rng(channels)
    levels = rng.integers(0, 256, (300, channels, 4, 7), dtype=np.uint8)
    images = levels if dtype == np.uint8 else (levels / 255).astype(dtype)
    dataset = data.Dataset(images, np.arange(300) % 3, tuple("abc"), "made")
    assert dataset.subset([2, 0]).images.dtype == dtype
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (levels / 255).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, (levels / 255).std((0, 2, 3)), rtol=1e-5)
    before = dataset.fingerprint()
    images[17, channels - 1] += 1
    assert dataset.fingerprint() != before


def test_a_channel_of_one_value_is_not_divided_by_zero():
    for images in (np.full((2, 1, 3, 3), 7, np.uint8), np.full((2, 1, 3, 3), 7, np.float32)):
        assert channel_statistics(images)[1][0] == pytest.approx(1 / 255)


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0), (1e-20, 0), (1e20, 0), (1e-2, 1000)])
def test_floats_of_any_range_have_their_own_deviation(scale, offset):
    images = (np.random.default_rng(0).random((50, 2, 4, 4)) * scale + offset).astype(np.float32)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.astype(np.float64).mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(std, images.astype(np.float64).std((0, 2, 3)), rtol=1e-3)


def test_a_channel_of_one_large_value_has_no_deviation():
    assert channel_statistics(np.full((70, 1, 9, 9), 1234.567, np.float32))[1][0] == pytest.approx(1 / 255)


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


@pytest.mark.parametrize("counts", [(2, 98), (2, 2, 2, 94), (2,) * 9 + (100,), (3, 40), (2, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_rare_classes_are_in_both_parts(counts, seed):
    dataset = make(np.repeat(np.arange(len(counts)), counts))
    for size in (len(counts), 0.1, len(dataset) // 2, len(dataset) - len(counts)):
        rest, taken = data.stratified_split(dataset, size, seed)
        for part in (rest, taken):
            assert (np.bincount(part.labels, minlength=len(counts)) >= 1).all()
        assert sorted(np.concatenate([rest.images[:, 0, 0, 0], taken.images[:, 0, 0, 0]])) == list(range(len(dataset)))
        assert isinstance(size, float) or len(taken) == size
        again = data.stratified_split(dataset, size, seed)[1]
        assert np.array_equal(again.images, taken.images)


def test_a_share_is_rounded_up_and_has_every_class():
    assert len(data.stratified_split(make([0] * 50 + [1] * 51), 0.1, 0)[1]) == 11
    assert data.stratified_split(make([0, 0, 0, 1, 1, 1]), 0.1, 0)[1].labels.tolist() == [0, 1]


def test_a_class_of_one_record_cannot_be_split():
    with pytest.raises(
        ValueError, match="by class: 3 has one record, and each class needs one in both parts; add some"
    ):
        data.stratified_split(make([0, 0, 3]), 1, 0)


@pytest.mark.parametrize("counts", [(1, 6), (1, 1, 8), (3, 3), (1, 1)])
def test_subsets_of_every_size(counts):
    dataset = make(np.repeat(np.arange(len(counts)), counts))
    for size in range(1, len(dataset) + 2):
        if len(counts) <= size <= len(dataset):
            subset = data.stratified_subset(dataset, size, 0)
            assert len(subset) == size and len(np.unique(subset.labels)) == len(counts)
        else:
            with pytest.raises(ValueError, match=f"cannot split {size} .*: expected {len(counts)} to {len(dataset)}"):
                data.stratified_subset(dataset, size, 0)


def test_splits_of_usual_sets_are_those_of_scikit_learn():
    """The weights that are shipped, and every run there is, were validated on these."""
    dataset = make(np.random.default_rng(0).integers(0, 10, 3000))
    for size in (0.1, 500, 1 / 3):
        state = np.random.RandomState(np.random.MT19937(4))
        _, expected = train_test_split(np.arange(3000), test_size=size, stratify=dataset.labels, random_state=state)
        taken = data.stratified_split(dataset, size, 4)[1]
        np.testing.assert_array_equal(taken.images, dataset.images[np.sort(expected)])
        np.testing.assert_array_equal(taken.labels, dataset.labels[np.sort(expected)])


def splits_of(records, **changes):
    part = make(records)
    return data.Splits(part, part, part, "made", (0, 0, 0), (1, 1, 1), **changes)


def test_the_identity_tells_data_sets_apart():
    """Another pixel of those that count, order, label, class or number; but not another place."""
    labels = [0, 1, 2, 3] * 5
    before = json.loads(json.dumps(splits_of(labels).identity))
    assert data.identity_differences(before, splits_of(labels, note="moved", origin="/moved").identity) == []
    pixel = splits_of(labels)
    pixel.test.images[7, 0, 0, 0] ^= 1  # the parts are one data set here
    same = "the pictures or labels of train, validation, test are not those of before"
    assert data.identity_differences(before, pixel.identity) == [same]
    assert data.identity_differences(before, splits_of(labels[::-1]).identity) == [same]
    more = data.identity_differences(before, splits_of([*labels, 0]).identity)
    assert len(more) == 1 and more[0].startswith("records was {'train': 20") and more[0].endswith("'test': 21}")
    renamed = replace(splits_of(labels), train=replace(make(labels), classes=tuple("abcdefghij")))
    assert "classes was ['0'" in data.identity_differences(before, renamed.identity)[0]
    assert data.identity_differences(before, renamed.identity, ["test"]) == []


def test_an_identity_without_fingerprints_is_compared_as_far_as_it_goes():
    now = splits_of([0, 1]).identity
    assert data.identity_differences({}, now) == data.identity_differences({"fingerprints": None}, now) == []
    assert data.identity_differences({key: now[key] for key in ("dataset", "records", "classes")}, now) == []
    (difference,) = data.identity_differences({"dataset": "x" * 999}, now)
    assert (
        difference.startswith("dataset was 'xxx") and difference.endswith("xxx', now 'made'") and len(difference) < 99
    )


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (7, 9)])
def test_every_picture_and_channel_is_in_the_fingerprint(size):
    images = np.zeros((4, 3, *size), np.uint8)
    dataset = data.Dataset(images, np.zeros(4, np.int64), ("a",), "made")
    seen = {dataset.fingerprint()}
    for record in range(4):
        for channel in range(3):
            images[record, channel] = 1
            seen.add(dataset.fingerprint())
    assert len(seen) == 13


def test_names_of_classes_that_no_file_can_store_are_refused():
    with pytest.raises(ValueError, match=r"expected names of classes in UTF-8, received 'caf\\udce9'; rename"):
        data.Dataset(np.zeros((1, 3, 2, 2), np.uint8), np.zeros(1, np.int64), ("ok", "caf\udce9"), "made")


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
