"""A folder of pictures, one folder per class."""

import os
from pathlib import Path

import numpy as np

from minicnn.data.dataset import Dataset, Splits, channel_statistics
from minicnn.data.images import find_images, load_image
from minicnn.data.split import TEST_SEED, stratified_split, stratified_subset

PARTS = ("train", "val", "test")


def load(
    root: str | os.PathLike, *, seed: int = 0, validation: int | float = 0.1, train_size: int | None = None
) -> Splits:
    """Pictures of `root`/train/CLASS, `root`/val/CLASS and `root`/test/CLASS, or of `root`/CLASS.

    Classes are numbered in the order of their names. Where there is no test folder, a fifth of the training pictures
    is the test set, whatever the seed; where there is no val folder, `validation` is split off them by `seed`.
    Raises ValueError for an empty root or class, for folders that are not expected, for val or test classes that
    differ from those of train; ImageError for a damaged picture.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder of pictures")
    if (root / "train").is_dir():
        if unexpected := sorted({path.name for path in _folders(root)} - set(PARTS)):
            raise ValueError(f"{root}: unexpected {', '.join(unexpected)} beside train, expected only val and test")
        parts = {name: _read(root / name) for name in PARTS if (root / name).is_dir()}
    else:
        parts = {"train": _read(root)}
    train = parts["train"]
    for name, part in parts.items():
        if part.classes != train.classes:
            missing, added = set(train.classes) - set(part.classes), set(part.classes) - set(train.classes)
            raise ValueError(
                f"{root / name} has other classes than train: missing {_listed(missing)}; unknown {_listed(added)}"
            )
    if "test" in parts:
        test = parts["test"]
    else:
        train, test = stratified_split(train, 0.2, TEST_SEED)
    if "val" in parts:
        held_out = parts["val"]
    else:
        train, held_out = stratified_split(train, validation, seed)
    if train_size is not None:
        train = stratified_subset(train, train_size, seed)
    return Splits(train, held_out, test, train.name, *channel_statistics(train.images), f"pictures from {root}")


def _read(root: Path) -> Dataset:
    files = {folder.name: find_images(folder) for folder in _folders(root)}
    if len(files) < 2:
        raise ValueError(f"{root}: expected a folder for each of two or more classes. Received: {_listed(files)}")
    if empty := [name for name, paths in files.items() if not paths]:
        raise ValueError(f"{root}: no pictures in {_listed(empty)}")
    paths = [path for group in files.values() for path in group]
    images = np.empty((len(paths), 3, 32, 32), np.uint8)
    for i, path in enumerate(paths):
        images[i] = load_image(path)
    labels = np.repeat(np.arange(len(files)), [len(group) for group in files.values()])
    return Dataset(images, labels.astype(np.int64), tuple(files), root.resolve().name)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listed(names) -> str:
    return ", ".join(sorted(names)) or "none"
