"""evaluate: accuracy, precision, recall and F1 of trained weights on a data set."""

import json
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from minicnn import data
from minicnn.cli import options
from minicnn.cli.configuration import reading
from minicnn.cli.folders import METRICS, check_holds_no_run, held
from minicnn.cli.page import write_page
from minicnn.cli.reports import test_reports
from minicnn.expected import OneOf, check
from minicnn.precision import precision as within
from minicnn.text import aligned, shown
from minicnn.training import pretrained
from minicnn.training.progress import Output, waiting
from minicnn.training.stored import write_json


def evaluate(
    weights: options.Weights = pretrained.BEST,
    model: options.Model = "",
    dataset: Annotated[str, typer.Option(help="cifar10, digits or a folder (default: what the weights know).")] = "",
    data_dir: options.DataDir = None,
    skip_damaged: options.SkipDamaged = False,
    memory: options.Memory = None,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 500,
    tta: options.Tta = None,
    backend: options.BackendName = "auto",
    threads: options.Threads = 0,
    precision: options.Precision = "float32",
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json, mistakes.csv, pictures, and report.html of these.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    debug: options.Debug = False,
) -> int:
    """Measure trained weights on a data set: without --dataset, on that of the training.

    A folder is looked for where it was; CIFAR-10 where --data-dir says, or in its usual places.
    """
    with options.usage_errors():
        check(split, OneOf(("test", "validation", "train")), "--split")
    check_holds_no_run(out)
    chosen = options.choose_backend(backend, threads, precision)
    trained = pretrained.load(weights, chosen, model)
    splits = _load(dataset, data_dir, skip_damaged, memory, trained)
    if splits.train.classes != trained.classes:
        raise ValueError(
            f"the weights {weights} know the classes {', '.join(trained.classes)}, "
            f"the data set {splits.name} has {', '.join(splits.train.classes)}"
        )
    _check_identity(splits, split, named=bool(dataset), metadata=trained.metadata)
    part = getattr(splits, split)
    if part is None:
        raise options.UsageError("--split validation: the weights were trained without validation images")
    part = part.center_crop(trained.image_size)
    scaling = trained.preprocessing
    loader = data.Loader(part, batch_size, mean=scaling.mean, std=scaling.std, backend=chosen)
    folder = nullcontext() if out is None else held(out)
    with folder, options.naming_memory(chosen, batch_size), within(precision):
        with waiting(f"asking about {len(part):,} pictures"):
            report = test_reports(out, trained.model, loader, *trained.views(tta))
        if out is not None:
            asked = {"weights": weights, "dataset": splits.name, "split": split}
            write_json(out / METRICS, asked | report | {"compute_precision": precision})
            write_page(out)
    if as_json:
        print(json.dumps(report, allow_nan=False))
    else:
        print(f"data: {shown(splits.note)}")
        plain = f" ({report['plain_accuracy']:.2%} by one view)" if "plain_accuracy" in report else ""
        title = f"{weights} on {splits.name}, {split}: {report['accuracy']:.2%}{plain} of {report['images']:,} images"
        _print(report, title)
    return 0


def _load(
    dataset: str, data_dir: Path | None, skip_damaged: bool, memory: float | None, trained: pretrained.Pretrained
) -> data.Splits:
    """The data set, of pictures as the weights know them, split as for their training where it has the same name."""
    metadata, shape = trained.metadata, trained.shape
    known = metadata.get("dataset") or "auto"
    origin = known if metadata.get("origin") is None else metadata["origin"]
    if not dataset and origin not in data.NAMES and not Path(origin).is_absolute():
        raise options.UsageError(
            f"the weights are of a data set {known!r}, and do not say where it is; name it by --dataset"
        )
    dataset = dataset or origin
    how = dict(metadata.get("split") or {}) if Path(dataset).resolve().name == known else {}
    if skip_damaged:
        how["skip_damaged"] = True
    how |= {"image_size": shape.size, "channels": shape.channels, "resize": shape.resize}
    with reading(dataset):
        return data.load(dataset, data_dir, memory=memory, **how)


def _check_identity(splits: data.Splits, split: str, named: bool, metadata: Mapping[str, Any]) -> None:
    """Say where a data set that has the name of that of the training is another one; refuse it if it was not `named`.

    What counts is the part that is measured. Weights that minicnn wrote before it kept fingerprints are not checked.
    """
    differences = data.identity_differences(metadata.get("data") or {}, splits.identity, [split])
    if not differences or (named and splits.name != metadata.get("dataset")):
        return
    what = f"{splits.name} is not the data of the training: {'; '.join(differences)}"
    if not named:
        raise ValueError(f"{what}; name a data set by --dataset")
    warnings.warn(what, stacklevel=2)


def _print(report: dict[str, Any], title: str) -> None:
    output, rows = Output(), [["class", "precision", "recall", "F1", "images"]]
    for row in [*report["per_class"], {"class": "macro mean", **report["macro"], "support": report["images"]}]:
        figures = (f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        rows.append([shown(row["class"]), *figures, f"{row['support']:,}"])
    for line in [title, "", *aligned(rows, range(1, 5), output.columns)]:
        output.say(line)
