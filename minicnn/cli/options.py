"""Options and checks that several commands share, and the error for a wrong word."""

from pathlib import Path
from typing import Annotated

import typer

from minicnn import backend
from minicnn.backend import Backend

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the data (default: MINICNN_DATA, or a cache folder).")
]
BackendName = Annotated[str, typer.Option("--backend", help="auto (a GPU if there is one), numpy or cupy.")]
Weights = Annotated[str, typer.Option("--weights", help="A .safetensors or .h5 file, or the name of shipped weights.")]
Tta = Annotated[bool, typer.Option("--tta", help="Answer with the mean for a picture and its mirror image.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads (0: all). Results do not depend on it.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class UsageError(ValueError):
    """A wrong option or argument, exit code 2."""


def choose_backend(name: str, threads: int) -> Backend:
    """Make a backend the default, with so many threads."""
    try:
        chosen = backend.set_default(backend.get(name).name)
        if threads:
            backend.set_num_threads(threads)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return chosen
