"""Models with their weights: shipped by name, or from a file."""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import models
from minicnn.backend import Backend
from minicnn.nn import Module
from minicnn.training import checkpoint
from minicnn.training.checkpoint import CheckpointError

FOLDER = Path(__file__).parent.parent / "weights"
"""Where the shipped weights lie: NAME.safetensors, and the card NAME.json."""


@dataclass(frozen=True)
class Pretrained:
    """A model with trained weights, and how to feed it: y = (pixel / 255 - mean) / std per channel."""

    model: Module
    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    metadata: Mapping[str, Any]

    def normalize(self, images: np.ndarray, backend: Backend) -> Any:
        """Return uint8 images (N, 3, H, W) as the float32 input of the model, on ``backend``."""
        mean, std = (np.asarray(v, np.float32).reshape(3, 1, 1) for v in (self.mean, self.std))
        return backend.asarray(((images.astype(np.float32) / 255) - mean) / std)


def names() -> tuple[str, ...]:
    """Return the names of the shipped weights."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def card(name: str) -> dict[str, Any]:
    """Return the model card of shipped weights: recipe, seed, epochs, accuracy, date, versions, SHA-256.

    Raises:
        FileNotFoundError: no such name.
    """
    if name not in names():
        raise FileNotFoundError(f"weights: no shipped weights {name!r} ({_listed()})")
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def load(name_or_path: str | Path, backend: Backend) -> Pretrained:
    """Return shipped weights by name, or those of a .safetensors or HDF5 file, in a model on ``backend``.

    Raises:
        FileNotFoundError: neither a name nor a file.
        CheckpointError: the file is damaged, or not what its card or its model says.
    """
    path = Path(name_or_path)
    if str(name_or_path) in names():
        path = FOLDER / f"{name_or_path}.safetensors"
        if hashlib.sha256(path.read_bytes()).hexdigest() != card(str(name_or_path))["sha256"]:
            raise CheckpointError(f"{path}: the SHA-256 is not that of its card; install minicnn again")
    elif not path.exists():
        close = get_close_matches(str(name_or_path), names(), 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise FileNotFoundError(f"weights: no file and no shipped weights {str(name_or_path)!r} ({_listed()}){hint}")
    stored = checkpoint.load(path)
    arrays, metadata = dict(stored.arrays), stored.metadata
    if metadata.get("kind") != "weights":
        raise CheckpointError(f"{path}: expected weights written by minicnn (as best.safetensors of a run)")
    with checkpoint.bounded_by(arrays, f"{path}: its metadata is not usable"):
        classes, mean, std = _classes(metadata["classes"]), *(_channels(metadata, key) for key in ("mean", "std"))
        _check_split(metadata.get("split", {}))
        model = models.create(str(metadata["model"]), len(classes), **metadata["options"])
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    differences = checkpoint.compare_keys(expected, {name: a.shape for name, a in arrays.items()})
    if differences:
        raise CheckpointError(f"{path}: does not fit {metadata['model']}: " + "; ".join(differences))
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise CheckpointError(f"{path}: {', '.join(broken)} hold NaN or infinities; train the model anew")
    model.load_state_dict(arrays)
    model.to(backend)
    return Pretrained(model, str(metadata["model"]), classes, mean, std, metadata)


def _classes(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected classes as a list of names, received {reprlib.repr(names)}")
    return tuple(names)


def _channels(metadata: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """Three numbers that float32 can hold; those that are divided by are above 0."""
    values, least = metadata[key], 1e-30 if key == "std" else -1e30
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != 3 or not all(least <= value <= 1e30 for value in values):
        limit = "above 0" if key == "std" else "that are finite"
        raise ValueError(f"expected {key} as three numbers {limit}, received {reprlib.repr(values)}")
    return tuple(map(float, values))


def _check_split(split: Any) -> None:
    """The data set is split by it again when the weights are measured."""
    known = isinstance(split, dict) and split.keys() <= {"seed", "validation", "train_size"}
    if not known or not all(
        value is None or type(value) in (int, float) and 0 <= value < 2**63 for value in split.values()
    ):
        raise ValueError(f"expected split as seed, validation and train_size, received {reprlib.repr(split)}")


def _listed() -> str:
    return f"shipped: {', '.join(names())}" if names() else "none are shipped"
