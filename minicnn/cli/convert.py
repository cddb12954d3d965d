"""convert: trained weights from one file format to the other."""

from pathlib import Path
from typing import Annotated

import typer

from minicnn import backend
from minicnn.cli.folders import held_for
from minicnn.cli.options import Debug, Model, UsageError
from minicnn.text import shown
from minicnn.training import checkpoint, pretrained


def convert(
    weights: Annotated[str, typer.Argument(help="A .safetensors, .h5 or .hdf5 file, or the name of shipped weights.")],
    out: Annotated[Path, typer.Argument(metavar="FILE", help="What to write, as the suffix says.")],
    model: Model = "",
    debug: Debug = False,
) -> int:
    """Write weights as .safetensors or as HDF5, bit for bit, with what is needed to use them."""
    if out.suffix not in checkpoint.SUFFIXES:
        raise UsageError(f"expected a file {', '.join(checkpoint.SUFFIXES)}, received {out}")
    trained = pretrained.load(weights, backend.get("numpy"), model)
    arrays = trained.arrays()
    with held_for(out):
        checkpoint.save(out, arrays, trained.metadata)
    print(f"wrote {shown(out)}: {len(arrays)} arrays, {out.stat().st_size:,} bytes")
    return 0
