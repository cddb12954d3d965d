"""What training shows while it runs: a live bar on a terminal, one plain line an epoch anywhere else."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from minicnn.text import shown

_SHORT = {"images_per_second": "img/s", "learning_rate": "lr", "validation": "val", "accuracy": "acc", "_": " "}


class Progress:
    """Use as `with Progress(epochs, steps) as progress:`; epochs and steps count from 1.

    The bar shows the current epoch; the time left is that of the whole run, estimated from the steps of this process,
    so a resumed run estimates as well as a fresh one. `NO_COLOR` and dumb terminals are honoured.
    """

    def __init__(self, epochs: int, steps: int, stream: TextIO | None = None) -> None:
        self.epochs, self.steps = epochs, steps
        self._console = Output(stream)
        self._live = self._console.file.isatty() and not self._console.is_dumb_terminal
        self._bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("step {task.completed}/{task.total}"),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._live,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=steps, epoch=f"1/{epochs}", figures="")
        self._start: tuple[float, int] | None = None  # when the first step was shown, and its number in the whole run

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, epoch: int, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Shows that `step` of `epoch` is done; loss and accuracy (0 to 1) are those to show for it."""
        if not self._live:
            return
        figures = f"loss {loss:.4f}  acc {accuracy:.1%}  {images_per_second:,.0f} img/s  ETA {self._left(epoch, step)}"
        self._bar.update(self._task, completed=step, epoch=f"{epoch}/{self.epochs}", figures=figures)

    def epoch(self, row: Mapping[str, Any], best: bool = False) -> None:
        """Prints the figures of a finished epoch as one line that stays, `epoch` first and with its total."""
        figures = [f"{_shorten(key)} {_format(key, value)}" for key, value in row.items() if key != "epoch"]
        self.note("  ".join([f"epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}", *figures]))

    def note(self, line: str) -> None:
        """Prints one line of text, above the bar where there is one."""
        self._console.say(line)

    def _left(self, epoch: int, step: int) -> str:
        now, done = time.monotonic(), (epoch - 1) * self.steps + step
        if self._start is None:
            self._start = now, done
        since, first = self._start
        if done <= first:
            return "-:--:--"
        return str(timedelta(seconds=round((now - since) / (done - first) * (self.epochs * self.steps - done))))


class Output(Console):
    """Prints text as it is, to stdout or `stream`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(file=stream or sys.stdout, highlight=False, markup=False, emoji=False)

    def say(self, text: str) -> None:
        """Prints one line, however long; what would break it or steer a terminal is escaped."""
        self.print(shown(text), soft_wrap=True)


def _shorten(key: str) -> str:
    for long, short in _SHORT.items():
        key = key.replace(long, short)
    return key


def _format(key: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if "accuracy" in key:
        return f"{value:.2%}"
    if "loss" in key:
        return f"{value:.4f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
