"""Whole runs of a recipe, as ``scripts/train.py`` makes them without validation, and the file that they are saved in.

A benchmark that takes long saves its record after every run, and goes on with the runs that the file has.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import contest
import minicnn
from minicnn import backend, data
from minicnn.precision import PRECISIONS, precision
from minicnn.text import brief
from minicnn.training import Config, Trainer, evaluate

_NEAR = 0.02
"""How far below the target all views are asked: they add about a point."""


def add_options(options: argparse.ArgumentParser, epochs: int | None = None) -> None:
    """Add which data the runs learn, and what may differ from the recipe in them.

    ``epochs``: the default, None for the recipe's.
    """
    options.add_argument("--dataset", default="auto", help="as that of train.py")
    options.add_argument("--data-dir", type=Path, help="folder of the data")
    kept: dict[str, Any] = {"default": argparse.SUPPRESS, "help": "of a run (default: the recipe's)"}
    options.add_argument("--batch-size", type=contest.batch_size, **kept)
    options.add_argument("--precision", choices=PRECISIONS, **kept)
    own = {"default": epochs, "help": "of a run"} if epochs else kept
    options.add_argument("--epochs", type=contest.whole(1, 1000), **own)


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what these options change of the recipe."""
    return {name: value for name, value in vars(arguments).items() if name in ("batch_size", "precision", "epochs")}


def load(arguments: argparse.Namespace, config: Config) -> data.Splits:
    """Return the data; one line and exit code 1 where they cannot be had."""
    try:
        return data.load(arguments.dataset, arguments.data_dir, **config.split_options())
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(str(error))


def identity(config: Config, splits: data.Splits) -> dict[str, Any]:
    """Return what runs must have in common to be of one record, as JSON has it."""
    return json.loads(json.dumps({"config": asdict(config), "data": splits.identity}))


def known(path: Path | None, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the runs that a file has, [] if there is none.

    One line and exit code 2 unless what ``record`` has is the same in the file: it would be written over.
    """
    if path is None or not path.exists():
        return []
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        contest.refuse(f"{path}: expected a record of runs, received {error}")
    if not isinstance(stored, dict):
        contest.refuse(f"{path}: expected a record of runs, received {brief(stored)}")
    theirs = {name: stored.get(name) for name in record}
    if isinstance(theirs.get("config"), dict):
        later = {name: value for name, value in asdict(Config()).items() if name in record.get("config", {})}
        theirs["config"] = json.loads(json.dumps(later)) | theirs["config"]  # options that did not exist then
    different = "; ".join(_differences(theirs, record))
    if different:
        contest.refuse(
            f"{path}: expected the runs of this record, received others; remove it or save to another file: {different}"
        )
    return stored["runs"]


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    for name in {**theirs, **ours}:
        old, new = theirs.get(name), ours.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new)
        elif old != new:
            yield f"{name} was {brief(old)}, now {brief(new)}"


def train(config: Config, splits: data.Splits, heading: str, target: float = math.inf) -> list[dict[str, Any]]:
    """Train to the end; -> after each epoch the seconds of training so far and the accuracies on the test images.

    Rows have ``plain_accuracy`` by one view, and ``accuracy`` by all that the recipe averages: at the end and where it
    may be that of ``target``, otherwise None. Each is printed behind ``heading``.

    Raises:
        TrainingError: the loss is not finite.
    """
    trainer, rows, seconds = Trainer(config, splits, backend.get("numpy")), [], 0.0
    forward = minicnn.compile(trainer.averaged)
    while not trainer.finished:
        trainer.run_epoch()
        seconds += trainer.history[-1]["seconds"]
        loader, views = trainer.loader("test"), (config.tta, config.tta_shift)
        with precision(config.precision):
            one, many = evaluate(trainer.averaged, loader, forward).accuracy, None
            if trainer.finished or one > target - _NEAR:
                many = evaluate(trainer.averaged, loader, forward, *views).accuracy
        rows.append({"seconds": round(seconds, 2), "accuracy": many, "plain_accuracy": one})
        epoch = f"epoch {len(rows)}/{config.epochs}, {seconds / 60:.2f} min"
        found = "" if many is None else f", {many:.2%} by all views"
        print(f"{heading}, {epoch}: {one:.2%}{found}", flush=True)
    return rows
