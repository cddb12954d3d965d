"""study: recipes trained one after another, and compared."""

from pathlib import Path
from typing import Annotated, Any

import typer

from minicnn import data, files
from minicnn.cli.compare import draw, read_runs, table
from minicnn.cli.configuration import Dataset, check_useful, with_config
from minicnn.cli.folders import METRICS, STATE, WEIGHTS, held
from minicnn.cli.options import BackendName, DataDir, Debug, Threads, UsageError, usage_errors
from minicnn.cli.page import NAME as PAGE
from minicnn.cli.page import write_study_page
from minicnn.cli.train import train
from minicnn.text import shown
from minicnn.training import checkpoint, recipe
from minicnn.training.progress import Output

_DEFAULT = ("stage-baseline", "stage-bn", "stage-dropout", "stage-augment")


@with_config
def study(
    given: dict[str, Any],
    recipes: Annotated[
        list[str] | None, typer.Argument(metavar="RECIPE...", help=f"In this order (default: {' '.join(_DEFAULT)}).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the study, with one run in it for each recipe.")] = Path(
        "runs/study"
    ),
    dataset: Dataset = "",
    data_dir: DataDir = None,
    backend: BackendName = "auto",
    threads: Threads = 0,
    debug: Debug = False,
) -> int:
    """Train recipes one after another, draw their curves on one sheet, study.png, and write their table, study.md.

    A run that is finished is left as it is, and one that was stopped goes on: the same command again continues a study.
    The options of train are for all recipes alike; one that has no use for an option goes without it.
    """
    names = list(dict.fromkeys(recipes or _DEFAULT))
    with usage_errors():  # all of them, before the first is trained
        configs = {name: recipe(name, **given) for name in names}
        check_useful(given, configs.values())
    with held(out):
        for number, name in enumerate(names, 1):
            folder = out / name
            if (folder / METRICS).exists():
                _check_origin(folder, dataset)
                print(f"{name} ({number} of {len(names)}): finished before")
                continue
            print(f"{name} ({number} of {len(names)})")
            resume = (folder / STATE).exists()
            run = {"dataset": dataset, "data_dir": data_dir, "backend": backend, "threads": threads}
            recipe_name = "" if resume else name
            used = {word: value for word, value in given.items() if word not in configs[name].unused(given)}
            code = train.__wrapped__(used, recipe_name, out=folder, resume=resume, **run)  # type: ignore[attr-defined]
            if code:
                return code
        rows, histories = read_runs([out / name for name in names])
        draw(histories, out / "study.png")
        files.atomic_write(out / "study.md", table(rows, markdown=True) + "\n")
        write_study_page(out, rows)
    print(table(rows, width=Output().columns))
    print(f"wrote study.png, study.md and {PAGE} into {shown(out)}")
    return 0


def _check_origin(run: Path, dataset: str) -> None:
    """Refuse a finished run of other data than the data set that is asked for, "" for whatever it was."""
    origin = checkpoint.load(run / WEIGHTS).metadata.get("origin")
    asked = dataset if dataset in data.NAMES else str(Path(dataset).resolve())
    if dataset not in ("", "auto") and origin not in (None, asked):
        raise UsageError(f"--out: {run} is a finished run on {origin}, not on {asked}; choose another folder")
