"""train: from a data set to a folder with weights, figures and pictures."""

import platform
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

import minicnn
from minicnn import plots
from minicnn.cli.configuration import Dataset, RecipeName, choose, load, precisions, with_config
from minicnn.cli.folders import CONFIG, HISTORY, METRICS, STATE, WEIGHTS, check_holds_no_run, held, new_folder
from minicnn.cli.options import (
    BackendName,
    DataDir,
    Debug,
    Memory,
    Out,
    Threads,
    UsageError,
    choose_backend,
    naming_memory,
)
from minicnn.cli.page import NAME as PAGE
from minicnn.cli.page import write_page
from minicnn.cli.reports import test_reports, write_curves, write_pictures
from minicnn.expected import Maybe, check
from minicnn.precision import precision
from minicnn.summary import macs
from minicnn.text import aligned
from minicnn.training import Config, Trainer, checkpoint, recipe_card, recipe_names
from minicnn.training.loop import StepInfo
from minicnn.training.progress import Output, Progress, waiting
from minicnn.training.state import stored_config
from minicnn.training.stored import write_json

STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGHUP"):  # the terminal is closed
    STOPPED[signal.SIGHUP] = 129


@with_config
def train(
    given: dict[str, Any],
    recipe_name: RecipeName = "",
    dataset: Dataset = "",
    data_dir: DataDir = None,
    memory: Memory = None,
    backend: BackendName = "auto",
    threads: Threads = 0,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with its options.")] = False,
    stop_after: Annotated[int, typer.Option(min=0, help="Stop, to resume later, after so many epochs (0: no).")] = 0,
    eager: Annotated[
        bool, typer.Option("--eager", help="Run every operation at once instead of a compiled plan.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="First show where the time of a step goes, and draw it.")
    ] = False,
    debug: Debug = False,
) -> int:
    """Train a model, choose the best epoch on validation data, and test it once.

    Weights, history, figures and pictures go into the folder of the run; its report.html has all but the weights.
    Options that are not given are those of the recipe.
    """
    if recipe_name == "list":
        _list_recipes()
        return 0
    source = {"recipe": recipe_name, "dataset": dataset, "data_dir": str(data_dir.resolve()) if data_dir else ""}
    stored = None
    if resume:
        stored = _run_in(out)
        source = stored.metadata.get("source", {}) | {name: word for name, word in source.items() if word}
    else:
        check_holds_no_run(out)
    source["dataset"] = source.get("dataset") or "auto"
    configs = choose(source, given, None if recipe_name else stored)  # checked before any data loads
    if stored is not None:
        kept = stored_config(stored.metadata, stored.arrays).precision
        configs = {name: config.settled(kept) for name, config in configs.items()}
    chosen = choose_backend(backend, threads, *precisions(configs))
    splits, source["recipe"] = load(source, configs, memory)
    source["dataset"] = splits.origin
    config = configs[source["recipe"]]
    output = Output()
    output.say(f"data: {splits.note}")
    folder = out or new_folder(splits.name, config.model.replace(":", "-"))
    with held(folder, resume), naming_memory(chosen, config.batch_size):
        trainer = Trainer(config, splits, chosen, eager)
        if resume:
            stored = _run_in(folder)  # again: another process may have gone on with it while the data loaded
            trainer.restore(stored.arrays, stored.metadata)
        parameters = sum(p.numel() for p in trainer.model.parameters())
        output.say(
            f"run: {config.model}, {parameters:,} parameters, {len(splits.train):,} training images, "
            f"backend {chosen.name}, into {folder}"
        )
        _write_config(folder, trainer.config, source, chosen.name)
        if profile:
            _profile(trainer, folder, output)
        code = _fit(trainer, folder, stop_after, source)
        if trainer.history:
            write_curves(folder, trainer.history)
        if code == 0 and trainer.finished:
            _finish(trainer, folder, source["recipe"], output)
        if trainer.history:
            write_page(folder)
    return code


def _profile(trainer: Trainer, folder: Path, output: Output) -> None:
    """Print and draw where the time of a training step goes."""
    try:
        found = trainer.profile()
    except ValueError as error:
        raise UsageError(f"--profile: {error}; leave out --eager and take --backend numpy") from error
    for line in str(found).splitlines():
        output.say(line)
    write_pictures(folder, {"profile": plots.profile(found.layers(), f"Time of a step of {trainer.config.model}")})


def _list_recipes() -> None:
    """Print the recipes with what was measured: one line each, and on a terminal the description below it."""
    rows = [("recipe", "model", "parameters", "accuracy", "time", "description")]
    for card in map(recipe_card, recipe_names()):
        measured = card.measured
        parameters = f"{measured['parameters']:,}" if "parameters" in measured else "-"
        accuracy = f"{measured['test_accuracy']:.2%}" if "test_accuracy" in measured else "-"
        seconds = measured.get("seconds")
        wait = "-" if seconds is None else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
        rows.append((card.name, card.config.model, parameters, accuracy, wait, card.description))
    output = Output()
    if not output.is_terminal:
        for line in aligned(rows, range(2, 5)):
            output.say(line)
        return
    for line, row in zip(aligned([row[:-1] for row in rows], range(2, 5)), rows, strict=True):
        output.say(line, style="bold")
        output.print(Padding(Text(row[-1], "dim"), (0, 0, 0, 2)))


def _run_in(folder: Path | None) -> checkpoint.Checkpoint:
    if folder is None or not (folder / STATE).exists():
        raise UsageError(f"--resume: no run to go on with in --out {folder or '(not given)'}")
    state = checkpoint.load(folder / STATE)
    try:
        check(state.metadata.get("source", {}), dict.fromkeys(("recipe", "dataset", "data_dir"), Maybe(str)), "source")
    except ValueError as error:
        raise checkpoint.CheckpointError(f"{folder / STATE} is damaged: {error}") from error
    return state


def _fit(trainer: Trainer, folder: Path, stop_after: int, source: Mapping[str, str]) -> int:
    """Train until the end, a signal, or ``stop_after`` epochs; save after each epoch and at the stop. -> exit code."""
    first = len(trainer.history)

    def save() -> None:
        arrays, metadata = trainer.state()
        checkpoint.save(folder / STATE, arrays, metadata | {"source": source})
        if trainer.history:
            trainer.history.to_csv(folder / HISTORY)

    with Progress(trainer.config.epochs, trainer.batches_per_epoch) as progress, _signals() as caught:

        def on_step(info: StepInfo) -> bool:
            progress.step(*info)
            return bool(caught)

        def on_epoch(row: dict[str, float]) -> bool:
            is_best = trainer.best is row
            progress.epoch(row, best=is_best)
            if is_best:
                checkpoint.save(folder / WEIGHTS, *trainer.weights())
            save()
            return bool(caught) or bool(stop_after and len(trainer.history) - first >= stop_after)

        trainer.run(on_step, on_epoch)
        if trainer.is_within_epoch:
            save()
        if trainer.finished and trainer.best and len(trainer.history) < trainer.config.epochs:
            progress.stopped_early(len(trainer.history), int(trainer.best["epoch"]))
        if caught or not trainer.finished:
            progress.note(f"stopped and saved; go on with --out {folder} --resume")
    return STOPPED[caught[0]] if caught else 0


@contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGINT, SIGTERM and SIGHUP for the loop to see; a second SIGINT interrupts at once.

    A SIGHUP that is ignored, as nohup has it, stays so.
    """
    caught: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(signal.Signals(number))

    heard = [number for number in STOPPED if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(trainer: Trainer, folder: Path, recipe_name: str, output: Output) -> None:
    """Test the best weights once, and write what came out."""
    best = checkpoint.load(folder / WEIGHTS)
    model, loader, history = trainer.averaged, trainer.loader("test"), trainer.history
    model.load_state_dict(best.arrays)
    with precision(trainer.config.precision), waiting("testing the best weights, and drawing"):
        report = test_reports(folder, model, loader, trainer.config.tta, trainer.config.tta_shift)
    seconds = sum(row["seconds"] for row in history)
    summary = {
        "recipe": recipe_name,
        "model": trainer.config.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": macs(model, loader.dataset.images.shape[1:]),
        "epochs": len(history),
        "best_epoch": best.metadata["epoch"],
        "validation_accuracy": best.metadata["validation_accuracy"],
        "compute_precision": trainer.config.precision,
        "train_seconds": seconds,
        "images_per_second": sum(row["images_per_second"] * row["seconds"] for row in history) / seconds,
        "test": report,
    }
    write_json(folder / METRICS, summary)
    plain = f", {report['plain_accuracy']:.2%} by one view" if "plain_accuracy" in report else ""
    chosen = "the last" if trainer.splits.validation is None else f"best of {len(history)} on validation data"
    output.say(
        f"test: {report['accuracy']:.2%} of {report['images']:,} images right{plain} (epoch {summary['best_epoch']}, "
        f"{chosen}), macro F1 {report['macro']['f1']:.4f}"
    )
    output.say(f"wrote {folder}, with {PAGE}")


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
    write_json(folder / CONFIG, content)
