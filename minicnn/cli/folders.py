"""Where commands write: a folder is held by one of them at a time, and a run in it is never written over."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minicnn import files
from minicnn.cli.options import UsageError

STATE, WEIGHTS, METRICS, CONFIG = "last.safetensors", "best.safetensors", "metrics.json", "config.json"
HISTORY = "history.csv"


def check_holds_no_run(folder: Path | None) -> None:
    """Refuse to write over a run that can go on, or that is finished."""
    if folder is None:
        return
    can_go_on, finished = (folder / STATE).exists(), (folder / WEIGHTS).exists() and (folder / METRICS).exists()
    if can_go_on or finished or (folder / HISTORY).exists():  # of which somebody may keep the figures alone
        remedy = "choose another folder" + ", or go on with it by train --resume" * can_go_on
        raise UsageError(f"--out: {folder} holds a run; {remedy}")


@contextmanager
def held(folder: Path, resume: bool = False) -> Iterator[None]:
    """Hold ``folder``, made where it is missing, inside a ``with`` block, for a run to ``resume`` or for new results.

    Whether it holds a run is asked here, again: another command may have written one since its name was given.

    Raises:
        UsageError: the folder holds a run.
        OSError: it is busy, or cannot be written into.
    """
    files.check_writable(folder)
    with files.lock_run_folder(folder):
        if not resume:
            check_holds_no_run(folder)
        yield


def new_folder(*words: str) -> Path:
    """Make a folder in runs/, named by words and the time."""
    return files.new_run_folder("runs", "-".join([*words, time.strftime("%Y%m%d-%H%M%S")]))


def check_png(out: Path) -> None:
    """Raise UsageError for a path of a picture that has another suffix."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out: expected a .png file, received {out}")


@contextmanager
def held_for(path: Path) -> Iterator[None]:
    """Hold the folder of one file that is to be written, if it is that of a run; another is left without a lock file.

    Raises:
        UsageError: the file is one that the run is made of.
        OSError: the folder is busy, or cannot be written into.
    """
    folder = path.parent
    files.check_writable(folder)
    if not any((folder / name).exists() for name in (".lock", STATE, WEIGHTS)):
        yield
        return
    with files.lock_run_folder(folder):
        if path.name in (STATE, WEIGHTS, METRICS, CONFIG) and path.exists():
            raise UsageError(f"{path} is of a run; choose another file")
        yield
