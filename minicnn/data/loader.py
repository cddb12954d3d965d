"""Batches of a data set, on a backend."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minicnn.backend import Backend
from minicnn.data.augment import Augment
from minicnn.data.dataset import Dataset


class Loader:
    """Normalised batches of `dataset`, which moves to `backend` once, as bytes.

    y = (x / 255 - mean) / std, per channel. The order of the records depends on `seed` and the epoch only, the
    augmentation of a batch on `seed`, the epoch and the number of the batch: an epoch can be taken up at any batch, on
    either backend, and gives the same bits.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        shuffle: bool = False,
        drop_last: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        backend: Backend,
    ):
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size must be 1 or more. Received: {batch_size}")
        self._batches = len(dataset) // batch_size if drop_last else -(-len(dataset) // batch_size)
        if not self._batches:
            raise ValueError(f"Loader: no batch of {batch_size} in the {len(dataset)} records of {dataset.name!r}")
        self._augment = augment or Augment(flip=0.0)
        if self._augment.shift >= min(dataset.images.shape[2:]):
            raise ValueError(
                f"Loader: shift must be smaller than the pictures, {dataset.images.shape[2:]}. "
                f"Received: {self._augment.shift}"
            )
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self._backend = backend
        self._images, self._labels = backend.asarray(dataset.images), backend.asarray(dataset.labels)
        self._mean = backend.asarray(np.asarray(mean, np.float32))
        self._std = backend.asarray(np.asarray(std, np.float32))

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self._batches

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Any, Any]]:
        """Batches start_batch, start_batch + 1, … of `epoch`: images float32 (n, 3, H, W), labels int64 (n,)."""
        n = len(self.dataset)
        order = self._rng(epoch, 0).permutation(n) if self.shuffle else np.arange(n)
        for batch in range(start_batch, len(self)):
            index = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            drawn = self._augment.draw(self._rng(epoch, 1 + batch), len(index))
            index, flip, dy, dx = (self._backend.asarray(array) for array in (index, *drawn))
            images = self._backend.kernels.gather_images(
                self._images, index, flip, dy, dx, self._mean, self._std, self._augment.padding_mode
            )
            yield images, self._labels[index]

    def _rng(self, *stream: int) -> np.random.Generator:
        """A generator of its own for each stream: 0 is the order of an epoch, 1 + i the augmentation of its batch i."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=stream)))
