"""predict: the class of pictures."""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from minicnn.cli import options
from minicnn.data import ImageError, ImageShape, find_images, load_image
from minicnn.precision import precision as within
from minicnn.text import shown
from minicnn.training import pretrained
from minicnn.training.evaluation import predict as probabilities_of
from minicnn.training.progress import Output

_BATCH = 256
_BAR = 30


def predict(
    paths: options.Paths = None,
    image: options.Images = None,
    weights: options.Weights = pretrained.BEST,
    model: options.Model = "",
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    tta: options.Tta = None,
    backend: options.BackendName = "auto",
    threads: options.Threads = 0,
    precision: options.Precision = "float32",
    debug: options.Debug = False,
) -> int:
    """Say what is on pictures: PNG, JPEG, GIF, BMP, WebP, TIFF, PPM or AVIF of any size.

    A picture is cropped to its middle, and resized to what the weights were trained on.
    One that cannot be read is reported, the others are answered, the exit code is 1.
    """
    given = [*(image or []), *(paths or [])]
    if not given:
        raise options.UsageError("expected a picture: predict -image PATH [PATH ...]")
    chosen = options.choose_backend(backend, threads, precision)
    trained = pretrained.load(weights, chosen, model)
    answers: list[dict[str, Any]] = []
    readable = _readable(given, trained.shape, answers)
    while batch := list(islice(readable, _BATCH)):  # not all at once: a folder may hold more than the memory
        with options.naming_memory(chosen, len(batch)), within(precision):
            rows = probabilities_of(trained.model, np.stack([picture for _, picture in batch]), *trained.views(tta))
        for (answer, _), row in zip(batch, rows, strict=True):
            if not np.isfinite(row).all():
                answer["error"] = f"the answer to {answer['path']!r} is not finite; train {weights} anew"
                print(f"error: {answer['error']}", file=sys.stderr)
                continue
            best = np.argsort(-row, kind="stable")[:top_k]
            answer["predictions"] = [{"class": trained.classes[i], "probability": float(row[i])} for i in best]
    if as_json:
        print(json.dumps(answers, indent=2, allow_nan=False))
    else:
        _print([answer for answer in answers if "error" not in answer])
    return 1 if any("error" in answer for answer in answers) else 0


def _readable(
    paths: Sequence[Path], shape: ImageShape, answers: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Add to ``answers`` one for each picture, with its path; yield it with the pixels, or put its error into it."""
    for path, picture in read_pictures(paths, shape):
        answers.append({"path": path})
        if isinstance(picture, ImageError):
            answers[-1]["error"] = str(picture)
        else:
            yield answers[-1], picture


def read_pictures(paths: Sequence[Path], shape: ImageShape) -> Iterator[tuple[str, np.ndarray | ImageError]]:
    """Yield each path, the pictures in a folder for a folder, with its pixels, or with an error that is printed too."""
    for path in paths:
        for name, picture in _pictures_at(path, shape):
            if isinstance(picture, ImageError):
                print(f"error: {shown(picture)}", file=sys.stderr)
            yield name, picture


def _pictures_at(path: Path, shape: ImageShape) -> Iterator[tuple[str, np.ndarray | ImageError]]:
    try:
        inside = find_images(path) if path.is_dir() else []
    except OSError as error:  # a folder that may not be listed, a name that is too long
        yield str(path), ImageError(f"{str(path)!r} cannot be read: {error.strerror}")
        return
    for name in map(str, inside or [path]):  # a folder without any is a path that is refused
        picture: np.ndarray | ImageError
        try:
            picture = load_image(name, shape.size, shape.channels, shape.resize)
        except ImageError as error:
            picture = error
        yield name, picture


def _print(answers: list[dict[str, Any]]) -> None:
    """Bars on a terminal; elsewhere one tab-separated line a class: path, class, probability."""
    console = Output()
    for answer in answers:
        if not console.is_terminal:
            for row in answer["predictions"]:
                print(f"{shown(answer['path'])}\t{shown(row['class'])}\t{row['probability']:.4f}")
            continue
        console.say(answer["path"], style="bold")
        for place, row in enumerate(answer["predictions"]):
            bar = "█" * round(row["probability"] * _BAR)
            line = Text(f"  {row['probability']:6.1%} ")
            line.append(f"{bar:<{_BAR}}", style="green" if place == 0 else "dim")
            line.append(f" {shown(row['class'])}")  # the last: a long name goes on in the next line
            console.print(line, soft_wrap=True)
