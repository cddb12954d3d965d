"""Options and checks that several commands share, and the error for a wrong word."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from minicnn import backend
from minicnn.backend import Backend, BackendUnavailable
from minicnn.expected import OneOf, check
from minicnn.precision import PRECISIONS

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the data (default: MINICNN_DATA, or a cache folder).")
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Go on without the pictures of a folder that cannot be read.")
]
Memory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        min=0,
        help="GiB that the pictures of a folder may take; more are read from disk when they are needed (default: half "
        "of what is free). Results do not depend on it.",
        show_default=False,
    ),
]
BackendName = Annotated[str, typer.Option("--backend", help="auto (a GPU if there is one), numpy or cupy.")]
Paths = Annotated[list[Path] | None, typer.Argument(metavar="PATH...", help="Pictures, or folders of them.")]
Images = Annotated[list[Path] | None, typer.Option("-image", "--image", help="The same, by option.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results (default: a new one in runs/).")]
Weights = Annotated[str, typer.Option("--weights", help="A .safetensors or .h5 file, or the name of shipped weights.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="The network of the weights where it is MODULE:FUNCTION of your own: no file of weights makes code run "
        "that you do not name.",
        show_default=False,
    ),
]
Tta = Annotated[
    bool | None,
    typer.Option(
        "--tta/--no-tta",
        help="Answer with the mean for a picture and its mirror image, shifted as the weights say, or for one view "
        "(default: as the weights say).",
        show_default=False,
    ),
]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads (0: all). Results do not depend on it.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="What convolutions and linear layers multiply, whatever the training did: float32; bf16, "
        "on a GPU or a CPU with AVX512_BF16; or tf32, on a GPU.",
    ),
]
_ALLOCATION = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "ALLOC_FAILED")  # in CUDA's own errors
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class UsageError(ValueError):
    """A wrong option or argument, exit code 2."""


@contextmanager
def usage_errors(prefix: str = "") -> Iterator[None]:
    """Look at words of the command line in a ``with`` block: a ValueError is their fault."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{prefix}{error}") from error


class OutOfMemory(RuntimeError):
    """The images of a batch do not fit into the memory of the device; the message says what is used, and the remedy."""


def choose_backend(name: str, threads: int, *precisions: str) -> Backend:
    """Make a backend the default, with so many threads; warn where "auto" passes over a CuPy that is installed.

    Raises:
        UsageError: an unknown name, too many threads, or none of the precisions that there are.
        BackendUnavailable: the backend does not work here, or not in one of the ``precisions``.
    """
    with usage_errors():
        for precision in precisions:
            check(precision, OneOf(PRECISIONS), "--precision")
        chosen = backend.set_default(backend.get(name).name)
        if threads:
            backend.set_num_threads(threads)
    if name == "auto" and chosen.name == "numpy" and importlib.util.find_spec("cupy"):
        try:
            backend.get("cupy")
        except BackendUnavailable as error:
            warnings.warn(f"NumPy is used; {error}", stacklevel=2)
    try:
        for precision in precisions:
            chosen.require_precision(precision)
    except RuntimeError as error:
        raise BackendUnavailable(str(error)) from error
    return chosen


@contextmanager
def naming_memory(chosen: Backend, images: int) -> Iterator[None]:
    """Work on batches of so many images in a ``with`` block; that a GPU's memory is too small for it is OutOfMemory."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        if chosen.name != "cupy" or not (isinstance(error, MemoryError) or any(word in text for word in _ALLOCATION)):
            raise
        used, total = (size / 2**30 for size in backend.package("cupy").device_memory())
        raise OutOfMemory(
            f"out of memory on the GPU with batches of {images} images: {used:.1f} of {total:.1f} GiB are in use "
            f"({text[:200]}); use smaller batches, end other programs on the GPU, or use --backend numpy"
        ) from error
