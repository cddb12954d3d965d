"""Seeded splits that keep the share of every class."""

import math

import numpy as np

from minicnn.data.dataset import Dataset, Scaling, Splits, channel_statistics


def stratified_split(dataset: Dataset, validation: int | float, seed: int) -> tuple[Dataset, Dataset]:
    """Take a validation set out of `dataset`: (the rest, the validation set), each in the order of `dataset`.

    validation: a number of records (int), or a share of them (float in (0, 1)), rounded up and one of each class at
    least. Every class is in both parts. The same seed gives the same split. Raises ValueError where that is not
    possible.
    """
    rest, taken = _parted(dataset, np.arange(len(dataset)), validation, seed)
    return dataset.subset(rest), dataset.subset(taken)


def stratified_subset(dataset: Dataset, size: int, seed: int) -> Dataset:
    """`size` records of `dataset` with its share of every class, one at least, in its order; seeded.

    Raises ValueError for a size that is more than there are records, or less than classes.
    """
    return _chosen(dataset, _reduced(dataset, np.arange(len(dataset)), size, seed))


def split(
    train: Dataset,
    held_out: Dataset | None,
    test: Dataset | None,
    validation: int | float,
    seed: int = 0,
    train_size: int | None = None,
    scaling: Scaling | None = None,
    note: str = "",
    origin: str = "",
) -> Splits:
    """Take out of `train` what is not given: a fifth to test on, whatever the seed, and `validation` of the rest.

    validation: 0 for none, whatever is given.

    train_size: how many records to keep then, None for all; seed: of the validation set and of these. scaling, note,
    origin: of the Splits (default: mean and std of what is kept).
    """
    records = np.arange(len(train))  # pictures are copied once, when it is known which: they may be half of the memory
    tested = validated = records[:0]
    if test is None:
        records, tested = _parted(train, records, 0.2, seed=0)
    if held_out is None and validation:
        records, validated = _parted(train, records, validation, seed)
    if train_size is not None:
        records = _reduced(train, records, train_size, seed)
    if test is None:
        test = train.subset(tested)
    if not validation:
        held_out = None
    elif held_out is None:
        held_out = train.subset(validated)
    train = _chosen(train, records)
    return Splits(train, held_out, test, train.name, *(scaling or channel_statistics(train.images)), note, origin)


def _parted(dataset: Dataset, records: np.ndarray, validation: int | float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `records`, int (n,), are left, and which are taken, as :func:`stratified_split` says."""
    taken = _take(dataset, records, validation, seed, left=1)
    return np.setdiff1d(records, taken), taken


def _reduced(dataset: Dataset, records: np.ndarray, size: int, seed: int) -> np.ndarray:
    """`size` of `records`, int (n,), as :func:`stratified_subset` says."""
    return records if size == len(records) else _take(dataset, records, size, seed, left=0)


def _chosen(dataset: Dataset, records: np.ndarray) -> Dataset:
    """Those records, ascending; `dataset` itself where they are all."""
    return dataset if len(records) == len(dataset) else dataset.subset(records)


def _take(dataset: Dataset, records: np.ndarray, wanted: int | float, seed: int, left: int) -> np.ndarray:
    """`wanted` of `records`, ascending: of every class one at least, and `left` or more are not taken."""
    from sklearn.model_selection import train_test_split

    labels = dataset.labels[records]
    classes, counts = np.unique(labels, return_counts=True)
    what = f"cannot split {wanted} of the {len(records)} records of {dataset.name!r} by class"
    if few := [dataset.classes[label] for label in classes[counts < 1 + left]]:
        shown = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        raise ValueError(f"{what}: {shown} has one record, and each class needs one in both parts; add some")
    least, most = len(classes), len(labels) - left * len(classes)
    if isinstance(wanted, float):
        if not 0 < wanted < 1:
            raise ValueError(f"{what}: expected a share above 0 and below 1")
        size = max(math.ceil(wanted * len(labels)), least)
    else:
        size = wanted
    if not least <= size <= most:
        raise ValueError(f"{what}: expected {least} to {most}, as each of the {least} classes must be in the result")
    rng = np.random.RandomState(np.random.MT19937(seed))
    if counts.min() > 1 and size <= len(labels) - least:  # what scikit-learn can do
        taken = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=rng)[1]
        found = np.bincount(labels[taken], minlength=classes[-1] + 1)[classes]
        if (found >= 1).all() and (found <= counts - left).all():
            return records[np.sort(taken)]
    quotas = _quotas(counts, size, left)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:quota] for c, quota in zip(classes, quotas, strict=True)]
    return records[np.sort(np.concatenate(chosen))]


def _quotas(counts: np.ndarray, size: int, left: int) -> np.ndarray:
    """How many to take of each class, `size` in all: its share as far as 1 .. count - left allow."""
    share = size * counts / counts.sum()
    quotas = np.clip(np.floor(share).astype(int), 1, counts - left)
    while (missing := size - quotas.sum()) != 0:
        step = int(np.sign(missing))
        free = quotas < counts - left if step > 0 else quotas > 1
        quotas[np.argmax(np.where(free, step * (share - quotas), -np.inf))] += step
    return quotas
