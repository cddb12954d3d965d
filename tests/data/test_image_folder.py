"""Folders of class folders."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicnn import data
from minicnn.data import folder


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
    with pytest.raises(ValueError, match="two or more classes, received none"):
        data.load(str(tmp_path))
    fill(tmp_path / "a", 2)
    with pytest.raises(ValueError, match="two or more classes, received a"):
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


def test_pictures_in_subfolders_are_used_and_the_rest_is_counted(tmp_path):
    """Also with parts: of the class that the folder below the part names."""
    for part in ("train", "val", "test"):
        fill(tmp_path / part / "a", 2, 10)
        fill(tmp_path / part / "a" / "day" / "noon", 3, 20)
        fill(tmp_path / part / "b" / "night", 4, 30)
    (tmp_path / "train" / "a" / "back").symlink_to(tmp_path)
    for name in (
        "train/a/a.heic",
        "val/b/night/b.HEIC",
        "test/a/notes.txt",
        "train/list.csv",
        ".DS_Store",
        "test/a/.x",
    ):
        (tmp_path / name).touch()
    splits = data.load(str(tmp_path))
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels.tolist() == [0] * 5 + [1] * 4
        assert part.images[:, 0, 0, 0].tolist() == [10] * 2 + [20] * 3 + [30] * 4
    assert splits.note == (
        f"pictures from {tmp_path}; 21 of them from subfolders of their class; "
        "not read: 2 hidden, 2 .heic, 1 beside the folders, 1 link to a folder above or read before, 1 .txt"
    )


@pytest.mark.parametrize("name", ["Training", "valid", "test", "dev"])
def test_a_part_without_train_is_not_a_class(tmp_path, name):
    """Its classes would become one, now that pictures in subfolders are used."""
    for part in (name, "other"):
        fill(tmp_path / part / "a", 5)
        fill(tmp_path / part / "b", 5)
    with pytest.raises(ValueError, match=f"{name} hold folders only, as parts do; call the parts train, val and test"):
        data.load(str(tmp_path))


def damage(folder, names):
    for name in names:
        (folder / name).write_bytes(b"bad")


def test_all_damaged_pictures_are_named_in_one_bounded_line(tmp_path):
    for part in ("train", "val"):
        fill(tmp_path / part / "a", 5)
        fill(tmp_path / part / "b", 5)
    damage(tmp_path / "train" / "a", ["x.png", "04.png"])
    damage(tmp_path / "val" / "b", ["y.png"])
    (tmp_path / "val" / "b" / "gone.jpg").symlink_to("nowhere")
    with pytest.raises(data.ImageError) as caught:
        data.load(str(tmp_path))
    line = str(caught.value)
    assert line.startswith("4 pictures cannot be used: ") and line.endswith("or leave it out by --skip-damaged")
    assert all(
        name in line for name in ("x.png' is not", "04.png' is not", "y.png' is not", "gone.jpg' does not exist")
    )
    damage(tmp_path / "train" / "a", [f"{i}.png" for i in range(1000)])
    with pytest.raises(data.ImageError, match="^1,004 pictures cannot be used: .*; and 994 more: remove") as caught:
        data.load(str(tmp_path))
    assert str(caught.value).count(" is not a picture") == 10


def test_damaged_pictures_can_be_left_out(tmp_path):
    fill(tmp_path / "a", 10, 10)
    fill(tmp_path / "b", 10, 20)
    whole = data.load(str(tmp_path))
    damage(tmp_path / "a", ["000.png", "z.png"])
    damage(tmp_path / "b", ["y.png"])
    with pytest.warns(UserWarning) as caught:
        splits = data.load(str(tmp_path), skip_damaged=True)
    assert [str(w.message).partition(" is not")[0] for w in caught] == [
        f"left out: '{tmp_path / name}'" for name in ("a/000.png", "a/z.png", "b/y.png")
    ]
    assert splits.note == f"pictures from {tmp_path}; without 3 damaged"
    assert splits.identity == whole.identity


def test_a_class_of_damaged_pictures_only(tmp_path):
    fill(tmp_path / "a", 3)
    (tmp_path / "b").mkdir()
    damage(tmp_path / "b", ["x.png"])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="train: no pictures in b but damaged ones"):
        data.load(str(tmp_path), skip_damaged=True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_class_whose_name_is_not_utf8_is_refused_before_its_pictures_are_read(tmp_path, monkeypatch):
    fill(tmp_path / "a", 3)
    fill(tmp_path / os.fsdecode(b"caf\xe9"), 3)
    monkeypatch.setattr(folder, "load_images", None)
    with pytest.raises(ValueError, match=r"expected names of classes in UTF-8, received 'caf\\udce9'; rename"):
        data.load(str(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_other_names_need_not_be_utf8(tmp_path):
    root = tmp_path / os.fsdecode(b"pets\xff")
    fill(root / "a", 3)
    fill(root / "b", 3)
    Image.new("RGB", (4, 4)).save(root / "a" / "x.png")
    (root / "a" / "x.png").rename(root / "a" / os.fsdecode(b"\xe9.png"))
    splits = data.load(str(root))
    assert splits.name == "pets\\udcff" and len(splits.train) == 3
    assert Path(json.loads(json.dumps(splits.origin))) == root


SIZES = sorted({(a, b) for a in range(1, 13) for b in (a, 5, 12) if b >= a})


@pytest.mark.parametrize("parts", [(), ("val",), ("test",), ("val", "test")], ids="-".join)
def test_small_folders_work_or_say_what_is_missing(tmp_path, monkeypatch, parts):
    """Of every size: each class is in each part, or the line says how many pictures it takes."""
    grey = np.full((3, 32, 32), 9, np.uint8)
    monkeypatch.setattr(folder, "load_images", lambda paths, shape: [grey for _ in paths])
    for sizes in SIZES:
        root = tmp_path / "-".join(map(str, sizes))
        for part, counts in {"train": sizes, "val": (1, 1), "test": (2, 1)}.items():
            for name, count in zip("ab", counts, strict=True):
                if part == "train" or part in parts:
                    place = root / part / name if parts else root / name
                    place.mkdir(parents=True)
                    for i in range(count):
                        (place / f"{i}.png").touch()
        needed = 3 - len(parts)
        if sizes[0] < needed:
            with pytest.raises(
                ValueError, match=f"each class needs {needed} pictures, one to train on.* a has"
            ) as caught:
                data.load(str(root))
            assert str(caught.value).endswith("add pictures, or give the folders train, val and test")
            if "test" in parts:  # nothing else is split off
                assert data.load(str(root), validation=0).validation is None
            continue
        splits = data.load(str(root))
        found = [np.bincount(p.labels, minlength=2) for p in (splits.train, splits.validation, splits.test)]
        assert min(map(min, found)) >= 1
        left = len(splits.train)
        for size in range(1, left + 2):
            if 2 <= size <= left:
                assert np.bincount(data.load(str(root), train_size=size).train.labels, minlength=2).min() >= 1
            else:
                with pytest.raises(
                    ValueError, match=f"cannot split {size} of the {left} records .*: expected 2 to {left}"
                ):
                    data.load(str(root), train_size=size)
        if "val" not in parts:
            rest = left + len(splits.validation)
            for size in range(1, rest + 1):
                if 2 <= size <= rest - 2:
                    assert np.bincount(data.load(str(root), validation=size).validation.labels).min() >= 1
                else:
                    with pytest.raises(
                        ValueError, match=f"cannot split {size} of the {rest} .*: expected 2 to {rest - 2}"
                    ):
                        data.load(str(root), validation=size)


def test_the_origin_is_where_the_folder_lies(tmp_path, monkeypatch):
    fill(tmp_path / "pets" / "train" / "a", 4)
    fill(tmp_path / "pets" / "train" / "b", 4)
    monkeypatch.chdir(tmp_path)
    splits = data.load("pets")
    assert splits.origin == str(tmp_path / "pets") and splits.name == splits.train.name == "pets"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.load("~/pets").origin == splits.origin
    with pytest.raises(data.UnknownDataset, match="no folder .*/gone; where it was moved, name its new place"):
        data.load(str(tmp_path / "gone"))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="data set: expected auto, .*, received 'cifar-10'; did you mean 'cifar10'"):
        data.load("cifar-10")
