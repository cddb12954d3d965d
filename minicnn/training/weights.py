"""Weights of any network, in a file: what was trained by hand or by fit, for a network that the caller makes."""

import os
from typing import TypeVar

from minicnn.nn import Module
from minicnn.training import checkpoint
from minicnn.training.checkpoint import CheckpointError
from minicnn.training.preprocessing import Preprocessing, preprocessing_of
from minicnn.training.pretrained import NETWORK

_Model = TypeVar("_Model", bound=Module)


def save(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the weights of a model, with its preprocessing and the names of its classes, if it has any.

    Args:
        model: any network; its code is not stored.
        path: .safetensors, or .h5 and .hdf5 for other programs.

    Raises:
        ValueError: another suffix; HDF5 without the package h5py.
        OSError: the file cannot be written; one that was there before stays.

    Example:
        >>> import tempfile
        >>> layer = nn.Linear(2, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     minicnn.save(layer, f"{folder}/layer.safetensors")
        ...     twin = minicnn.load(f"{folder}/layer.safetensors", nn.Linear(2, 3))
        >>> bool((twin.weight == layer.weight).numpy().all())
        True
    """
    known = preprocessing_of("save", model)
    metadata = {"kind": NETWORK, "preprocessing": None if known is None else known.stored()}
    checkpoint.save(path, {name: tensor.numpy() for name, tensor in model.state_dict().items()}, metadata)


def load(path: str | os.PathLike[str], model: _Model) -> _Model:
    """Copy weights of a file into a model of the same layers, with the preprocessing that is stored beside them.

    Nothing in a file is ever run.

    Args:
        path: what :func:`save` wrote; best.safetensors of a run; or a file of another program with the same names.
        model: the network; it is returned.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is damaged, or holds something else than weights, or NaN or infinities.
        ValueError: names or shapes are not those of the model, which is then as before.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     minicnn.save(nn.Linear(2, 3), f"{folder}/layer.safetensors")
        ...     minicnn.load(f"{folder}/layer.safetensors", nn.Linear(2, 3))
        Linear(2, 3)
    """
    before = preprocessing_of("load", model)
    stored = checkpoint.load(path)
    metadata = stored.metadata
    kind = metadata.get("kind")
    if kind == "training":
        raise CheckpointError(
            f"{path}: expected weights, received the state of a run; its weights are best.safetensors"
        )
    described = metadata if kind == "weights" else metadata.get("preprocessing")
    try:
        known = before if described is None else Preprocessing.restored(described)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its metadata is not usable: {error}") from error
    checkpoint.check_finite(path, stored.arrays)
    model.load_state_dict(stored.arrays)
    if known is not None:
        model.preprocessing = known
    return model
