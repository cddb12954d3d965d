"""Saving and loading named arrays with metadata, bit-exact, atomic, and nothing in a file is ever run.

Files are .safetensors, or HDF5 for the sake of other programs (:mod:`minicnn.training.hdf5`). The former
(https://huggingface.co/docs/safetensors) are 8 bytes with the length of the header, the header as JSON
{name: {"dtype", "shape", "data_offsets"}, "__metadata__": {str: str}}, then the arrays' bytes without gaps.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from minicnn.files import atomic_write
from minicnn.nn import init
from minicnn.training import hdf5

SUFFIXES = (".safetensors", ".h5", ".hdf5")
FORMAT = 1  # the version of what minicnn stores; a reader refuses a newer one
MAX_HEADER = 2 * 1024 * 1024  # bytes: some 20,000 arrays, and parsed in well under a second
_KEY = "minicnn"
_READS = "minicnn reads .safetensors and HDF5 only"
_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_DTYPES = ("bool", *_INTEGERS, "float16", "float32", "float64")
_STORED_DTYPES = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64")
_FOREIGN_SUFFIXES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npz", ".npy", ".keras"}
_FOREIGN_STARTS = {
    b"PK": "a zip archive (.pt, .npz or .keras)",
    b"\x80": "a pickle",
    b"\x93NUMPY": "an .npy file",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}


class CheckpointError(ValueError):
    """A weight file that is damaged, of another kind, or newer than this minicnn."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file held: arrays by name, in alphabetical order, and the metadata, {} for a file of another program."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes `arrays` (bool, integer or float; any shape, any strides) and JSON-able `metadata`, as the suffix says.

    Atomic: a crash or a full disk leaves the old file or the new one. Raises ValueError for another suffix than
    .safetensors, .h5 and .hdf5 or a header over 2 MiB (HDF5: metadata over 60 kB), TypeError for a dtype or metadata
    that the format cannot hold, OSError when writing fails. HDF5 without the package h5py is a ValueError too.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"save: expected a path that ends in {', '.join(SUFFIXES)}, received {path}")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.name not in _DTYPES:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"save: expected arrays of {', '.join(_DTYPES)}, received for {name!r}: {kind}")
    try:
        text = json.dumps({"format": FORMAT, "metadata": dict(metadata)})
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"save: expected metadata that JSON can hold: {error}") from error
    # safetensors copies an array's memory as it lies, so anything but native C order would be stored scrambled
    plain = {name: np.asarray(array, array.dtype.newbyteorder("="), order="C") for name, array in arrays.items()}
    try:
        encode = _encode if path.suffix == SUFFIXES[0] else hdf5.encode
        atomic_write(path, encode(plain, _KEY, text))
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"cannot write {path}: {error}") from error


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a .safetensors or HDF5 file of any program; every field is checked before an array is made.

    Raises FileNotFoundError, and CheckpointError for a file that is damaged, of another kind (pickles and archives
    are never opened), written by a newer minicnn, or HDF5 where h5py is not installed. Needs memory of twice the
    file's size at most.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weight file {path}: check the path")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; minicnn reads .safetensors and HDF5 files")
    if path.suffix.lower() in _FOREIGN_SUFFIXES:
        raise CheckpointError(
            f"{path}: a {path.suffix} file is not opened, as it can run code; convert it to .safetensors"
        )
    with path.open("rb") as file:
        try:
            if file.read(len(hdf5.SIGNATURE)) == hdf5.SIGNATURE:
                arrays, text = hdf5.decode(path, _KEY, _DTYPES)
            else:
                arrays, text = _decode(path, _header(file))
            return Checkpoint(arrays, {} if text is None else _metadata(text))
        except (ValueError, RecursionError, MemoryError, SafetensorError) as error:
            raise CheckpointError(f"cannot load {path}: {error or 'nested too deeply'}") from error


@contextmanager
def bounded_by(arrays: Mapping[str, np.ndarray], where: str) -> Iterator[None]:
    """Make a model from the metadata beside ``arrays`` in a ``with`` block, in the time and memory that these take.

    The limit is twice their number and size, and a little model more, so that :func:`compare_keys` can list what does
    not fit. Whatever a constructor makes of foreign options is a CheckpointError that starts with ``where``.
    """
    elements = sum(array.size for array in arrays.values())
    try:
        with init.limited(2 * len(arrays) + 1000, 2 * elements + 2**22):
            yield
    except (OSError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{where}: {error}") from error


def check_finite(path: object, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise CheckpointError, which calls the file by ``path``, for weights that are NaN or infinite."""
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise CheckpointError(f"{path}: {', '.join(broken)} hold NaN or infinities; train the model anew")


def compare_keys(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One line for each name that is missing, misshaped or extra in `found`; [] where names and shapes agree."""
    differences = []
    for name, shape in expected.items():
        if name not in found:
            differences.append(f"missing: {name} {tuple(shape)}")
        elif tuple(found[name]) != tuple(shape):
            differences.append(f"misshaped: {name} expected {tuple(shape)}, found {tuple(found[name])}")
    differences += [f"extra: {name} {tuple(shape)}" for name, shape in found.items() if name not in expected]
    return differences


def _encode(arrays: Mapping[str, np.ndarray], key: str, text: str) -> bytes:
    content = safetensors.numpy.save(dict(arrays), metadata={key: text})
    if int.from_bytes(content[:8], "little") > MAX_HEADER:
        raise ValueError(f"the names and metadata take more than {MAX_HEADER} bytes; store less")
    return content


def _header(file: BinaryIO) -> bytes:
    """Return the header of an open file, once it is known to be a short one."""
    file.seek(0)
    start = file.read(32)
    if start[8:9] != b"{":
        kind = next((kind for magic, kind in _FOREIGN_STARTS.items() if start.startswith(magic)), None)
        raise ValueError(f"it is {kind}; {_READS}" if kind else f"it is not a .safetensors file; {_READS}")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER:
        raise ValueError(f"its header of {length} bytes is longer than {MAX_HEADER}")
    file.seek(8)
    return file.read(length)


def _decode(path: Path, header: bytes) -> tuple[dict[str, np.ndarray], str | None]:
    """Return the arrays of the file and minicnn's text.

    The library proves that the header describes exactly the bytes of the file; what it lets pass is refused here.
    """
    with safetensors.safe_open(path, "np") as file:
        for name, entry in json.loads(header, object_pairs_hook=_unique).items():
            if name != "__metadata__":
                _check_entry(name[:80], entry)  # an error is one readable line
        return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(_KEY)  # noqa: SIM118


def _check_entry(name: str, entry: Mapping[str, Any]) -> None:
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {name!r} is not dtype, shape and data_offsets")
    if entry["dtype"] not in _STORED_DTYPES:
        raise ValueError(f"the dtype of {name!r} is {entry['dtype']}, none of {', '.join(_STORED_DTYPES)}")
    if len(entry["shape"]) > 32:
        raise ValueError(f"{name!r} has {len(entry['shape'])} axes, more than 32")


def _metadata(text: str) -> dict[str, Any]:
    stored = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(stored, dict) or type(stored.get("format")) is not int:
        raise ValueError("its minicnn metadata has no format version")
    if stored["format"] > FORMAT:
        raise ValueError(f"it has format version {stored['format']}, this minicnn reads up to {FORMAT}; update minicnn")
    if stored["format"] < 1 or not isinstance(stored.get("metadata"), dict):
        raise ValueError("its minicnn metadata is not of format version 1")
    return stored["metadata"]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key occurs twice in its header")
    return mapping
