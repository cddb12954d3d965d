"""train: from a data set to a folder with weights, figures and pictures."""

import json
import platform
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

import minicnn
from minicnn import data, files, models
from minicnn.cli.options import BackendName, DataDir, Debug, Threads, UsageError, check_holds_no_run, choose_backend
from minicnn.cli.reports import test_reports, write_curves
from minicnn.training import Config, Trainer, checkpoint, recipe, recipe_names
from minicnn.training.progress import Output, Progress
from minicnn.training.trainer import stored_config

STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}


def train(
    recipe_name: Annotated[
        str, typer.Option("--recipe", help="Name of a set of options, or 'list' (default: lenet, or digits on digits).")
    ] = "",
    dataset: Annotated[
        str, typer.Option(help="auto (CIFAR-10, else digits), cifar10, digits, or a folder of class folders.")
    ] = "",
    data_dir: DataDir = None,
    backend: BackendName = "auto",
    threads: Threads = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: a new one in runs/).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with its options.")] = False,
    stop_after: Annotated[int, typer.Option(min=0, help="Stop, to resume later, after so many epochs (0: no).")] = 0,
    eager: Annotated[
        bool, typer.Option("--eager", help="Run every operation at once instead of a compiled plan.")
    ] = False,
    model: Annotated[str | None, typer.Option(help=f"{', '.join(models.names())}.")] = None,
    relu_logits: Annotated[bool | None, typer.Option(help="A ReLU on the logits.", show_default=False)] = None,
    epochs: Annotated[int | None, typer.Option(help="Times that every training image is seen.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of one step.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (the highest of its schedule).")] = None,
    momentum: Annotated[float | None, typer.Option(help="Of the past steps of sgd.")] = None,
    nesterov: Annotated[bool | None, typer.Option(help="Nesterov's momentum.", show_default=False)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Pull of the weights towards 0.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="constant, step, multi-step, cosine, one-cycle or plateau.")
    ] = None,
    warmup: Annotated[int | None, typer.Option(help="Epochs of linear warm-up.")] = None,
    step_size: Annotated[int | None, typer.Option(help="Epochs between the steps of 'step'.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Factor of 'step', 'multi-step' and 'plateau'.")] = None,
    milestones: Annotated[str | None, typer.Option(help="Epochs of 'multi-step', as 30,45.")] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs that 'plateau' waits.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of the target spread over all classes.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient (0: off).")] = None,
    clip_value: Annotated[float | None, typer.Option(help="Largest element of the gradient (0: off).")] = None,
    early_stop: Annotated[int | None, typer.Option(help="Stop after so many epochs without a best (0: off).")] = None,
    normalize: Annotated[str | None, typer.Option(help="mean-std, or unit for [0, 1].")] = None,
    flip: Annotated[float | None, typer.Option(help="Probability of a mirrored picture.")] = None,
    shift: Annotated[int | None, typer.Option(help="Largest random shift, pixels.")] = None,
    padding_mode: Annotated[str | None, typer.Option(help="What a shift uncovers: reflect or constant.")] = None,
    validation: Annotated[int | None, typer.Option(help="Images to validate on (0: the data set's own).")] = None,
    train_size: Annotated[int | None, typer.Option(help="Images to train on (0: all others).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of initial weights, data order, changes and split.")] = None,
    debug: Debug = False,
) -> int:
    """Train a model, choose the best epoch on validation data, and test it once.

    Weights, history, figures and pictures go into the folder of the run.
    Options that are not given are those of the recipe.
    """
    given = {k: v for k, v in locals().items() if k in {f.name for f in fields(Config)} and v is not None}
    if recipe_name == "list":
        print("\n".join(recipe_names()))
        return 0
    source = {"recipe": recipe_name, "dataset": dataset, "data_dir": str(data_dir.resolve()) if data_dir else ""}
    stored = None
    if resume:
        stored = _run_in(out)
        source = stored.metadata.get("source", {}) | {name: word for name, word in source.items() if word}
    elif out is not None:
        check_holds_no_run(out)
    source["dataset"] = source.get("dataset") or "auto"
    configs = _configs(source, given, None if recipe_name else stored)  # checked before any data loads
    chosen = choose_backend(backend, threads)
    splits, source["recipe"] = _load(source, configs)
    if source["dataset"] in data.NAMES:
        source["dataset"] = splits.name
    else:
        source["dataset"] = str(Path(source["dataset"]).resolve())
    config = configs[source["recipe"]]
    output = Output()
    output.say(f"data: {splits.note}")
    folder = out or files.new_run_folder("runs", f"{splits.name}-{config.model}-{time.strftime('%Y%m%d-%H%M%S')}")
    files.check_writable(folder)
    with files.lock_run_folder(folder):
        trainer = Trainer(config, splits, chosen, eager)
        if stored is not None:
            trainer.restore(stored.arrays, stored.metadata)
        parameters = sum(p.numel() for p in trainer.model.parameters())
        output.say(
            f"run: {config.model}, {parameters:,} parameters, {len(splits.train):,} training images, "
            f"backend {chosen.name}, into {folder}"
        )
        _write_config(folder, config, source, chosen.name)
        code = _fit(trainer, folder, stop_after, source)
        if trainer.history:
            write_curves(folder, trainer.history)
        if code == 0 and trainer.finished:
            _finish(trainer, folder, output)
    return code


