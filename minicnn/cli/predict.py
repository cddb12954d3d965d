"""predict: the class of pictures."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.text import Text

from minicnn.cli.options import BackendName, Debug, Threads, choose_backend, usage
from minicnn.data import ImageError, find_images, load_image
from minicnn.training import pretrained
from minicnn.training.evaluation import predict as probabilities_of

_BATCH = 256
_BAR = 30


def predict(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH...", help="Pictures, or folders of them.")] = None,
    image: Annotated[list[Path] | None, typer.Option("-image", "--image", help="The same, by option.")] = None,
    weights: Annotated[
        str, typer.Option(help="A .safetensors file, or the name of shipped weights.")
    ] = "lenet-cifar10",
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    backend: BackendName = "auto",
    threads: Threads = 0,
    debug: Debug = False,
) -> int:
    """Say what is on pictures: PNG, JPEG, GIF, BMP, WEBP, TIFF or PPM of any size.

    A picture is cropped to its central square and resized to 32 x 32. One that cannot be read is reported, the others
    are answered all the same, and the exit code is 1.
    """
    given = [*(image or []), *(paths or [])]
    if not given:
        raise usage(ValueError("expected a picture: predict.py -image PATH [PATH ...]"))
    chosen = choose_backend(backend, threads)
    trained = pretrained.load(weights, chosen)
    pictures, answers = [], []
    for path in _expanded(given, answers):
        try:
            pictures.append((path, load_image(path)))
        except ImageError as error:
            answers.append({"path": str(path), "error": str(error)})
    for start in range(0, len(pictures), _BATCH):
        batch = pictures[start : start + _BATCH]
        images = trained.normalize(np.stack([pixels for _, pixels in batch]), chosen)
        for (path, _), row in zip(batch, probabilities_of(trained.model, images), strict=True):
            best = np.argsort(-row, kind="stable")[:top_k]
            named = [{"class": trained.classes[i], "probability": float(row[i])} for i in best]
            answers.append({"path": str(path), "predictions": named})
    failures = [answer for answer in answers if "error" in answer]
    for answer in failures:
        print(f"error: {answer['error']}", file=sys.stderr)
    if as_json:
        print(json.dumps(answers, ensure_ascii=False, indent=2))
    else:
        _print([answer for answer in answers if "error" not in answer])
    return 1 if failures else 0


def _expanded(given: list[Path], answers: list[dict[str, Any]]) -> list[Path]:
    """The pictures in folders, and the other paths as they are; a folder without pictures is an error."""
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
        elif inside := find_images(path):
            found += inside
        else:
            answers.append({"path": str(path), "error": f"{path}: a folder without pictures"})
    return found


def _print(answers: list[dict[str, Any]]) -> None:
    """Bars on a terminal; elsewhere one tab-separated line a class: path, class, probability."""
    console = Console(markup=False, highlight=False, emoji=False)
    for answer in answers:
        if not console.is_terminal:
            for row in answer["predictions"]:
                print(f"{answer['path']}\t{row['class']}\t{row['probability']:.4f}")
            continue
        console.print(answer["path"], style="bold")
        width = max(len(row["class"]) for row in answer["predictions"])
        for place, row in enumerate(answer["predictions"]):
            bar = "█" * round(row["probability"] * _BAR)
            line = Text(f"  {row['class']:<{width}} ")
            line.append(f"{bar:<{_BAR}}", style="green" if place == 0 else "dim")
            line.append(f" {row['probability']:6.1%}")
            console.print(line)
