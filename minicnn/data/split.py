"""Seeded splits that keep the share of every class."""

import numpy as np
from sklearn.model_selection import train_test_split

from minicnn.data.dataset import Dataset

TEST_SEED = 0  # of the test split of a data set that ships without one: the same test pictures whatever the run's seed


def stratified_split(dataset: Dataset, validation: int | float, seed: int) -> tuple[Dataset, Dataset]:
    """Take a validation set out of `dataset`: (the rest, the validation set), each in the order of `dataset`.

    validation: a number of records (int) or a share of them (float in (0, 1)). The same seed gives the same split.
    Raises ValueError where a class would be missing from either part.
    """
    try:
        rest, taken = train_test_split(
            np.arange(len(dataset)),
            test_size=validation,
            stratify=dataset.labels,
            random_state=np.random.RandomState(np.random.MT19937(seed)),
        )
    except ValueError as error:
        raise ValueError(
            f"cannot split {validation} of the {len(dataset)} records of {dataset.name!r} by class: {error}"
        ) from None
    return dataset.subset(np.sort(rest)), dataset.subset(np.sort(taken))


def stratified_subset(dataset: Dataset, size: int, seed: int) -> Dataset:
    """`size` records of `dataset` with its share of every class, in its order; see `stratified_split`."""
    return dataset if size == len(dataset) else stratified_split(dataset, size, seed)[1]
