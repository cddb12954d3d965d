"""train: from a data set to a folder with weights, figures and pictures."""

import json
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

import minicnn
from minicnn import data, files
from minicnn.cli.options import BackendName, DataDir, Debug, Threads, choose_backend, usage
from minicnn.cli.reports import test_reports, write_curves
from minicnn.training import Config, Trainer, checkpoint, recipe, recipe_names
from minicnn.training.progress import Progress

Maybe = typer.Option(show_default="that of the recipe")
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}


def train(
    recipe_name: Annotated[
        str, typer.Option("--recipe", help="Options by name, or 'list' (default: lenet, or digits on digits).")
    ] = "",
    dataset: Annotated[str, typer.Option(help="auto, cifar10, digits, or a folder of class folders.")] = "auto",
    data_dir: DataDir = None,
    backend: BackendName = "auto",
    threads: Threads = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: a new one in runs/).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    stop_after: Annotated[int, typer.Option(min=0, help="Stop, to resume later, after so many epochs (0: no).")] = 0,
    model: Annotated[str | None, Maybe] = None,
    relu_logits: Annotated[bool | None, typer.Option(help="A ReLU on the logits.", show_default=False)] = None,
    epochs: Annotated[int | None, Maybe] = None,
    batch_size: Annotated[int | None, Maybe] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (the highest of its schedule).")] = None,
    momentum: Annotated[float | None, typer.Option(help="Of sgd.")] = None,
    nesterov: Annotated[bool | None, typer.Option(help="Nesterov's momentum.", show_default=False)] = None,
    weight_decay: Annotated[float | None, Maybe] = None,
    schedule: Annotated[
        str | None, typer.Option(help="constant, step, multi-step, cosine, one-cycle or plateau.")
    ] = None,
    warmup: Annotated[int | None, typer.Option(help="Epochs of linear warm-up.")] = None,
    step_size: Annotated[int | None, typer.Option(help="Epochs between the steps of 'step'.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Factor of 'step', 'multi-step' and 'plateau'.")] = None,
    milestones: Annotated[str | None, typer.Option(help="Epochs of 'multi-step', as 30,45.")] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs that 'plateau' waits.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="0 to 1.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient (0: off).")] = None,
    clip_value: Annotated[float | None, typer.Option(help="Largest element of the gradient (0: off).")] = None,
    early_stop: Annotated[int | None, typer.Option(help="Stop after so many epochs without a best (0: off).")] = None,
    normalize: Annotated[str | None, typer.Option(help="mean-std, or unit for [0, 1].")] = None,
    flip: Annotated[float | None, typer.Option(help="Probability of a mirrored picture.")] = None,
    shift: Annotated[int | None, typer.Option(help="Largest random shift, pixels.")] = None,
    padding_mode: Annotated[str | None, typer.Option(help="What a shift uncovers: reflect or constant.")] = None,
    validation: Annotated[int | None, typer.Option(help="Images to validate on (0: the data set's own).")] = None,
    train_size: Annotated[int | None, typer.Option(help="Images to train on (0: all others).")] = None,
    seed: Annotated[int | None, Maybe] = None,
    debug: Debug = False,
) -> int:
    """Train a model, choose the best epoch on validation data, and test it once.

    Writes config.json, history.csv, best.safetensors, last.safetensors, metrics.json, curves.png,
    confusion_matrix.png, samples.png and mistakes.png into the folder of the run.
    """
    given = {k: v for k, v in locals().items() if k in {f.name for f in fields(Config)} and v is not None}
    if recipe_name == "list":
        print("\n".join(recipe_names()))
        return 0
    if resume and (out is None or not (out / "last.safetensors").exists()):
        raise usage(ValueError(f"--resume: no run to go on with in --out {out or '(not given)'}"))
    if not resume and out is not None and (out / "last.safetensors").exists():
        raise usage(ValueError(f"--out: {out} holds a run; add --resume to go on with it, or choose another folder"))
    try:
        if "milestones" in given:
            given["milestones"] = tuple(int(word) for word in given["milestones"].split(","))
        for name in ("lenet", "digits"):  # the options are checked before any data loads
            recipe(recipe_name or name, **given)
    except ValueError as error:
        raise usage(error) from error

    chosen = choose_backend(backend, threads)
    try:
        # which recipe, and so which seed and which split, depends on which data set there is
        splits, config = _load(dataset, data_dir, recipe_name, given)
    except ValueError as error:
        raise usage(error) from error
    print(f"data: {splits.note}", flush=True)
    folder = out or files.new_run_folder("runs", f"{splits.name}-{config.model}-{time.strftime('%Y%m%d-%H%M%S')}")
    files.check_writable(folder)
    with files.lock_run_folder(folder):
        trainer = Trainer(config, splits, chosen)
        if resume:
            stored = checkpoint.load(folder / "last.safetensors")
            trainer.restore(stored.arrays, stored.metadata)
        parameters = sum(p.numel() for p in trainer.model.parameters())
        print(
            f"run: {config.model}, {parameters:,} parameters, {len(splits.train):,} training images, "
            f"backend {chosen.name}, into {folder}",
            flush=True,
        )
        _write_config(folder, config, recipe_name, dataset, chosen.name)
        code = _fit(trainer, folder, stop_after)
        if trainer.history:
            write_curves(folder, trainer.history)
        if code == 0 and trainer.finished:
            _finish(trainer, folder)
    return code


