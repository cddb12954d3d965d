"""explain: where a trained network looks on pictures of yours, and what it sees there."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from minicnn import plots
from minicnn.cli import options
from minicnn.cli.folders import check_holds_no_run, held
from minicnn.cli.predict import read_pictures
from minicnn.cli.reports import check_finite, explanations, write_pictures
from minicnn.data import ImageError
from minicnn.expected import OneOf, check
from minicnn.precision import precision as within
from minicnn.tensor import Tensor
from minicnn.text import shown
from minicnn.training import pretrained
from minicnn.training.evaluation import predict
from minicnn.training.explain import check_layer

_MOST = 24  # pictures on one sheet


def explain(
    paths: options.Paths = None,
    image: options.Images = None,
    weights: options.Weights = pretrained.BEST,
    model: options.Model = "",
    layer: Annotated[
        str, typer.Option(help="Layer to show (default: feature maps of the first convolution, Grad-CAM of the last).")
    ] = "",
    class_name: Annotated[str, typer.Option("--class", help="Class to look for (default: the most probable).")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/explanations"),
    backend: options.BackendName = "auto",
    threads: options.Threads = 0,
    precision: options.Precision = "float32",
    debug: options.Debug = False,
) -> int:
    """Draw what a model sees on up to 24 pictures.

    grad_cam.png: which parts speak for the class.
    feature_maps.png: the first picture behind a layer.
    filters.png: those of the first convolution.
    probabilities-N.png: the most probable classes of picture N; those of an earlier call go.

    A picture that cannot be read is reported, the others are explained, the exit code is 1.
    """
    given = [*(image or []), *(paths or [])]
    if not given:
        raise options.UsageError("expected a picture: explain -image PATH [PATH ...]")
    check_holds_no_run(out)
    chosen = options.choose_backend(backend, threads, precision)
    trained = pretrained.load(weights, chosen, model)
    if class_name:
        with options.usage_errors():
            check(class_name, OneOf(trained.classes), "--class")
    read = list(read_pictures(given, trained.shape))
    readable = [(path, picture) for path, picture in read if not isinstance(picture, ImageError)]
    if not readable:
        return 1
    if len(readable) > _MOST:
        raise options.UsageError(f"expected at most {_MOST} pictures for one sheet, received {len(readable)}")
    images = np.stack([picture for _, picture in readable])
    inputs = Tensor(trained.normalize(images, chosen))
    if layer:
        with options.usage_errors("--"):
            check_layer(trained.model, inputs, layer)
    with options.naming_memory(chosen, len(images)), within(precision):
        rows = predict(trained.model, images)
    check_finite(rows)
    targets = np.full(len(rows), trained.classes.index(class_name)) if class_name else rows.argmax(axis=1)
    answers = [f"{trained.classes[index]} {row[index]:.0%}" for index, row in zip(targets, rows, strict=True)]
    captions = [f"{answer}, {Path(path).name}" for answer, (path, _) in zip(answers, readable, strict=True)]
    with options.naming_memory(chosen, len(images)), within(precision):
        pictures = explanations(trained.model, inputs, images, targets, captions, layer)
    if not pictures:
        raise ValueError(f"{weights}: expected a model with a convolution, received {trained.name}; name a --layer")
    for number, (picture, row) in enumerate(zip(images, rows, strict=True), 1):
        pictures[f"probabilities-{number}"] = plots.probability_bars(picture, row, trained.classes)
    with held(out):
        for earlier in out.glob("probabilities-*.png"):
            if earlier.stem.removeprefix("probabilities-").isdecimal():
                earlier.unlink()
        write_pictures(out, pictures)
    for number, (answer, (path, _)) in enumerate(zip(answers, readable, strict=True), 1):
        print(f"{number}\t{shown(path)}\t{shown(answer)}")
    print(f"wrote {', '.join(f'{name}.png' for name in pictures)} into {shown(out)}")
    return 0 if len(readable) == len(read) else 1
