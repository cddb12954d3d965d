"""CIFAR-10: 50,000 training and 10,000 test pictures of ten classes.

Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

import os
import tarfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import platformdirs

from minicnn import files
from minicnn.data import pickles
from minicnn.data.dataset import Dataset, Splits, check_labels
from minicnn.data.download import fetch, verify
from minicnn.data.images import SMALL, ImageShape
from minicnn.data.split import split

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
RECORDS = 10_000  # in each of the six files
PIXELS = 3 * 32 * 32
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = ("test_batch",)

Records = tuple[np.ndarray, np.ndarray]  # images uint8 (n, 3, 32, 32), labels int64 (n,)


class DatasetUnavailable(RuntimeError):
    """A data set is neither on disk nor to be had by download; the message says what was tried and what to do."""


def load(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    shape: ImageShape = SMALL,
    validation: int | float = 5_000,
    download: bool = True,
    **how: Any,
) -> Splits:
    """CIFAR-10 from `folder(data_dir)`, downloaded into it where it is not there yet and `download` allows.

    Looked for there, in this order: the folders cifar-10-batches-bin and cifar-10-batches-py (or the files of one of
    them directly), the archives cifar-10-binary.tar.gz and cifar-10-python.tar.gz; `data_dir` may also name such an
    archive. An archive is checked by its SHA-256 and read in place, nothing is unpacked to disk.
    Pictures of another shape than 3x32x32 are resized.
    The validation set is split off the 50,000 training records, as :func:`minicnn.data.split.split` says.
    Raises DatasetUnavailable, FileNotFoundError for an incomplete folder, ValueError for damaged data.
    """
    where = folder(data_dir)
    read = _find(where)
    if read is None:
        if not download:
            raise _unavailable(where, "download is off")
        try:
            fetch(URL, where / BINARY.archive, size=BINARY.size, sha256=BINARY.sha256)
        except (OSError, ValueError) as error:
            raise _unavailable(where, f"download failed: {error}") from error
        read = _find(where)
        assert read is not None
    parts = read(TRAIN + TEST)
    train, test = (_dataset([parts[name] for name in names], shape) for names in (TRAIN, TEST))
    note = f"CIFAR-10 from {where}"
    return split(
        train,
        None,
        test,
        validation,
        **how,
        scaling=(MEAN, STD) if shape.channels == 3 else None,
        note=note,
        origin="cifar10",
    )


def folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where data lies: `data_dir`, else the environment's MINICNN_DATA, else the user's cache folder.

    For a user without a home folder raises DatasetUnavailable, as there is no cache, and ValueError for a "~".
    """
    if named := data_dir or os.environ.get("MINICNN_DATA"):
        return files.expand_user(named)
    with suppress(RuntimeError):  # of newer versions; older ones leave the "~"
        if (cache := platformdirs.user_cache_path("minicnn")).is_absolute():
            return cache
    raise DatasetUnavailable("CIFAR-10: there is no home folder to look in; name one by --data-dir or MINICNN_DATA")


def _unavailable(where: Path, cause: str) -> DatasetUnavailable:
    return DatasetUnavailable(
        f"CIFAR-10 is not in {where} ({cause}). Put {URL} (SHA-256 {BINARY.sha256}) there, "
        "or name the folder that has it with --data-dir or MINICNN_DATA"
    )


def _find(where: Path) -> Callable[[Iterable[str]], dict[str, Records]] | None:
    """What reads the named files from `where`, or None where there is no CIFAR-10."""
    for layout in (BINARY, PYTHON):
        for candidate in (where / layout.folder, where):
            if (candidate / f"{TRAIN[0]}{layout.suffix}").is_file():
                return partial(_read_folder, candidate, layout)
    for layout in (BINARY, PYTHON):
        for candidate in (where / layout.archive, where):
            if candidate.name == layout.archive and candidate.is_file():
                return partial(_read_archive, candidate, layout)
    if where.exists() and not where.is_dir():
        raise ValueError(f"{where} is neither a folder nor one of {BINARY.archive}, {PYTHON.archive}")
    return None


