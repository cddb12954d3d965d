"""Models with their weights: shipped by name, or from a file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import models
from minicnn.backend import Backend
from minicnn.data import ImageShape, images
from minicnn.expected import Maybe, Number, Only, check
from minicnn.nn import Module
from minicnn.text import brief, nearest
from minicnn.training import checkpoint
from minicnn.training.checkpoint import CheckpointError
from minicnn.training.preprocessing import STORED, Preprocessing

FOLDER = Path(__file__).parent.parent / "weights"
"""Where the shipped weights lie: NAME.safetensors, and the card NAME.json."""
NETWORK = "network"
"""The kind of files that :func:`minicnn.save` writes, without a network's name."""
BEST = "speedrun-cifar10"
"""The name of those with the highest accuracy."""
_MEAN, _STD = Number(-1e30, 1e30), Number(1e-30, 1e30)  # in float32 too
_SIDE = Number(1, images.MOST, whole=True)
_SHAPE = {
    **{
        "image_size": Maybe(_SIDE),
        "channels": Maybe(Number(1, 4096, whole=True)),
    },  # earlier without, they were 32 and 3
    **{"resize": Maybe(Number(most=images.MOST, whole=True))},
}
_SPLIT = Only(
    **{"seed": Maybe(Number(whole=True)), "validation": Maybe(Number())},
    **{"train_size": Maybe(Number(whole=True)), "skip_damaged": Maybe(bool), "margin": Maybe(bool)},
    **_SHAPE,
)
_METADATA = {
    **{"model": str, "options": dict, "dataset": Maybe(str), "origin": Maybe(str), **STORED},
    **{"data": Maybe({"fingerprints": Maybe(dict)}), "split": Maybe(_SPLIT)},
    **{"tta": Maybe(bool), "tta_shift": Maybe(Number(whole=True))},
    **_SHAPE,
}


@dataclass(frozen=True)
class Pretrained:
    """A model with trained weights, its name, and how pictures become its input, which it has as an attribute too."""

    model: Module
    name: str
    preprocessing: Preprocessing
    metadata: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.preprocessing.classes

    @property
    def image_size(self) -> int:
        """Height and width of the pictures."""
        return self.metadata.get("image_size") or images.SMALL.size

    @property
    def shape(self) -> ImageShape:
        """The array that a picture file becomes.

        Raises:
            ValueError: the weights are of arrays that no file becomes.
        """
        return ImageShape(self.image_size, len(self.preprocessing.mean), self.metadata.get("resize") or 0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights by name."""
        return {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}

    def views(self, tta: bool | None = None) -> tuple[bool, int]:
        """Return the ``tta`` and ``shift`` of :func:`minicnn.training.predict` that the weights are to be asked with.

        tta: whether by the mean of several views; None as the weights say.
        """
        tta = bool(self.metadata.get("tta")) if tta is None else tta
        return tta, (self.metadata.get("tta_shift") or 0) if tta else 0

    def normalize(self, images: np.ndarray, backend: Backend) -> Any:
        """Return images (N, C, H, W) as the float32 input of the model, on ``backend``."""
        return backend.asarray(self.preprocessing.normalize(images))


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


def load(name_or_path: str | Path, backend: Backend, model: str = "") -> Pretrained:
    """Return shipped weights by name, or those of a .safetensors or HDF5 file, in a model on ``backend``.

    A file never makes code run that is not the package's: a model of the form module:function has to be registered, or
    be the one that the caller names.

    Args:
        name_or_path: of the weights.
        backend: where the model is to be.
        model: the name of the network, "" for what the file says; it is looked up as :func:`minicnn.models.find` does.

    Raises:
        FileNotFoundError: neither a name nor a file.
        CheckpointError: the file is damaged, or not what its card or its model says.
        ValueError: the weights are of another model than the named one, or there is none of that name.
    """
    models.find(model)
    path = Path(name_or_path)
    if str(name_or_path) in names():
        path = FOLDER / f"{name_or_path}.safetensors"
        if hashlib.sha256(path.read_bytes()).hexdigest() != card(str(name_or_path))["sha256"]:
            raise CheckpointError(f"{path}: the SHA-256 is not that of its card; install minicnn again")
    elif not path.exists():
        hint = nearest(str(name_or_path), names())
        raise FileNotFoundError(f"weights: no file and no shipped weights {str(name_or_path)!r} ({_listed()}){hint}")
    stored = checkpoint.load(path)
    arrays, metadata = dict(stored.arrays), stored.metadata
    if metadata.get("kind") == NETWORK:
        raise CheckpointError(
            f"{path}: expected the name of the network too; load the file by minicnn.load(path, model)"
        )
    if metadata.get("kind") != "weights":
        raise CheckpointError(f"{path}: expected weights written by minicnn (as best.safetensors of a run)")
    with checkpoint.bounded_by(arrays, f"{path}: its metadata is not usable"):
        check(metadata, _METADATA)
        size, channels = (
            metadata.get("image_size") or images.SMALL.size,
            metadata.get("channels") or images.SMALL.channels,
        )
        check(metadata, {"mean": (_MEAN,) * channels, "std": (_STD,) * channels})
        check(metadata.get("tta_shift") or 0, Number(most=size - 1, whole=True), "tta_shift")
        models.require(metadata["model"])
        preprocessing = Preprocessing.restored(metadata)
        options = models.options_for(metadata["model"], size, channels) | metadata["options"]
        made = models.create(metadata["model"], len(metadata["classes"]), **options)
    if model not in ("", metadata["model"]):
        raise ValueError(f"model: expected {metadata['model']}, as that of {path}, received {brief(model)}")
    expected = {name: tensor.shape for name, tensor in made.state_dict().items()}
    differences = checkpoint.compare_keys(expected, {name: a.shape for name, a in arrays.items()})
    if differences:
        raise CheckpointError(f"{path}: does not fit {metadata['model']}: " + "; ".join(differences))
    checkpoint.check_finite(path, arrays)
    made.load_state_dict(arrays)
    made.to(backend)
    made.preprocessing = preprocessing
    return Pretrained(made, metadata["model"], preprocessing, metadata)


def _listed() -> str:
    return f"shipped: {', '.join(names())}" if names() else "none are shipped"
