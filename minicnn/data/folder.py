"""A folder of pictures, one folder per class."""

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.data.dataset import Dataset, Splits, check_classes
from minicnn.data.images import SMALL, ImageError, ImageShape, load_images, not_read, scan_folder
from minicnn.data.memory import free_memory
from minicnn.data.split import split
from minicnn.data.stored import StoredImages, Version, samples_of, sums_of, version_of

PARTS = ("train", "val", "test")
_LIKE_PARTS = frozenset((*PARTS, "training", "valid", "validation", "dev", "testing", "eval"))
_SHOWN = 10  # damaged pictures that an error names

Classes = dict[str, list[Path]]  # the pictures of each class


@dataclass
class _Report:
    """What a user may not expect of a folder: other files by kind, pictures below their class, damaged ones."""

    others: Counter[str] = field(default_factory=Counter)
    deeper: int = 0
    damaged: list[str] = field(default_factory=list)
    stored: bool = False

    def note(self, root: Path) -> str:
        notes = [f"pictures from {root}"]
        if self.deeper:
            notes.append(f"{self.deeper:,} of them from subfolders of their class")
        if self.damaged:
            notes.append(f"without {len(self.damaged):,} damaged")
        if self.others:
            notes.append(not_read(self.others))
        if self.stored:
            notes.append("read from disk as they are needed, as they do not fit into the memory (--memory)")
        return "; ".join(notes)

    def complaint(self) -> str:
        """One line that names the first of the damaged pictures, and says how many there are."""
        what = "a picture" if len(self.damaged) == 1 else f"{len(self.damaged):,} pictures"
        more = f"; and {len(self.damaged) - _SHOWN:,} more" if len(self.damaged) > _SHOWN else ""
        shown = "; ".join(self.damaged[:_SHOWN])
        return f"{what} cannot be used: {shown}{more}: remove or mend what is listed, or leave it out by --skip-damaged"


