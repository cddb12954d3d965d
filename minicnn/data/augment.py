"""Random changes of a training batch; the pixels are moved by the backend's `gather_images`."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Augment:
    """Mirror a picture left to right with probability `flip`, and move it by up to `shift` pixels each way.

    A shift by up to k pixels is the random crop of a picture padded by k on every side. What comes in at the border is
    the picture mirrored there ("reflect", its edge pixels not repeated) or black ("constant").
    """

    flip: float = 0.5
    shift: int = 0
    padding_mode: Literal["reflect", "constant"] = "reflect"

    def __post_init__(self):
        if not 0 <= self.flip <= 1:
            raise ValueError(f"Augment: flip must be a probability. Received: {self.flip}")
        if not isinstance(self.shift, int) or self.shift < 0:
            raise ValueError(f"Augment: shift must be a number of pixels, 0 or more. Received: {self.shift}")
        if self.padding_mode not in ("reflect", "constant"):
            raise ValueError(f"Augment: padding_mode must be 'reflect' or 'constant'. Received: {self.padding_mode!r}")

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For n pictures: whether to flip, bool (n,); vertical and horizontal shift, int64 (n,) in -shift..shift."""
        flip = rng.random(n) < self.flip
        dy, dx = rng.integers(-self.shift, self.shift, (2, n), endpoint=True)
        return flip, dy, dx
