"""publish: put the best weights of a finished run among those that the package ships, with their card."""

import hashlib
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from minicnn import backend, data
from minicnn.cli.folders import CONFIG, METRICS, WEIGHTS, held_for
from minicnn.cli.options import Debug, Model, UsageError
from minicnn.expected import Maybe, Number, check
from minicnn.training import checkpoint, pretrained
from minicnn.training.stored import read_json, write_json

_SHARE, _COUNT = Number(most=1), Number(1, 10**13, whole=True)
_METRICS = {
    **{"parameters": _COUNT, "best_epoch": _COUNT, "validation_accuracy": Maybe(_SHARE), "train_seconds": Number()},
    "test": {
        "images": _COUNT,
        "accuracy": _SHARE,
        "plain_accuracy": Maybe(_SHARE),
        "macro": dict.fromkeys(("precision", "recall", "f1"), _SHARE),
    },
}
_CONFIG = {"recipe": str, "config": dict, "versions": dict}


def publish(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="Name of the weights, as lenet-cifar10.")],
    card_alone: Annotated[
        Path | None, typer.Option("--card", metavar="FILE", help="Write the card here, and ship no weights.")
    ] = None,
    model: Model = "",
    debug: Debug = False,
) -> int:
    """Ship the best weights of a run under a name, with a card: recipe, seed, epochs, accuracy, date, versions.

    Weights that are too large to ship have their card alone, with --card.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name, re.ASCII):  # it becomes the name of two files
        raise UsageError(f"NAME: expected letters, digits, '-', '_' and '.', as lenet-cifar10, received {name!r}")
    if card_alone and card_alone.suffix.lower() != ".json":
        raise UsageError(f"--card: expected a .json file, received {card_alone}")
    if card_alone and card_alone.resolve().parent == pretrained.FOLDER.resolve():
        raise UsageError(f"--card: {card_alone.parent} has the cards of shipped weights; choose another folder")
    if not (run / METRICS).exists():
        raise UsageError(f"{run}: no {METRICS}, so no finished run")
    metrics, config = read_json(run / METRICS, _METRICS), read_json(run / CONFIG, _CONFIG)
    trained = pretrained.load(run / WEIGHTS, backend.get("numpy"), model)
    metadata = dict(trained.metadata)
    try:
        epoch = Number(metrics["best_epoch"], metrics["best_epoch"], whole=True)
        check(metadata, {"dataset": str, "epoch": epoch})
    except ValueError as error:
        raise ValueError(f"{run / WEIGHTS} is damaged, or not of the run that {METRICS} tells of: {error}") from error
    test = metrics["test"]
    tested = f"{test['accuracy']:.2%} on {test['images']:,} test images"
    path = pretrained.FOLDER / f"{name}.safetensors"
    if metadata.get("origin") not in data.NAMES:  # a path of this machine means nothing elsewhere
        metadata["origin"] = ""
    if config["config"].get("weights") not in pretrained.names():
        config["config"]["weights"] = ""
    card = {
        "name": name,
        "model": trained.name,
        "parameters": metrics["parameters"],
        "dataset": metadata["dataset"],
        "classes": trained.classes,
        "recipe": config["recipe"],
        "config": config["config"],
        "chosen_by": "last epoch" if metrics.get("validation_accuracy") is None else "validation accuracy",
        "epoch": metrics["best_epoch"],
        "validation_accuracy": metrics.get("validation_accuracy"),
        "test_images": test["images"],
        "test_accuracy": test["accuracy"],
        "test_accuracy_of_one_view": test.get("plain_accuracy", test["accuracy"]),
        "test_macro": test["macro"],
        "train_seconds": round(metrics["train_seconds"], 1),
        "date": time.strftime("%Y-%m-%d"),
        "versions": config["versions"],
    }
    if card_alone:
        with held_for(card_alone):
            write_json(card_alone, card)
        print(f"wrote the card of {name} to {card_alone}: {tested}")
        return 0
    with held_for(path):
        checkpoint.save(path, trained.arrays(), metadata)
        card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        write_json(path.with_suffix(".json"), card)
    print(f"shipped {name}: {tested}, {path.stat().st_size:,} bytes")
    return 0
