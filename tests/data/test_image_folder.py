"""Folders of class folders."""

import numpy as np
import pytest
from PIL import Image

from minicnn import data


def fill(folder, count=10, value=0):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (4, 4), (value, i, 0)).save(folder / f"{i:02}.png")


def test_one_folder_is_split_by_class(tmp_path):
    fill(tmp_path / "dog", 20, 200)
    fill(tmp_path / "cat", 20, 100)
    (tmp_path / ".cache").mkdir()
    splits = data.load(str(tmp_path))
    assert splits.train.classes == splits.test.classes == ("cat", "dog")
    assert [np.bincount(part.labels).tolist() for part in (splits.train, splits.validation, splits.test)] == [
        [14, 14],
        [2, 2],
        [4, 4],
    ]
    parts = (splits.train, splits.validation, splits.test)
    seen = sorted((int(image[0, 0, 0]), int(image[1, 0, 0])) for part in parts for image in part.images)
    assert seen == sorted((value, i) for value in (100, 200) for i in range(20))
    for part in parts:
        assert (part.images[:, 0, 0, 0] == np.where(part.labels == 0, 100, 200)).all()
    assert splits.mean[0] == pytest.approx(150 / 255) and splits.std[0] == pytest.approx(50 / 255)
    assert splits.mean[2] == 0 and splits.std[2] > 0


def test_the_test_pictures_do_not_depend_on_the_seed(tmp_path):
    fill(tmp_path / "a", 20)
    fill(tmp_path / "b", 20)
    one, two = data.load(str(tmp_path), seed=1), data.load(str(tmp_path), seed=2)
    np.testing.assert_array_equal(one.test.images, two.test.images)
    assert not np.array_equal(one.train.images, two.train.images)


def test_ready_made_parts_are_kept(tmp_path):
    for part, count in {"train": 6, "val": 3, "test": 2}.items():
        fill(tmp_path / part / "a", count)
        fill(tmp_path / part / "b", count)
    splits = data.load(str(tmp_path))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 6, 4]


def test_other_classes_than_in_training_are_refused(tmp_path):
    for name in ("train/a", "train/b", "val/a", "val/c"):
        fill(tmp_path / name, 2)
    with pytest.raises(ValueError, match="val has other classes than train: missing b; unknown c"):
        data.load(str(tmp_path))


def test_a_misnamed_part_is_not_ignored(tmp_path):
    for name in ("train/a", "train/b", "valid/a", "valid/b"):
        fill(tmp_path / name, 2)
    with pytest.raises(ValueError, match="unexpected valid beside train"):
        data.load(str(tmp_path))


def test_empty_root_and_class_are_named(tmp_path):
    with pytest.raises(ValueError, match="two or more classes. Received: none"):
        data.load(str(tmp_path))
    fill(tmp_path / "a", 2)
    with pytest.raises(ValueError, match="two or more classes. Received: a"):
        data.load(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures in empty"):
        data.load(str(tmp_path))


def test_a_damaged_picture_is_named(tmp_path):
    fill(tmp_path / "a", 2)
    fill(tmp_path / "b", 2)
    (tmp_path / "b" / "bad.png").write_bytes(b"bad")
    with pytest.raises(data.ImageError, match=r"bad\.png' is not a picture"):
        data.load(str(tmp_path))


def test_too_few_pictures_to_split(tmp_path):
    fill(tmp_path / "a", 1)
    fill(tmp_path / "b", 3)
    with pytest.raises(ValueError, match="cannot split 0.2 of the 4 records"):
        data.load(str(tmp_path))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="unknown data set 'cifar-10', expected auto, .*; did you mean cifar10"):
        data.load("cifar-10")
