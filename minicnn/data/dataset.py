"""What every source of pictures becomes: arrays of bytes and of labels."""

from dataclasses import dataclass, replace

import numpy as np


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

    def __post_init__(self):
        for field, dtype in (("images", np.uint8), ("labels", np.int64)):
            array = getattr(self, field)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                raise TypeError(
                    f"Dataset {self.name!r}: {field} must be a {dtype.__name__} array. "
                    f"Received: {getattr(array, 'dtype', type(array).__name__)}"
                )
        if self.images.ndim != 4 or self.images.shape[1] != 3 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"Dataset {self.name!r}: expected images (N, 3, H, W) and labels (N,). "
                f"Received: {self.images.shape} and {self.labels.shape}"
            )
        if not self.images.flags.c_contiguous:
            raise ValueError(f"Dataset {self.name!r}: images must be C-contiguous")
        check_labels(self.labels, len(self.classes), f"Dataset {self.name!r}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices) -> "Dataset":
        """The records at `indices`, int (n,), in that order; a copy."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set, with what normalises them.

    mean, std: per channel, of the training images scaled to [0, 1].
    note: one line for the user that says where the pictures come from.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    note: str = ""


def check_labels(labels: np.ndarray, num_classes: int, where: str):
    """Raise ValueError naming the first record of `labels` outside 0..num_classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(
            f"{where}: record {wrong[0]} has label {labels[wrong[0]]}, expected one in 0..{num_classes - 1}"
        )


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
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
