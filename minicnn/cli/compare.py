"""compare: runs beside each other, as a table and on one sheet."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from minicnn import files, plots
from minicnn.cli.folders import CONFIG, HISTORY, METRICS, check_png, held_for
from minicnn.cli.options import Debug, UsageError
from minicnn.expected import Maybe, Number, check
from minicnn.text import aligned, shown
from minicnn.training.progress import Output
from minicnn.training.stored import read_json

Row = dict[str, Any]


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


_SHARE, _NUMBER, _COUNT = Number(most=1), Number(most=1e13), Number(most=10**13, whole=True)  # more is no run of ours
_COLUMNS: dict[str, tuple[str, Callable[[Any], str], Any]] = {  # heading, how a value is written, what it may be
    "run": ("run", shown, str),
    "recipe": ("recipe", shown, str),
    "model": ("model", shown, str),
    "epochs": ("epochs", str, _COUNT),
    "best_epoch": ("best", str, _COUNT),
    "train_seconds": ("time", duration, _NUMBER),
    "images_per_second": ("images/s", "{:,.0f}".format, _NUMBER),
    "parameters": ("parameters", "{:,}".format, _COUNT),
    "macs": ("MACs", "{:,}".format, _COUNT),
    "validation_accuracy": ("validation", "{:.2%}".format, _SHARE),
    "test_accuracy": ("test", "{:.2%}".format, _SHARE),
    "plain_accuracy": ("one view", "{:.2%}".format, _SHARE),
    "precision": ("precision", "{:.4f}".format, _SHARE),
    "recall": ("recall", "{:.4f}".format, _SHARE),
    "f1": ("F1", "{:.4f}".format, _SHARE),
}
_WORDS = 3  # the first columns are words, the others numbers
_MAYBE = {name: Maybe(expected) for name, (_, _, expected) in _COLUMNS.items()}
_TEST = {
    "accuracy": Maybe(_SHARE),
    "plain_accuracy": Maybe(_SHARE),
    "macro": Maybe({name: _MAYBE[name] for name in ("precision", "recall", "f1")}),
}
_METRICS = _MAYBE | {"test": Maybe(_TEST)}
_CONFIG = {"recipe": Maybe(str), "config": Maybe({"model": Maybe(str)})}
_LOSS = Number(-1e30, 1e30)
_HISTORY = {
    "validation_accuracy": Maybe([_SHARE]),
    "validation_loss": Maybe([_LOSS]),
    "train_accuracy": [_SHARE],
    "train_loss": [_LOSS],
    "learning_rate": Maybe([Number(most=1e30)]),
    "seconds": Maybe([_NUMBER]),
    "images_per_second": Maybe([_NUMBER]),
}


def compare(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="RUN...", help="Folders of runs.")] = None,
    out: Annotated[Path, typer.Option(help="The sheet with the curves, a .png file.")] = Path("compare.png"),
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON list.")] = False,
    debug: Debug = False,
) -> int:
    """Print a table of runs, and draw their curves on one sheet.

    Accuracies are those of the best epoch; precision, recall and F1 are means over the classes, on the test images.
    What a run does not have, as one that was stopped has no test accuracy, is a "-".
    """
    if not runs:
        raise UsageError("expected folders of runs: compare RUN [RUN ...]")
    check_png(out)
    rows, histories = read_runs(runs)
    with held_for(out):
        drawn = draw(histories, out)
    if as_json:
        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        print(table(rows, markdown, Output().columns))
        if not markdown:
            print(f"wrote {shown(out)}" if drawn else "no run has finished an epoch, so there is nothing to draw")
    return 0


def read_runs(folders: Sequence[Path]) -> tuple[list[Row], dict[str, dict[str, list[float]]]]:
    """Return the row of each run, None for what it does not have, and the columns of the histories by its name.

    Runs go by the names of their folders, or by the paths where these are alike.

    Raises:
        UsageError: a folder that is not of a run.
        ValueError: a file of a run that cannot be read.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = list(map(str, folders))
    rows, histories = [], {}
    for name, folder in zip(names, folders, strict=True):
        if not (folder / CONFIG).is_file():
            what = "has no config.json, so it holds no run" if folder.is_dir() else "is not a folder"
            raise UsageError(f"{folder} {what}; expected a folder that train wrote")
        history = read_history(folder / HISTORY)
        config, metrics = folder / CONFIG, folder / METRICS
        measured = read_json(metrics, _METRICS) if metrics.is_file() else {}
        rows.append({"run": name} | _row(read_json(config, _CONFIG), measured, history))
        histories[name] = history
    return rows, histories


def columns(rows: Sequence[Row]) -> list[list[str]]:
    """Return a heading and the rows as text; columns that no row fills are left out."""
    filled = {key: column for key, column in _COLUMNS.items() if any(row[key] is not None for row in rows)}
    cells = [[heading for heading, _, _ in filled.values()]]
    for row in rows:
        cells.append(["-" if row[key] is None else written(row[key]) for key, (_, written, _) in filled.items()])
    return cells


def table(rows: Sequence[Row], markdown: bool = False, width: int | None = None) -> str:
    """Return the rows as a Markdown table or as aligned text, which columns beyond a ``width`` continue below."""
    cells = columns(rows)
    words = sum(any(row[key] is not None for row in rows) for key in list(_COLUMNS)[:_WORDS])
    if markdown:
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
        lines.insert(1, "|" + "---|" * words + "---:|" * (len(cells[0]) - words))
        return "\n".join(lines)
    return "\n".join(aligned(cells, range(words, len(cells[0])), width))


def draw(histories: Mapping[str, dict[str, list[float]]], path: Path) -> bool:
    """Draw the runs that have finished an epoch; -> whether there is one."""
    begun = {name: history for name, history in histories.items() if history}
    if begun:
        files.atomic_write(path, plots.to_png(plots.runs(begun)))
    return bool(begun)


def best_epoch(history: Mapping[str, list[float]]) -> int | None:
    """Return the index of the best epoch of a history, None where nothing was validated."""
    accuracies, losses = history.get("validation_accuracy") or [], history.get("validation_loss") or []
    return max(range(len(accuracies)), key=lambda i: (accuracies[i], -losses[i]), default=None)


def _row(config: Row, metrics: Row, history: Mapping[str, list[float]]) -> Row:
    accuracies, best = history.get("validation_accuracy") or [], best_epoch(history)
    rates = sorted(history.get("images_per_second", []))
    test = metrics.get("test") or {}
    known = {
        "recipe": config.get("recipe"),
        "model": (config.get("config") or {}).get("model"),
        "best_epoch": None if best is None else best + 1,
        "train_seconds": sum(history["seconds"]) if "seconds" in history else None,
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "validation_accuracy": None if best is None else accuracies[best],
        **{name: value for name, value in metrics.items() if value is not None},
        **{
            "epochs": max(map(len, history.values()), default=0) or None,
            "test_accuracy": test.get("accuracy"),
            "plain_accuracy": test.get("plain_accuracy"),
            **(test.get("macro") or {}),
        },
    }
    return {key: known.get(key) for key in list(_COLUMNS)[1:]}


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of a history, {} of a run that has not finished an epoch; ValueError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            heading, *lines = csv.reader(file)
        columns = [[float(cell) for cell in column] for column in zip(*lines, strict=True)]
        history = dict(zip(heading, columns, strict=True))
        check(history, _HISTORY)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return history
