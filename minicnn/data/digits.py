"""scikit-learn's handwritten digits: 1,797 pictures of 8x8, here resized, to 3x32x32 by default.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998; the test part of that data set.
"""

from typing import Any

import numpy as np
from PIL import Image

from minicnn.data.dataset import Dataset, Splits
from minicnn.data.images import SMALL, ImageShape
from minicnn.data.split import split


def load(*, shape: ImageShape = SMALL, validation: int | float = 0.1, **how: Any) -> Splits:
    """The digits in a shape, split as :func:`minicnn.data.split.split` says; a fifth is the test set."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # float64 (1797, 64) of 0..16, int (1797,)
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    shape.check_memory(len(grey), copies=2)  # a split makes one
    images = np.stack([shape.pixels(Image.fromarray(digit)) for digit in grey])
    everything = Dataset(images, labels.astype(np.int64), tuple("0123456789"), "digits")
    return split(everything, None, None, validation, **how, note="digits of scikit-learn", origin="digits")
