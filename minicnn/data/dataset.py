"""What every source of pictures becomes: arrays of bytes and of labels."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from minicnn.data.images import center_crop
from minicnn.data.stored import StoredImages, samples_of, sums_of
from minicnn.text import brief

Scaling = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel
_PARTS = ("train", "validation", "test")
_BLOCK, _BLOCK_PIXELS = 256, 2**22  # pictures, and their pixels: the squares of all would not fit beside them


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures, in memory or in files.

    images: (N, C, H, W), C-contiguous: uint8 from black, 0, to white, 255; or float32, where white is 1. Channels of
        colour pictures are red, green, blue. What is too large for the memory is read when it is indexed.
    labels: int64 (N,), each an index into `classes`.
    files: of each record the name of its file, relative to the folder of the data; () where there are no files.
    Raises TypeError for other dtypes, ValueError for other shapes, for a label without a class (naming the record).
    """

    images: np.ndarray | StoredImages
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, dtypes in (("images", ("uint8", "float32")), ("labels", ("int64",))):
            array = getattr(self, field)
            if not isinstance(array, np.ndarray | StoredImages) or array.dtype not in dtypes:
                raise TypeError(
                    f"Dataset {self.name!r}: {field}: expected a {' or '.join(dtypes)} array, "
                    f"received {getattr(array, 'dtype', type(array).__name__)}"
                )
        shape = self.images.shape
        if len(shape) != 4 or not shape[1] or self.labels.shape != shape[:1]:
            raise ValueError(
                f"Dataset {self.name!r}: expected images (N, C, H, W), C from 1, and labels (N,), "
                f"received {shape} and {self.labels.shape}"
            )
        if self.files and len(self.files) != len(self.labels):
            raise ValueError(
                f"Dataset {self.name!r}: expected a file of each of the {len(self.labels)} records, or none, "
                f"received {len(self.files)}"
            )
        if isinstance(self.images, np.ndarray) and not self.images.flags.c_contiguous:
            raise ValueError(f"Dataset {self.name!r}: expected C-contiguous images")
        check_labels(self.labels, len(self.classes), f"Dataset {self.name!r}")
        check_classes(self.classes, f"Dataset {self.name!r}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> "Dataset":
        """The records at `indices`, int (n,), in that order; a copy."""
        files = tuple(self.files[i] for i in indices) if self.files else ()
        images = self.images
        taken = images.subset(indices) if isinstance(images, StoredImages) else images[indices]
        return replace(self, images=taken, labels=self.labels[indices], files=files)

    def center_crop(self, size: int) -> "Dataset":
        """The middle of each picture, of `size` pixels: a copy; itself where they are no larger, or `size` is 0."""
        if not size or self.images.shape[2:] == (size, size):
            return self
        if isinstance(self.images, StoredImages):
            return replace(self, images=replace(self.images, size=size))
        return replace(self, images=np.ascontiguousarray(center_crop(self.images, size)))

    def fingerprint(self) -> str:
        """A hash of the shape, the classes, the labels, and some 50 pixels of every picture, in their order.

        Other pictures have another one; a change of a few pixels may not be seen.
        """
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        if isinstance(self.images, StoredImages) and not self.images.cropped:
            digest.update(np.ascontiguousarray(self.images.samples).data)
        else:
            for block in _blocks(self.images):
                digest.update(samples_of(block).data)
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set, with what normalises them; there may be none to validate on.

    mean, std: per channel, of the training images scaled to [0, 1].
    note: one line for the user that says where the pictures come from.
    origin: what `minicnn.data.load` takes to find the data again, its name or the absolute path of a folder; "" for
        data made in memory.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""
    origin: str = ""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells one data set from another, as plain values: its name, and of each part the records and the hash.

        Where a data set lies is no part of it.
        """
        parts = {name: part for name in _PARTS if (part := getattr(self, name)) is not None}
        return {
            "dataset": self.name,
            "records": {name: len(part) for name, part in parts.items()},
            "classes": list(self.train.classes),
            "fingerprints": {name: part.fingerprint() for name, part in parts.items()},
        }


def identity_differences(stored: Mapping[str, Any], now: Mapping[str, Any], parts: Sequence[str] = _PARTS) -> list[str]:
    """In words, how the data set with the identity `now` differs from the `stored` one; [] where `parts` are the same.

    What is not stored, as minicnn once kept names and numbers only, is not compared.
    """
    before, after = stored.get("fingerprints") or {}, now["fingerprints"]
    other = [part for part in parts if before.get(part) != after.get(part)]
    if not other:
        return []
    found = [
        f"{key} was {brief(stored[key], 300)}, now {brief(now[key], 300)}"
        for key in ("dataset", "records", "classes")
        if key in stored and stored[key] != now[key]
    ]
    if before and stored.get("records") == now["records"]:
        found.append(f"the pictures or labels of {', '.join(other)} are not those of before")
    return found


def check_classes(classes: Sequence[str], where: str) -> None:
    """Raise ValueError, beginning with `where`, for names of classes that no file can store, as they are not Unicode.

    A file name of other bytes than UTF-8 is one.
    """
    wrong = [name for name in classes if any("\ud800" <= character <= "\udfff" for character in name)]
    if wrong:
        raise ValueError(
            f"{where}: expected names of classes in UTF-8, received {', '.join(map(ascii, wrong))}; rename them"
        )


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Raise ValueError naming the first record of `labels` outside 0..num_classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(
            f"{where}: record {wrong[0]} has label {labels[wrong[0]]}, expected one in 0..{num_classes - 1}"
        )


def channel_statistics(images: np.ndarray | StoredImages) -> Scaling:
    """Mean and deviation of each channel of (N, C, H, W), uint8 or float32, in units where white is 1.

    The deviation of a channel of one value is 1/255, so that nothing is divided by zero.
    """
    if isinstance(images, StoredImages) and not images.cropped:
        total, squares = images.sums.sum(axis=0)
    else:
        sums = (sums_of(block).sum(axis=0) for block in _blocks(images))
        total, squares = sum(sums, start=np.zeros((2, images.shape[1])))
    count = len(images) * math.prod(images.shape[2:])
    mean = total / count
    variance = squares / count - mean**2
    if images.dtype == np.uint8:
        white, variance = 255, np.maximum(variance, 1.0)
    else:  # of any range: what is left of one value by rounding is small beside it
        white, variance = 1, np.where(variance > np.maximum((1e-7 * mean) ** 2, 1e-60), variance, (1 / 255) ** 2)
    return tuple((mean / white).tolist()), tuple((np.sqrt(variance) / white).tolist())


def _blocks(images: np.ndarray | StoredImages) -> Iterator[np.ndarray]:
    """Yield the pictures, some at a time."""
    count = max(min(_BLOCK, _BLOCK_PIXELS // max(math.prod(images.shape[1:]), 1)), 1)
    for start in range(0, len(images), count):
        yield images[start : start + count]
