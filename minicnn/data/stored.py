"""Pictures that stay in their files, for data sets that are larger than the memory."""

import math
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.data.images import THREADS, ImageError, ImageShape, center_crop, decode

AHEAD = 4
"""Batches, at most, that are decoded before they are asked for."""
_SAMPLES = 50  # values of a picture that its fingerprint is made of: of the 3,072 of 3x32x32 every 61st
Version = tuple[int, int]
"""The bytes of a file, and when it was written, in nanoseconds."""


@dataclass(frozen=True)
class StoredImages:
    """An array uint8 (N, C, H, W) of pictures, of which each access reads the files.

    ``images[i]``, a slice and an array of indices give the pixels; there are no other axes to index.

    Attributes:
        paths: the files.
        versions: of each file, which must not change.
        reading: how they become arrays; of these, the middle of ``size`` pixels.
        samples, sums: of all pixels that are read, as :func:`samples_of` and :func:`sums_of` return them.
        memory: bytes that pictures may take at once.
    """

    paths: tuple[Path, ...]
    versions: tuple[Version, ...]
    reading: ImageShape
    size: int
    samples: np.ndarray
    sums: np.ndarray
    memory: int
    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return len(self.paths), self.reading.channels, self.size, self.size

    @property
    def cropped(self) -> bool:
        """Whether some of the pixels that are read are cut off, so that samples and sums are not of what is left."""
        return self.size != self.reading.side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = np.arange(len(self))[index]
        if chosen.ndim == 0:
            return self._read(int(chosen))
        return next(self.batches([chosen]))

    def subset(self, indices: np.ndarray) -> "StoredImages":
        """The pictures at `indices`, int (n,), in that order; nothing is read."""
        paths, versions = tuple(self.paths[i] for i in indices), tuple(self.versions[i] for i in indices)
        samples, sums = self.samples[indices], self.sums[indices]
        return replace(self, paths=paths, versions=versions, samples=samples, sums=sums)

    def batches(self, batches: Iterable[np.ndarray]) -> Generator[np.ndarray, None, None]:
        """Yield the pictures of each batch of indices, int (n,); threads read those of the next ones meanwhile.

        Raises ImageError, which names the file, for one that cannot be read any more, or that has changed.
        """
        waiting: deque[tuple[np.ndarray, list[Future[None]]]] = deque()

        def first() -> np.ndarray:
            pictures, parts = waiting.popleft()
            for part in parts:
                part.result()
            return pictures

        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for indices in batches:
                    pictures = np.empty((len(indices), *self.shape[1:]), np.uint8)
                    parts = [pool.submit(self._read_into, pictures[k], int(i)) for k, i in enumerate(indices)]
                    waiting.append((pictures, parts))
                    if len(waiting) > self._ahead(pictures.nbytes):
                        yield first()
                while waiting:
                    yield first()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _ahead(self, bytes_of_batch: int) -> int:
        """How many batches to read ahead; beside them there are that in use, and its float32, four times as large."""
        return int(np.clip(self.memory // max(bytes_of_batch, 1) - 5, 1, AHEAD))

    def _read_into(self, place: np.ndarray, index: int) -> None:
        place[...] = self._read(index)

    def _read(self, index: int) -> np.ndarray:
        path = self.paths[index]
        try:
            if version_of(path) != self.versions[index]:
                raise ImageError(f"{str(path)!r} has changed since the data set was loaded; load it again")
            picture, _ = decode(path, self.reading)
        except OSError as error:
            raise ImageError(
                f"{str(path)!r} is gone since the data set was loaded ({error.strerror}); put it back, or load it again"
            ) from error
        return center_crop(picture, self.size)


def samples_of(images: np.ndarray) -> np.ndarray:
    """Return the pixels of each picture (N, C, H, W) that make its fingerprint, (N, n): a copy, without the others."""
    step = math.prod(images.shape[1:]) // _SAMPLES | 1  # odd: from all columns, where their number is even
    return images.reshape(len(images), -1)[:, ::step].copy()


def sums_of(images: np.ndarray) -> np.ndarray:
    """Return of each picture (N, C, H, W) the sums of its channels, and of their squares: (N, 2, C), int64 of uint8."""
    pixels = images.astype(np.int64 if images.dtype == np.uint8 else np.float64)
    return np.stack([pixels.sum(axis=(2, 3)), np.square(pixels).sum(axis=(2, 3))], axis=1)


def version_of(path: Path) -> Version:
    """What changes with the content of a file. Raises OSError where there is none."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
