"""Named arrays and a text as HDF5: one contiguous dataset an array, the text an attribute of the root.

HDF5's own library reads the structure of a file. In the older file format a wrong byte can keep it busy
for ever; the one of HDF5 1.10 has checksums of the structure, so the older one is refused. What the library shows is
checked before an array is made: nothing that leads out of the file, or through a filter, is followed. A file forged
with care may still occupy the library: take .safetensors, which minicnn checks in full, for files from strangers.
"""

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_TEXT = 60_000  # bytes: an attribute is smaller than 64 KiB


def encode(arrays: Mapping[str, np.ndarray], attribute: str, text: str) -> bytes:
    """Return the bytes of an HDF5 file. Raises ValueError for what it cannot hold."""
    if len(text.encode()) > MAX_TEXT:
        raise ValueError(f"the metadata takes more than {MAX_TEXT} bytes; store less")
    buffer = io.BytesIO()
    h5py, stored = _h5py(), text.encode()
    with h5py.File(buffer, "w", libver="v110") as file:
        for name, array in arrays.items():
            if name in ("", ".") or "/" in name or "\0" in name:
                raise ValueError(f"an HDF5 dataset cannot have the name {name!r}")
            file.create_dataset(name, data=array)
        file.attrs.create(attribute, stored, dtype=h5py.string_dtype("utf-8", len(stored)))
    return buffer.getvalue()


def decode(path: Path, attribute: str, dtypes: Collection[str]) -> tuple[dict[str, np.ndarray], str | None]:
    """Return the datasets of the HDF5 file ``path`` by name, and the text, None where the file has no such attribute.

    Raises ValueError for a file that is damaged, or that holds something else than plain datasets of ``dtypes``.
    """
    h5py, size = _h5py(), path.stat().st_size
    with path.open("rb") as start:
        if start.read(len(SIGNATURE) + 1)[-1] < 2:
            raise ValueError('its structure has no checksums; write it anew with h5py.File(..., libver="v110")')
    try:
        with h5py.File(path, "r") as file:
            datasets = {name: _checked(h5py, file, name, dtypes) for name in file}
            total = sum(dataset.nbytes for dataset in datasets.values())
            if total > size:
                raise ValueError(f"its arrays take {total} bytes, where the file has {size}")
            arrays = {name: np.asarray(d[()], d.dtype.newbyteorder("=")) for name, d in datasets.items()}
            return arrays, _text(h5py, file, attribute)
    except (OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:  # whatever the library met
        raise ValueError(f"it is damaged or cut off: {' '.join(str(error).split())[:200]}") from error


def _checked(h5py: Any, file: Any, name: str, dtypes: Collection[str]) -> Any:
    """The dataset, whose array lies in the file in one piece."""
    dataset = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    name = name[:80]  # an error is one readable line
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name!r} is not a dataset with an array")
    # before its shape: that of a virtual dataset is found by opening the files that it names
    if dataset.is_virtual or dataset.external or dataset.chunks is not None:
        raise ValueError(f"the bytes of {name!r} do not lie in the file in one piece, uncompressed")
    if dataset.shape is None:
        raise ValueError(f"{name!r} is not a dataset with an array")
    if dataset.dtype.name not in dtypes:
        raise ValueError(f"the dtype of {name!r} is {str(dataset.dtype)[:40]!r}, none of {', '.join(dtypes)}")
    if dataset.id.get_storage_size() != dataset.nbytes:
        raise ValueError(f"the {dataset.nbytes} bytes of {name!r} do not lie in the file in one piece, uncompressed")
    return dataset


def _text(h5py: Any, file: Any, attribute: str) -> str | None:
    if attribute not in file.attrs:
        return None
    stored = file.attrs.get_id(attribute)
    if stored.shape != () or h5py.check_string_dtype(stored.dtype) is None:
        raise ValueError("its metadata is not text")
    value = file.attrs[attribute]
    return value.decode() if isinstance(value, bytes) else str(value)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ValueError('HDF5 needs the package h5py: pip install "minicnn[hdf5]"') from error
    return h5py
