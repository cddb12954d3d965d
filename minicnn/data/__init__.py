"""Data sets, their splits, pictures, augmentation and batches."""

import os
from dataclasses import replace
from typing import Any

from minicnn import files
from minicnn.data import cifar10, digits, folder
from minicnn.data.augment import Augment
from minicnn.data.cifar10 import DatasetUnavailable
from minicnn.data.dataset import Dataset, Splits, identity_differences
from minicnn.data.images import ImageError, ImageShape, find_images, load_image
from minicnn.data.loader import Loader
from minicnn.data.split import stratified_split, stratified_subset
from minicnn.text import nearest

NAMES = ("auto", "cifar10", "digits")


class UnknownDataset(ValueError):
    """Neither the name of a data set nor a folder."""


def load(
    name: str = "auto",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    validation: int | float | None = None,
    train_size: int | None = None,
    download: bool = True,
    skip_damaged: bool = False,
    image_size: int = 32,
    channels: int = 3,
    resize: int = 0,
    margin: bool = False,
    memory: float | None = None,
) -> Splits:
    """The data set `name`: cifar10, digits, a folder of class folders, or auto.

    auto is CIFAR-10 where it is on disk or can be downloaded, else the digits; `Splits.note` says which, and why.
    validation: records, or their share, to split off the training set by `seed`; None is 5,000 of CIFAR-10, a tenth
    of the others; 0 is no validation set. train_size: how many of the remaining records to train on, None for all.
    skip_damaged: go on without the pictures of a folder that cannot be read, and warn of each.
    image_size, channels, resize, margin: the shape of the pictures, as of :class:`ImageShape`. memory: GiB that the
    pictures of a folder may take (default: half of what is free); more are read from disk as batches need them.
    Raises UnknownDataset for an unknown name, ValueError for a shape that is not possible, and what the `load` of the
    data set raises.
    """
    shape = ImageShape(image_size, channels, resize, margin)
    options: dict[str, Any] = {"seed": seed, "train_size": train_size, "shape": shape}
    if validation is not None:
        options["validation"] = validation
    if name == "digits":
        return digits.load(**options)
    if name == "cifar10":
        return cifar10.load(data_dir, download=download, **options)
    if name == "auto":
        try:
            return cifar10.load(data_dir, download=download, **options)
        except DatasetUnavailable as error:
            return replace(digits.load(**options), note=f"digits of scikit-learn instead of CIFAR-10: {error}")
    root = files.expand_user(name)
    if root.is_dir():
        return folder.load(root, skip_damaged=skip_damaged, memory=memory, **options)
    if root.is_absolute():
        raise UnknownDataset(f"no folder {root}; where it was moved, name its new place by --dataset")
    words = f"{', '.join(NAMES)} or an existing folder"
    raise UnknownDataset(f"data set: expected {words}, received {name!r}{nearest(name, NAMES)}")


__all__ = [
    "NAMES",
    "Augment",
    "Dataset",
    "DatasetUnavailable",
    "ImageError",
    "ImageShape",
    "Loader",
    "Splits",
    "UnknownDataset",
    "find_images",
    "identity_differences",
    "load",
    "load_image",
    "stratified_split",
    "stratified_subset",
]