def _run_in(folder: Path | None) -> checkpoint.Checkpoint:
    if folder is None or not (folder / "last.safetensors").exists():
        raise UsageError(f"--resume: no run to go on with in --out {folder or '(not given)'}")
    return checkpoint.load(folder / "last.safetensors")


def _configs(
    source: Mapping[str, str], given: dict[str, Any], stored: checkpoint.Checkpoint | None
) -> dict[str, Config]:
    """The configurations to choose from, by recipe: one, but for "auto" also that of the digits."""
    named = source.get("recipe")
    recipes = (
        [named] if named else {"auto": ["lenet", "digits"], "digits": ["digits"]}.get(source["dataset"], ["lenet"])
    )
    base = stored_config(stored.metadata) if stored is not None else None
    try:
        if "milestones" in given:
            given = given | {"milestones": _whole_numbers("milestones", given["milestones"])}
        return {name: replace(base, **given) if base else recipe(name, **given) for name in recipes}
    except ValueError as error:
        raise UsageError(str(error)) from error


def _whole_numbers(name: str, words: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", words):
        raise ValueError(f"{name}: expected whole numbers as 30,45, received {words!r}")
    return tuple(int(word) for word in words.split(","))


def _load(source: Mapping[str, str], configs: Mapping[str, Config]) -> tuple[data.Splits, str]:
    """Load a data set, split as its configuration says. -> it, and the name of that configuration."""

    def load(dataset: str, config: Config) -> data.Splits:
        return data.load(dataset, source.get("data_dir") or None, **config.split_options())

    name = next(iter(configs))
    splits = load(source["dataset"], configs[name])
    if splits.name == "digits" and len(configs) > 1:  # "auto" fell back, and the digits have another recipe
        return replace(load("digits", configs["digits"]), note=splits.note), "digits"
    return splits, name


def _fit(trainer: Trainer, folder: Path, stop_after: int, source: Mapping[str, str]) -> int:
    """Train until the end, a signal, or ``stop_after`` epochs; save after each epoch and at the stop. -> exit code."""
    first = len(trainer.history)
    with Progress(trainer.config.epochs, trainer.steps_per_epoch) as progress, _signals() as caught:

        def on_step(step: int, loss: float, accuracy: float, rate: float) -> bool:
            progress.step(len(trainer.history) + 1, step, loss, accuracy, rate)
            return bool(caught)

        while not trainer.finished and not caught and not (stop_after and len(trainer.history) - first >= stop_after):
            if trainer.run_epoch(on_step):
                progress.epoch(trainer.history[-1])
                if trainer.best is trainer.history[-1]:
                    checkpoint.save(folder / "best.safetensors", *trainer.weights())
            arrays, metadata = trainer.state()
            checkpoint.save(folder / "last.safetensors", arrays, metadata | {"source": source})
            _write_history(folder, trainer.history)
        if caught or not trainer.finished:
            progress.note(f"stopped and saved; go on with --out {folder} --resume")
    return STOPPED[caught[0]] if caught else 0


@contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Collect the first SIGINT or SIGTERM for the loop to see; a second SIGINT interrupts at once."""
    caught: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in STOPPED}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(trainer: Trainer, folder: Path, output: Output) -> None:
    """Test the best weights once, and write what came out."""
    best = checkpoint.load(folder / "best.safetensors")
    trainer.model.load_state_dict(best.arrays)
    report = test_reports(folder, trainer.model, trainer.loader("test"))
    summary = {
        "best_epoch": best.metadata["epoch"],
        "validation_accuracy": best.metadata["validation_accuracy"],
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "train_seconds": sum(r["seconds"] for r in trainer.history),
        "test": report,
    }
    files.atomic_write(folder / "metrics.json", json.dumps(summary, indent=2) + "\n")
    output.say(
        f"test: {report['accuracy']:.2%} of {report['images']:,} images right (epoch {summary['best_epoch']}, best of "
        f"{len(trainer.history)} on validation data), macro F1 {report['macro']['f1']:.4f}"
    )
    output.say(f"wrote {folder}")


def _write_config(folder: Path, config: Config, source: Mapping[str, str], backend: str) -> None:
    versions = {name: version(name) for name in ("numpy", "numba", "safetensors")}
    versions |= {"minicnn": minicnn.__version__, "python": platform.python_version()}
    content = {
        "config": asdict(config),
        **source,
        "backend": backend,
        "versions": versions,
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    files.atomic_write(folder / "config.json", json.dumps(content, indent=2) + "\n")


def _write_history(folder: Path, history: list[dict[str, float]]) -> None:
    if history:
        lines = [",".join(history[0]), *(",".join(repr(value) for value in row.values()) for row in history)]
        files.atomic_write(folder / "history.csv", "\n".join(lines) + "\n")
