"""Offsets of taps and pixels in interleaved pictures, and which tile to walk them with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minicnn.backend.cpu.jit import LANES
from minicnn.backend.cpu.tile import CHANNEL_TILES, TILES


@dataclass(frozen=True)
class Window:
    """A window that moves over a picture; every field is (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def room(self, size: Sequence[int], count: Sequence[int]) -> tuple[int, int]:
        """Strides (plane, row) of a picture of ``size`` with its padding, under ``count`` windows each way."""
        reach = (
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(count, self.stride, self.dilation, self.kernel, strict=True)
        )
        height, width = (max(r, n + 2 * p) for r, n, p in zip(reach, size, self.padding, strict=True))
        return height * width * LANES, width * LANES

    def tap_offsets(self, channels: int, plane: int, row: int) -> np.ndarray:
        """Offset of every tap (C, KH, KW) from the first, flat."""
        down, right = np.arange(self.kernel[0]) * self.dilation[0], np.arange(self.kernel[1]) * self.dilation[1]
        return (np.arange(channels)[:, None, None] * plane + down[:, None] * row + right * LANES).ravel()

    def pixel_offsets(self, count: Sequence[int], row: int) -> np.ndarray:
        """Offset of the first tap of every window (OH, OW) from the first, flat."""
        down, right = np.arange(count[0]) * self.stride[0], np.arange(count[1]) * self.stride[1]
        return (down[:, None] * row + right * LANES).ravel()


@dataclass(frozen=True)
class Sweep:
    """Places along one axis that see the same taps.

    ``places``: positions in the result; ``starts``: where each begins in the source; ``taps``: (tap, distance of what
    it sees from the start).
    """

    places: tuple[int, ...]
    starts: tuple[int, ...]
    taps: tuple[tuple[int, int], ...]

    @property
    def reach(self) -> tuple[int, int]:
        """First and last place of the source that is seen."""
        seen = [distance for _, distance in self.taps] or [0]
        return min(self.starts) + min(seen), max(self.starts) + max(seen)


ONE = Sweep((0,), (0,), ((0, 0),))
"""A single place that sees a single place."""


def sweeps(
    kernel: int, stride: int, padding: int, dilation: int, source: int, result: int, adjoint: bool, halo: bool
) -> list[Sweep]:
    """Divide the ``result`` places of a convolution along one axis by the taps they see of ``source`` places.

    Convolution sees i stride - padding + u dilation from place i with tap u; ``adjoint``, the gradient for the input,
    (i + padding - u dilation) / stride where that is a whole number. Taps outside of the source are left out, unless a
    ``halo`` of zeros is there to be read.
    """
    groups: dict[tuple[tuple[int, int], ...], list[tuple[int, int]]] = {}
    for place in range(result):
        start = place // stride if adjoint else place * stride - padding
        taps = []
        for u in range(kernel):
            seen, rest = divmod(place + padding - u * dilation, stride) if adjoint else (start + u * dilation, 0)
            if rest == 0 and (halo or 0 <= seen < source):
                taps.append((u, seen - start))
        groups.setdefault(tuple(taps), []).append((place, start))
    return [
        Sweep(tuple(place for place, _ in members), tuple(start for _, start in members), taps)
        for taps, members in groups.items()
    ]


def reach(window: Sequence[tuple[int, int]], size: Sequence[int], result: Sequence[int]) -> tuple[int, int]:
    """Return how many rows and columns outside of a picture of ``size`` a convolution sees at most, on either side.

    window: kernel, stride, padding and dilation, each (vertical, horizontal).
    """
    seen = []
    for kernel, stride, padding, dilation, source, count in zip(*window, size, result, strict=True):
        seen.append(max(0, padding, (count - 1) * stride - padding + dilation * (kernel - 1) - source + 1))
    return seen[0], seen[1]


def tile_for(rows: int, single: bool = False) -> tuple[int, int, int]:
    """Return index, rows and columns of the tile that wastes least on so many rows, and on a ``single`` column."""
    if single:
        return 2, *TILES[2]
    choice = min((0, 1), key=lambda i: (up(rows, TILES[i][0]), -TILES[i][0]))
    return choice, *TILES[choice]


def tiles_for_channels(rows: int, columns: int) -> list[tuple[int, int, int]]:
    """Return tiles for ``rows`` planes x ``columns`` pixels: of each the first plane, the planes and the index."""
    tiles, done = [], 0
    if columns == 1:
        high = CHANNEL_TILES[4][0]
        done = rows // high * high
        tiles += [(0, done, 4)] if done else []
    high, wide = CHANNEL_TILES[0]
    whole, narrow = (rows - done) // high * high, CHANNEL_TILES[5][1]
    tiles += [(done, whole, 5 if up(columns, narrow) < up(columns, wide) else 0)] if whole else []
    done += whole
    if done < rows:
        tiles.append((done, rows - done, high - (rows - done)))
    return tiles


def tile_for_matrix(rows: int, columns: int) -> tuple[int, int, int]:
    """Return index, rows and columns of the tile that wastes least on ``rows`` x ``columns`` vectors."""
    choice = min((0, 1), key=lambda i: up(rows, TILES[i][0]) * up(columns, TILES[i][1]))
    return choice, *TILES[choice]


def up(value: int, multiple: int) -> int:
    """Return the smallest multiple that is not below ``value``."""
    return -(-value // multiple) * multiple


def padded(parts: list) -> tuple[np.ndarray, tuple[int, ...]]:
    """Join lists of offsets into one table; return it and where each begins.

    A list given with a multiple is filled up to it with its last entry: what a tile computes there, it computes twice.
    """
    lists = []
    for part in parts:
        offsets, multiple = part if isinstance(part, tuple) else (part, 1)
        lists.append(np.pad(offsets, (0, -len(offsets) % multiple), mode="edge"))
    starts = np.cumsum([0, *(len(offsets) for offsets in lists)])
    return np.concatenate(lists), tuple(int(s) for s in starts[:-1])
