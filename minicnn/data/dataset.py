"""What every source of pictures becomes: arrays of bytes and of labels."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from minicnn.text import brief

Scaling = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and deviation of the channels
_PARTS = ("train", "validation", "test")
_STEP = 61  # of the 3,072 bytes of a picture, every 61st makes its fingerprint: from all rows and channels


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures in memory.

    images: uint8 (N, 3, H, W), C-contiguous, channels red, green, blue; 32x32 in all data sets of this package.
    labels: int64 (N,), each an index into `classes`.
    Raises TypeError for other dtypes, ValueError for other shapes, for a label without a class (naming the record).
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        for field, dtype in (("images", np.uint8), ("labels", np.int64)):
            array = getattr(self, field)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                raise TypeError(
                    f"Dataset {self.name!r}: {field}: expected a {dtype.__name__} array, "
                    f"received {getattr(array, 'dtype', type(array).__name__)}"
                )
        if self.images.ndim != 4 or self.images.shape[1] != 3 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"Dataset {self.name!r}: expected images (N, 3, H, W) and labels (N,), "
                f"received {self.images.shape} and {self.labels.shape}"
            )
        if not self.images.flags.c_contiguous:
            raise ValueError(f"Dataset {self.name!r}: expected C-contiguous images")
        check_labels(self.labels, len(self.classes), f"Dataset {self.name!r}")
        check_classes(self.classes, f"Dataset {self.name!r}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> "Dataset":
        """The records at `indices`, int (n,), in that order; a copy."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def fingerprint(self) -> str:
        """A hash of the shape, the classes, the labels, and some 50 pixels of every picture of 32x32, in their order.

        Other pictures have another one; a change of a few pixels may not be seen.
        """
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        digest.update(np.ascontiguousarray(self.images.reshape(len(self), -1)[:, ::_STEP]).data)
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
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
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


def channel_statistics(images: np.ndarray) -> Scaling:
    """Mean and deviation of each channel of uint8 (N, 3, H, W), in units where white is 1."""
    total, squares = np.zeros(3), np.zeros(3)
    for start in range(0, len(images), 256):  # in blocks: the squares of a whole data set would not fit beside it
        block = images[start : start + 256].astype(np.int64)
        total += block.sum(axis=(0, 2, 3))
        squares += np.square(block).sum(axis=(0, 2, 3))
    count = images[:, 0].size
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1))  # a channel of one value must not divide by zero
    r, g, b = (mean / 255).tolist()
    r_std, g_std, b_std = (deviation / 255).tolist()
    return (r, g, b), (r_std, g_std, b_std)