def _read_folder(where: Path, layout: "Layout", names: Iterable[str]) -> dict[str, Records]:
    result = {}
    for name in names:
        path = where / f"{name}{layout.suffix}"
        if not path.is_file():
            raise FileNotFoundError(f"CIFAR-10 in {where} is incomplete: {path.name} is missing")
        with path.open("rb") as file:
            result[name] = layout.decode(file.read(layout.limit + 1), str(path))
    return result


def _read_archive(path: Path, layout: "Layout", names: Iterable[str]) -> dict[str, Records]:
    """The named files of a verified archive, read without unpacking it.

    Members that a careless extraction would write elsewhere, or as anything but files and folders, are refused even
    so: an archive that has them is not what it claims to be.
    """
    try:
        verify(path, size=layout.size, sha256=layout.sha256, name=str(path))
    except ValueError as error:
        raise ValueError(f"{error}; remove it, and the next run downloads it again") from None
    wanted = {f"{name}{layout.suffix}": name for name in names}
    result = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            if inside.is_absolute() or ".." in inside.parts or not (member.isreg() or member.isdir()):
                raise ValueError(f"{path}: unsafe member {member.name!r} refused")
            file = archive.extractfile(member)
            if file is not None and inside.name in wanted:
                where = f"{path}, {inside.name}"
                result[wanted[inside.name]] = layout.decode(file.read(layout.limit + 1), where)
    if missing := sorted(set(wanted.values()) - set(result)):
        raise ValueError(f"{path} is incomplete: {', '.join(missing)} missing")
    return result


def _decode_binary(content: bytes, where: str) -> Records:
    """Records of one label byte, then 1,024 bytes each of red, green and blue, row by row."""
    if len(content) != RECORDS * (1 + PIXELS):
        expected = f"{RECORDS * (1 + PIXELS):,} ({RECORDS:,} records)"
        raise ValueError(f"{where}: wrong length, {len(content):,} bytes instead of {expected}")
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, 1 + PIXELS)
    return _checked(records[:, 1:], records[:, 0], where)


def _decode_python(content: bytes, where: str) -> Records:
    """A pickled dictionary of "data", uint8 (RECORDS, 3072), and "labels", a list of integers."""
    try:
        batch = pickles.load(content)
        if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
            raise ValueError("expected a dictionary with data and labels")
        data, labels = pickles.uint8_array(batch["data"]), batch["labels"]
        if data.shape[1] != PIXELS or not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise ValueError("expected data uint8 (N, 3072) and a list of integer labels")
    except ValueError as error:
        raise ValueError(f"{where} is not a CIFAR-10 batch: {error}") from error
    if not len(data) == len(labels) == RECORDS:
        raise ValueError(f"{where}: {len(data):,} pictures and {len(labels):,} labels instead of {RECORDS:,}")
    return _checked(data, np.asarray(labels, np.int64), where)


def _checked(pixels: np.ndarray, labels: np.ndarray, where: str) -> Records:
    check_labels(labels, len(CLASSES), where)
    return pixels.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def _dataset(parts: Iterable[Records], shape: ImageShape) -> Dataset:
    images, labels = zip(*parts, strict=True)
    return Dataset(shape.resized(np.concatenate(images)), np.concatenate(labels), CLASSES, "cifar10")


@dataclass(frozen=True)
class Layout:
    """One of the two forms in which CIFAR-10 is published; no file of it is longer than `limit` bytes."""

    folder: str
    suffix: str
    decode: Callable[[bytes, str], Records]
    archive: str
    size: int
    sha256: str
    limit: int = 2**25


BINARY = Layout(
    folder="cifar-10-batches-bin",
    suffix=".bin",
    decode=_decode_binary,
    archive="cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
PYTHON = Layout(
    folder="cifar-10-batches-py",
    suffix="",
    decode=_decode_python,
    archive="cifar-10-python.tar.gz",
    size=170_498_071,
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
