"""evaluate: accuracy, precision, recall and F1 of trained weights on a data set."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from minicnn import data, files
from minicnn.cli.folders import METRICS, check_holds_no_run, held
from minicnn.cli.options import (
    BackendName,
    DataDir,
    Debug,
    Threads,
    Tta,
    UsageError,
    Weights,
    choose_backend,
    naming_memory,
)
from minicnn.cli.reports import test_reports
from minicnn.training import pretrained


def evaluate(
    weights: Weights = "lenet-cifar10",
    dataset: Annotated[str, typer.Option(help="cifar10, digits or a folder (default: what the weights know).")] = "",
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 500,
    tta: Tta = False,
    backend: BackendName = "auto",
    threads: Threads = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    debug: Debug = False,
) -> int:
    """Measure trained weights on a data set."""
    if split not in ("test", "validation", "train"):
        raise UsageError(f"--split: expected test, validation or train, received {split!r}")
    if out is not None:
        check_holds_no_run(out)
    chosen = choose_backend(backend, threads)
    trained = pretrained.load(weights, chosen)
    splits = _load(dataset, data_dir, trained.metadata)
    if splits.train.classes != trained.classes:
        raise ValueError(
            f"the weights {weights} know the classes {', '.join(trained.classes)}, "
            f"the data set {splits.name} has {', '.join(splits.train.classes)}"
        )
    part = getattr(splits, split)
    loader = data.Loader(part, batch_size, mean=trained.mean, std=trained.std, backend=chosen)
    with nullcontext() if out is None else held(out), naming_memory(chosen, batch_size):
        report = test_reports(out, trained.model, loader, tta)
        if out is not None:
            files.atomic_write(out / METRICS, json.dumps(report, indent=2, allow_nan=False) + "\n")
    if as_json:
        print(json.dumps(report, allow_nan=False))
    else:
        print(f"data: {splits.note}")
        _print(report, f"{weights} on {splits.name}, {split}: {report['accuracy']:.2%} of {report['images']:,} images")
    return 0


def _load(dataset: str, data_dir: Path | None, metadata: Mapping[str, Any]) -> data.Splits:
    """The data set, split as it was for the training of weights with this metadata."""
    known = str(metadata.get("dataset", "auto"))
    dataset = dataset or known
    options = metadata.get("split", {}) if Path(dataset).resolve().name == known else {}
    return data.load(dataset, data_dir, **options)


def _print(report: dict[str, Any], title: str) -> None:
    print(title)
    table = Table()
    table.add_column("class")
    for name in ("precision", "recall", "F1", "images"):
        table.add_column(name, justify="right")
    for row in [*report["per_class"], {"class": "macro mean", **report["macro"], "support": report["images"]}]:
        figures = (f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        table.add_row(row["class"], *figures, f"{row['support']:,}")
    Console(markup=False, highlight=False).print(table)
