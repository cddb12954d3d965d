"""publish: put the best weights of a finished run among those that the package ships, with their card."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from minicnn import data, files
from minicnn.cli.options import Debug, UsageError
from minicnn.training import checkpoint, pretrained


def publish(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="Name of the weights, as lenet-cifar10.")],
    debug: Debug = False,
) -> int:
    """Ship the best weights of a run under a name, with a card: recipe, seed, epochs, accuracy, date, versions."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name, re.ASCII):  # it becomes the name of two files
        raise UsageError(f"NAME: expected letters, digits, '-', '_' and '.', as lenet-cifar10, received {name!r}")
    if not (run / "metrics.json").exists():
        raise UsageError(f"{run}: no metrics.json, so no finished run")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    stored = checkpoint.load(run / "best.safetensors")
    test = metrics["test"]
    path = pretrained.FOLDER / f"{name}.safetensors"
    metadata = dict(stored.metadata)
    if metadata.get("origin") not in data.NAMES:  # a path of this machine means nothing elsewhere
        metadata["origin"] = ""
    checkpoint.save(path, stored.arrays, metadata)
    card = {
        "name": name,
        "model": stored.metadata["model"],
        "parameters": metrics["parameters"],
        "dataset": stored.metadata["dataset"],
        "classes": stored.metadata["classes"],
        "recipe": config["recipe"],
        "config": config["config"],
        "chosen_by": "validation accuracy",
        "epoch": metrics["best_epoch"],
        "validation_accuracy": metrics["validation_accuracy"],
        "test_images": test["images"],
        "test_accuracy": test["accuracy"],
        "test_macro": test["macro"],
        "train_seconds": round(metrics["train_seconds"], 1),
        "date": time.strftime("%Y-%m-%d"),
        "versions": config["versions"],
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    files.atomic_write(pretrained.FOLDER / f"{name}.json", json.dumps(card, indent=2) + "\n")
    print(f"shipped {name}: {test['accuracy']:.2%} on {test['images']:,} test images, {path.stat().st_size:,} bytes")
    return 0
