"""Write the API reference: ``python scripts/docs.py [FOLDER]`` (build/api); needs ``pip install -e ".[docs]"``."""

import inspect
import re
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import pdoc

import minicnn

LATER = ["data", "plots", "training"]  # which minicnn imports on first use
OF_TENSORS = ["arithmetic", "comparisons", "reading", "reductions"]  # what Tensor inherits
PAGES = ["backend", "functional", "models", "nn", "nn.init", "optim", "optim.schedules", "random", *LATER, *OF_TENSORS]


def describe_options() -> None:
    """Add the help of each field to the docstrings of the classes that hold options."""
    from minicnn.data import Augment
    from minicnn.training import Config, TrainingOptions

    for kind in (Augment, TrainingOptions, Config):
        own = [field for field in fields(kind) if field.name in inspect.get_annotations(kind)]
        lines = [f"    {field.name}: {field.metadata['help']}" for field in own]
        kind.__doc__ = "\n".join([inspect.getdoc(kind) or "", "", "Attributes:", *lines])


if __name__ == "__main__":
    for name in minicnn.__all__:  # pdoc sees only what has been imported
        setattr(minicnn, name, getattr(minicnn, name))
    minicnn.__all__ += [*LATER, *OF_TENSORS]
    describe_options()
    warnings.filterwarnings("ignore", message="Error parsing type annotation .* for minicnn.reductions.Extremes")
    others = rf"!minicnn\.(?!({'|'.join(map(re.escape, PAGES))})$).*"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/api")
    pdoc.render.configure(docformat="google", math=True)
    pdoc.pdoc("minicnn", others, output_directory=folder)
    print(f"wrote {folder / 'minicnn.html'}")
