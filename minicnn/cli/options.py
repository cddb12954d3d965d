"""Options that several commands share, and the error for a wrong one."""

from pathlib import Path
from typing import Annotated

import typer

from minicnn import backend
from minicnn.backend import Backend

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the data (default: MINICNN_DATA, or a cache folder).")
]
BackendName = Annotated[str, typer.Option("--backend", help="auto (a GPU if there is one), numpy or cupy.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads (0: all). Results do not depend on it.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def usage(error: ValueError) -> typer.BadParameter:
    """Return the error as one of usage (exit code 2)."""
    return typer.BadParameter(str(error))


def choose_backend(name: str, threads: int) -> Backend:
    """Make a backend the default, with so many threads, and say what "auto" chose."""
    if name != "auto" and name not in backend.names():
        raise usage(ValueError(f"--backend: expected auto, {', '.join(backend.names())}, received {name!r}"))
    chosen = backend.set_default(backend.get(name).name)
    if threads:
        try:
            backend.set_num_threads(threads)
        except ValueError as error:
            raise usage(error) from error
    return chosen