def _load(dataset: str, data_dir: Path | None, recipe_name: str, given: dict[str, Any]) -> tuple[data.Splits, Config]:
    def config_for(name: str) -> Config:
        return recipe(recipe_name or ("digits" if name == "digits" else "lenet"), **given)

    def load(name: str, config: Config, **options: Any) -> data.Splits:
        return data.load(
            name,
            data_dir,
            seed=config.seed,
            validation=config.validation or None,
            train_size=config.train_size or None,
            **options,
        )

    config = config_for(dataset)
    splits = load(dataset, config)
    return splits, config if splits.name != "digits" else config_for("digits")


def _fit(trainer: Trainer, folder: Path, stop_after: int) -> int:
    """Train until the end, a signal, or ``stop_after`` epochs; save after each epoch and at the stop. -> exit code."""
    first = len(trainer.history)
    with Progress(trainer.config.epochs, trainer.steps_per_epoch) as progress, _signals() as caught:
        while not trainer.finished and not caught and not (stop_after and len(trainer.history) - first >= stop_after):
            epoch = len(trainer.history) + 1

            def on_step(step: int, loss: float, accuracy: float, rate: float, epoch: int = epoch) -> bool:
                progress.step(epoch, step, loss, accuracy, rate)
                return bool(caught)

            if trainer.run_epoch(on_step):
                progress.epoch(trainer.history[-1])
                if trainer.best is trainer.history[-1]:
                    checkpoint.save(folder / "best.safetensors", *trainer.weights())
            checkpoint.save(folder / "last.safetensors", *trainer.state())
            _write_history(folder, trainer.history)
        if caught:
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


def _finish(trainer: Trainer, folder: Path) -> None:
    """Test the best weights once, and write what came out."""
    best = checkpoint.load(folder / "best.safetensors")
    trainer.model.load_state_dict(best.arrays)
    report = test_reports(folder, trainer.model, trainer.loader("test"))
    row = trainer.best or {}
    summary = {
        "best_epoch": row["epoch"],
        "validation_accuracy": row["validation_accuracy"],
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "train_seconds": sum(r["seconds"] for r in trainer.history),
        "test": report,
    }
    files.atomic_write(folder / "metrics.json", json.dumps(summary, indent=2) + "\n")
    print(
        f"test: {report['accuracy']:.2%} of {report['images']:,} images right (epoch {row['epoch']}, best of "
        f"{len(trainer.history)} on validation data), macro F1 {report['macro']['f1']:.4f}"
    )
    print(f"wrote {folder}")


def _write_config(folder: Path, config: Config, recipe_name: str, dataset: str, backend: str) -> None:
    versions = {name: version(name) for name in ("numpy", "numba", "safetensors")}
    versions |= {"minicnn": minicnn.__version__, "python": platform.python_version()}
    content = {
        "config": asdict(config),
        "recipe": recipe_name or None,
        "dataset": dataset,
        "backend": backend,
        "versions": versions,
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    files.atomic_write(folder / "config.json", json.dumps(content, indent=2) + "\n")


def _write_history(folder: Path, history: list[dict[str, float]]) -> None:
    if history:
        lines = [",".join(history[0]), *(",".join(repr(value) for value in row.values()) for row in history)]
        files.atomic_write(folder / "history.csv", "\n".join(lines) + "\n")