def load(
    root: str | os.PathLike[str],
    *,
    shape: ImageShape = SMALL,
    validation: int | float = 0.1,
    skip_damaged: bool = False,
    memory: float | None = None,
    **how: Any,
) -> Splits:
    """Pictures of `root`/train/CLASS, `root`/val/CLASS and `root`/test/CLASS, or of `root`/CLASS.

    Those in subfolders of a class are of that class. Classes are numbered in the order of their names. Where there is
    no test folder, a fifth of the training pictures is the test set, whatever the seed; where there is no val folder,
    `validation` is split off them by `seed`. The note counts what is not read, by kind.
    shape: the array that a picture becomes. memory: GiB that pictures may take, None for half of what is free. Where
    they take more, with the copy that a split makes, each is read when a batch needs it, and gives the same bits.
    Raises ValueError for an empty root or class, for folders that are not expected, for val or test classes that
    differ from those of train, for a class with less than one picture for each part; ImageError for damaged pictures,
    which it lists, unless `skip_damaged`: then each becomes a warning.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder of pictures")
    report = _Report()
    found = _layout(root, report)
    if memory is not None and not memory >= 0:
        raise ValueError(f"memory: expected GiB from 0, received {memory}")
    name, bound = _name(root), free_memory() // 2 if memory is None else memory * 2**30
    count = sum(len(paths) for classes in found.values() for paths in classes.values())
    report.stored = 2 * count * math.prod(shape.array) > bound
    reader = _Reader(root, shape, int(bound) if report.stored else None, report)
    parts = {part: reader.read(name, classes) for part, classes in found.items()}
    if report.damaged and not skip_damaged:
        raise ImageError(report.complaint())
    for problem in report.damaged:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    for part, dataset in parts.items():
        if empty := set(dataset.classes) - {dataset.classes[label] for label in np.unique(dataset.labels)}:
            raise ValueError(f"{root}, {part}: no pictures in {_listed(empty)} but damaged ones")
    train, held_out, test = parts["train"], parts.get("val"), parts.get("test")
    _check_counts(
        root, train, ["to validate on"] * (held_out is None and validation != 0) + ["to test on"] * (test is None)
    )
    return split(train, held_out, test, validation, **how, note=report.note(root), origin=str(root.resolve()))


def _layout(root: Path, report: _Report) -> dict[str, Classes]:
    """The pictures of train, and of val and test where they have folders, all of the same classes."""
    if (root / "train").is_dir():
        if unexpected := sorted({path.name for path in _folders(root, report)} - set(PARTS)):
            raise ValueError(f"{root}: unexpected {', '.join(unexpected)} beside train, expected only val and test")
        found = {name: _find(root / name, report) for name in PARTS if (root / name).is_dir()}
    else:
        found = {"train": _find(root, report)}
        if likely := [name for name in found["train"] if name.lower() in _LIKE_PARTS and _only_folders(root / name)]:
            raise ValueError(
                f"{root}: {', '.join(likely)} hold folders only, as parts do; call the parts train, val and test"
            )
    for name, classes in found.items():
        if classes.keys() != found["train"].keys():
            missing, added = found["train"].keys() - classes.keys(), classes.keys() - found["train"].keys()
            raise ValueError(
                f"{root / name} has other classes than train: missing {_listed(missing)}; unknown {_listed(added)}"
            )
    return found


def _check_counts(root: Path, train: Dataset, wanted: list[str]) -> None:
    """Raise ValueError unless each class has a picture for each use of those that are to be split off."""
    counts = dict(zip(train.classes, np.bincount(train.labels), strict=True))
    if few := [f"{name} has {count}" for name, count in counts.items() if count <= len(wanted)]:
        uses = " and ".join(["one to train on", *wanted])
        raise ValueError(
            f"{root}: each class needs {len(wanted) + 1} pictures, {uses}; {', '.join(few[:5])}"
            f"{', …' * (len(few) > 5)}: add pictures, or give the folders train, val and test"
        )


def _find(root: Path, report: _Report) -> Classes:
    """The pictures of each class in `root`; what else is there goes into `report`."""
    classes: Classes = {}
    for folder in _folders(root, report):
        paths, others = scan_folder(folder)
        classes[folder.name] = paths
        report.others.update(others)
        report.deeper += sum(path.parent != folder for path in paths)
    if len(classes) < 2:
        raise ValueError(f"{root}: expected a folder for each of two or more classes, received {_listed(classes)}")
    check_classes(tuple(classes), str(root))
    if empty := [name for name, paths in classes.items() if not paths]:
        counted = f"; {not_read(report.others)}" if report.others else ""
        raise ValueError(f"{root}: no pictures in {_listed(empty)}{counted}")
    return classes


@dataclass(frozen=True)
class _Reader:
    """Reads pictures of `root` in a shape: into the memory, or, where that is bounded, to leave them in their files.

    What is wrong with those that cannot be read goes into `report`.
    """

    root: Path
    shape: ImageShape
    memory: int | None
    report: _Report

    def read(self, name: str, classes: Classes) -> Dataset:
        """The pictures of `classes` but for the damaged ones. All are decoded, be it to see whether they are whole."""
        paths = [path for inside in classes.values() for path in inside]
        labels = np.repeat(np.arange(len(classes)), [len(inside) for inside in classes.values()])
        versions = [_version(path) for path in paths] if self.memory is not None else []
        samples, sums = [], []
        images = np.empty((len(paths) if self.memory is None else 0, *self.shape.array), np.uint8)
        whole: list[int] = []
        for index, picture in enumerate(load_images(paths, self.shape)):
            if isinstance(picture, ImageError):
                self.report.damaged.append(str(picture))
                continue
            if self.memory is None:
                images[len(whole)] = picture
            else:
                samples.append(samples_of(picture[None]))
                sums.append(sums_of(picture[None]))
            whole.append(index)
        kept: np.ndarray | StoredImages = images[: len(whole)]
        paths = [paths[i] for i in whole]
        if self.memory is not None and whole:
            chosen = tuple(versions[i] for i in whole)
            described = np.concatenate(samples), np.concatenate(sums)
            kept = StoredImages(tuple(paths), chosen, self.shape, self.shape.side, *described, self.memory)
        files = tuple(path.relative_to(self.root).as_posix() for path in paths)
        return Dataset(kept, labels[whole].astype(np.int64), tuple(classes), name, files)


def _version(path: Path) -> Version:
    """That of a file; of a missing one, which is reported when it is read, none that a file has."""
    try:
        return version_of(path)
    except OSError:
        return -1, -1


def _folders(root: Path, report: _Report) -> list[Path]:
    """The folders in `root`, sorted; what is hidden or no folder is counted in `report`."""
    folders = []
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            report.others["hidden"] += 1
        elif path.is_dir():
            folders.append(path)
        else:
            report.others["beside the folders"] += 1
    return folders


def _only_folders(folder: Path) -> bool:
    return all(path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))


def _name(root: Path) -> str:
    """The name of the folder; bytes that are not UTF-8 are escaped, so that any file can store it."""
    return root.resolve().name.encode(errors="backslashreplace").decode() or "pictures"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
