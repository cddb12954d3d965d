"""scikit-learn's handwritten digits: 1,797 pictures of 8x8, here resized to 3x32x32.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998; the test part of that data set.
"""

import numpy as np
from PIL import Image

from minicnn.data.dataset import Dataset, Splits, channel_statistics
from minicnn.data.split import TEST_SEED, stratified_split, stratified_subset


def load(*, seed: int = 0, validation: int | float = 0.1, train_size: int | None = None) -> Splits:
    """A fifth of the digits is the test set, whatever the seed; `validation` and `train_size` as for CIFAR-10."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # float64 (1797, 64) of 0..16, int (1797,)
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(digit).resize((32, 32), Image.Resampling.BILINEAR)) for digit in grey])
    images = np.repeat(large[:, None], 3, axis=1)  # (1797, 32, 32) -> (1797, 3, 32, 32)
    everything = Dataset(images, labels.astype(np.int64), tuple("0123456789"), "digits")
    rest, test = stratified_split(everything, 0.2, TEST_SEED)
    train, held_out = stratified_split(rest, validation, seed)
    if train_size is not None:
        train = stratified_subset(train, train_size, seed)
    scaling = channel_statistics(train.images)
    return Splits(train, held_out, test, "digits", *scaling, note="digits of scikit-learn", origin="digits")
