"""The stored state of a run, looked at before it is used."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from minicnn import models
from minicnn.expected import Maybe, Number, OneOf, check
from minicnn.training.checkpoint import CheckpointError, bounded_by
from minicnn.training.config import Config

RANDOM = {  # what minicnn.random.get_state returns
    "host": {
        "bit_generator": OneOf(["PCG64"]),
        "state": {name: Number(most=2**128 - 1, whole=True) for name in ("state", "inc")},
        "has_uint32": Number(most=1, whole=True),
        "uinteger": Number(most=2**32 - 1, whole=True),
    },
    "first_key": Number(most=2**64 - 1, whole=True),
    "keys": Number(most=2**64 - 1, whole=True),
}
DATA = {"dataset": str, "records": dict, "classes": [str], "fingerprints": Maybe(dict)}  # earlier without the last


def stored_config(metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Config:
    """Return the configuration of the run whose :meth:`Trainer.state` this is; CheckpointError without."""
    if metadata.get("kind") != "training":
        raise CheckpointError("cannot resume: the file does not hold the state of a run")
    with bounded_by(arrays, "cannot resume: the stored options are not usable"):
        check(metadata, {"config": dict})
        options = metadata["config"]
        if "lookahead" not in options and options.get("validation") == 0:  # earlier the data set's own
            options = options | {"validation": -1}
        if isinstance(options.get("model"), str):
            models.require(options["model"] or "lenet")  # Config would import a module:function that it names
        return Config(**options)


@contextmanager
def refused() -> Iterator[None]:
    """Look at a stored state in a ``with`` block; what is wrong with it is a CheckpointError."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"cannot resume: the state is damaged: {error}") from error
