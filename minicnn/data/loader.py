"""Batches of a data set, on a backend."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import repeat
from typing import Any

import numpy as np

from minicnn.backend import Backend
from minicnn.data.augment import Augment
from minicnn.data.dataset import Dataset, check_labels
from minicnn.data.images import middle
from minicnn.data.stored import StoredImages

_NONE = Augment(flip=0.0)
_FLIPS = 2**32 - 1
"""Number of the stream of those that alternate; the others are numbered by epochs."""
_AHEAD = 64
"""Batches for which all is drawn at a time, and moved by one copy: between the steps of a small network, with the
caches full of its numbers, a draw takes five times as long."""


class Loader:
    """Normalised batches of `dataset`, whose pictures move to `backend` once, as they are.

    y = (x / 255 - mean) / std of bytes, (x - mean) / std of float32, per channel. The order of the records depends on
    `seed` and the epoch only, the augmentation of a batch on `seed`, the epoch and the number of the batch: an epoch
    can be taken up at any batch, on either backend, and gives the same bits.

    image_size: of the batches, 0 for that of the pictures; of larger ones the middle is shown, or, where `augment` has
    random crops, a part that is resized.
    Pictures that are stored in files are read by threads ahead of their batch, which then moves by itself.
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
        image_size: int = 0,
        seed: int = 0,
        backend: Backend,
    ):
        channels = dataset.images.shape[1]
        if not len(mean) == len(std) == channels:
            raise ValueError(
                f"Loader: expected mean and std of the {channels} channels of {dataset.name!r}, "
                f"received {len(mean)} and {len(std)} numbers"
            )
        if batch_size < 1:
            raise ValueError(f"Loader: expected batch_size from 1, received {batch_size}")
        self._batches = len(dataset) // batch_size if drop_last else -(-len(dataset) // batch_size)
        if not self._batches:
            raise ValueError(f"Loader: no batch of {batch_size} in the {len(dataset)} records of {dataset.name!r}")
        self._augment, stored = augment or _NONE, dataset.images.shape[2:]
        if image_size > min(stored):
            raise ValueError(
                f"Loader: expected image_size of at most that of the pictures, {stored}, received {image_size}"
            )
        self._size = (image_size, image_size) if image_size else stored
        if self._augment.shift >= min(self._size):
            raise ValueError(
                f"Loader: expected a shift smaller than the pictures, {self._size}, received {self._augment.shift}"
            )
        if self._augment.recolors and isinstance(dataset.images, np.ndarray) and dataset.images.dtype == np.float32:
            least, most = dataset.images.min(), dataset.images.max()
            if least < 0 or most > 1:
                raise ValueError(
                    "Loader: expected pixels of float32 from 0 to 1, where brightness, contrast, saturation or "
                    f"sharpness change, received {least:g} to {most:g}; scale the pixels, or leave these out"
                )
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self._first_flips = np.zeros(0, bool)
        if self._augment.alternate:
            self._first_flips = self._rng(_FLIPS).random(len(dataset)) < self._augment.flip
        self._plain: dict[str, Any] = {"mean": mean, "std": std, "image_size": image_size, "backend": backend}
        self._backend = backend
        self._images = None if isinstance(dataset.images, StoredImages) else backend.asarray(dataset.images)
        self._mean = backend.asarray(np.asarray(mean, np.float32))
        self._std = backend.asarray(np.asarray(std, np.float32))
        self._unit = backend.asarray(np.zeros(channels, np.float32)), backend.asarray(np.ones(channels, np.float32))

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self._batches

    def epoch(self, epoch: int, start_batch: int = 0, augment: bool = True) -> Iterator[tuple[Any, Any]]:
        """Batches start_batch, start_batch + 1, … of `epoch`, without augmentation if `augment` is False.

        -> images float32 (n, C, H, W), labels int64 (n,), or float32 (n, classes) of probabilities where pictures are
        mixed. The order of the records is the same with and without augmentation.
        """
        check_labels(self.dataset.labels, len(self.dataset.classes), f"Dataset {self.dataset.name!r}")
        n, changes = len(self.dataset), self._augment if augment else _NONE
        order = self._rng(epoch, 0).permutation(n) if self.shuffle else np.arange(n)
        with closing(self._pictures(order, start_batch)) as pictures:
            for first in range(start_batch, len(self), _AHEAD):
                batches = range(first, min(first + _AHEAD, len(self)))
                drawn = [self._draw(changes, epoch, batch, self._records(order, batch)) for batch in batches]
                moved = iter(self._backend.asarrays([array for arrays in drawn for array in arrays.values()]))
                for arrays in drawn:
                    yield self._batch(changes, next(pictures), dict(zip(arrays, moved, strict=False)))

    def pictures_of(self, records: np.ndarray) -> Any:
        """Return the pictures of some records, int (n,), normalised and unchanged: float32 (n, C, H, W)."""
        images, _ = next(Loader(self.dataset.subset(records), len(records), **self._plain).epoch(0))
        return images

    def _records(self, order: np.ndarray, batch: int) -> np.ndarray:
        """Return the records of a batch."""
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _pictures(self, order: np.ndarray, start_batch: int) -> Generator[Any, None, None]:
        """Yield for each batch what its records are taken from: all pictures, or, of those in files, its own."""
        images = self.dataset.images
        if isinstance(images, StoredImages):
            records = (self._records(order, batch) for batch in range(start_batch, len(self)))
            with closing(images.batches(records)) as batches:
                yield from map(self._backend.asarray, batches)
        else:
            yield from repeat(self._images)

    def _draw(self, augment: Augment, epoch: int, batch: int, records: np.ndarray) -> dict[str, np.ndarray]:
        """Return what a batch of these records takes beside the stored pictures.

        It is drawn in the order of the operations: what is off draws nothing, so that nothing else changes.
        """
        rng, n, size, stored = self._rng(epoch, 1 + batch), len(records), self._size, self.dataset.images.shape[2:]
        drawn = {"records": np.arange(n) if self._images is None else records, "labels": self.dataset.labels[records]}
        if augment.random_resized_crop:
            drawn["crops"] = augment.draw_crops(rng, n, stored)
        elif size != stored:
            drawn["crops"] = np.tile(middle(stored, size), (n, 1))
        flip, dy, dx = augment.draw(rng, n)
        if augment.alternate:
            flip = self._first_flips[records] ^ bool(epoch % 2)
        drawn |= (
            {"maps": augment.draw_maps(rng, size, flip, dy, dx)}
            if augment.warps
            else {"flip": flip, "dy": dy, "dx": dx}
        )
        if augment.jitters:
            drawn["colors"] = augment.draw_colors(rng, n)
        if augment.sharpness != 1:
            drawn["sharpness"] = augment.draw_sharpness(rng, n)
        if boxes := augment.draw_boxes(rng, n, size):
            drawn["boxes"] = np.stack(boxes)
        if augment.mixes:
            partners, keep, share = augment.draw_mix(rng, n, size)
            one_hot = np.eye(len(self.dataset.classes), dtype=np.float32)[drawn["labels"]]
            mixed = (share * one_hot + (1 - share) * one_hot[partners]).astype(np.float32)
            drawn |= {"partners": partners, "keep": keep, "labels": mixed}
        return drawn

    def _batch(self, augment: Augment, stored: Any, drawn: dict[str, Any]) -> tuple[Any, Any]:
        """Return the images and labels of a batch, from stored pictures and from what was drawn for it."""
        kernels, records = self._backend.kernels, drawn["records"]
        if "crops" in drawn:
            stored = kernels.crop_images(stored, records, drawn["crops"], self._size)
            records = self._backend.xp.arange(len(stored))
        looks = (*(self._unit if augment.recolors else (self._mean, self._std)), augment.padding_mode)
        if augment.warps:
            x = kernels.warp_images(stored, records, drawn["maps"], *looks)
        else:
            x = kernels.gather_images(stored, records, drawn["flip"], drawn["dy"], drawn["dx"], *looks)
        if augment.jitters:
            x = kernels.adjust_colors(x, *drawn["colors"])
        if augment.sharpness != 1:
            x = kernels.adjust_sharpness(x, drawn["sharpness"])
        if augment.recolors:
            x = kernels.normalize_images(x, self._mean, self._std)
        for boxes in drawn.get("boxes", ()):
            x = kernels.erase_images(x, boxes)
        if augment.mixes:
            x = kernels.mix_images(x, drawn["partners"], drawn["keep"])
        return x, drawn["labels"]

    def _rng(self, *stream: int) -> np.random.Generator:
        """A generator of its own for each stream.

        (epoch, 0) is the order of an epoch, (epoch, 1 + i) the augmentation of its batch i.
        """
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=stream)))
