"""What training shows while it runs: a live bar on a terminal or in a notebook, one plain line an epoch anywhere."""

import importlib
import io
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment, Segments
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from minicnn.text import shown

_BAR = 10  # columns that figures leave to the bar
_TURN = 10  # pictures of a live display in a second


class Progress:
    """Use as `with Progress(epochs, steps) as progress:`; epochs and steps count from 1.

    The bar shows the current epoch, and until the first step that kernels compile; the time left is that of the whole
    run, estimated from the steps of this process, so a resumed run estimates as well as a fresh one. Figures that the
    width has no room for are left out. `NO_COLOR` and dumb terminals are honoured.
    """

    def __init__(self, epochs: int, steps: int, stream: TextIO | None = None) -> None:
        self.epochs, self.steps = epochs, steps
        self._console = Output(stream)
        self._display = _display(self._console, self)
        self._spinner = _spinner(self._console)
        self._now = 0, 0  # epoch and step that are shown
        self._figures: list[str] = ["kernels compile"]
        self._start: tuple[float, int] | None = None  # when the first step was shown, and its number in the whole run

    def __enter__(self) -> "Progress":
        self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._display.__exit__(kind, error, traceback)

    def step(self, epoch: int, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Shows that `step` of `epoch` is done; loss and accuracy (0 to 1) are those to show for it."""
        if isinstance(self._display, nullcontext):
            return
        self._figures = [  # what there is no room for goes from the end
            f"loss {_loss(loss):>6}",
            f"acc {_share(accuracy):>6}",
            f"{images_per_second:>7,.0f} img/s",
            f"ETA {self._left(epoch, step):>7}",
            f"step {step:>{len(str(self.steps))}}/{self.steps}",
        ]
        self._now = epoch, step
        if isinstance(self._display, _Notebook):
            self._display.refresh()

    def epoch(self, row: Mapping[str, Any], best: bool = False) -> None:
        """Prints the figures of a finished epoch as one line of at most 80 columns that stays.

        Args:
            row: of a history: epoch, and any of train_loss, train_accuracy, validation_loss, validation_accuracy,
                learning_rate and images_per_second.
            best: whether it is the best one so far, which is said.
        """
        parts = [f"epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}"]
        for part, name in (("train", "train"), ("validation", "val")):
            figures = [f"{_loss(row[f'{part}_loss']):>6}"] if f"{part}_loss" in row else []
            figures += [f"{_share(row[f'{part}_accuracy']):>6}"] if f"{part}_accuracy" in row else []
            parts += [" ".join([name, *figures])] if figures else []
        if "learning_rate" in row:
            parts.append(f"lr {row['learning_rate']:<7.2g}")
        if "images_per_second" in row:
            parts.append(f"{row['images_per_second']:>6,.0f}/s" + " best" * best)
        self._console.say("  ".join(parts).rstrip(), style="green" if best else "")

    def stopped_early(self, epochs: int, best: int) -> None:
        """Says that training ends after so many epochs, as none since the best has been better."""
        self.note(f"stopped early: none of the last {epochs - best} epochs was better than epoch {best}")

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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        epoch, step = self._now
        label = f"epoch {max(epoch, 1):>{len(str(self.epochs))}}/{self.epochs}"
        space, figures = options.max_width - len(label) - 4 - _BAR, ""
        for part in self._figures:
            space -= len(part) + 2
            if space < 0:
                break
            figures += f"  {part}"
        bar = ProgressBar(self.steps, step, width=_BAR + max(space, 0), pulse=not epoch)
        yield _line(self._spinner, label, bar, figures[1:])


class Output(Console):
    """Prints text as it is, to stdout or `stream`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
        super().__init__(file=stream or sys.stdout, force_jupyter=False, **plain)  # a notebook has lines as of print

    @property
    def columns(self) -> int | None:
        """How many characters a line of the terminal has; None where this is none."""
        return self.width if self.is_terminal else None

    def say(self, text: str, style: str = "") -> None:
        """Prints one line, however long; what would break it or steer a terminal is escaped."""
        self.print(Text(shown(text), style), soft_wrap=True)  # of the text alone: print's own is of the bar too


def waiting(text: str, stream: TextIO | None = None) -> AbstractContextManager[Any]:
    """Shows a line that moves during a `with` block, on a terminal or in a notebook; elsewhere nothing."""
    console = Output(stream)
    return _display(console, _line(_spinner(console), Text(shown(text))))


def _spinner(console: Console) -> Spinner:
    return Spinner("dots" if console.encoding.startswith("utf") else "line")


def _line(*cells: RenderableType) -> Table:
    """Cells side by side, a space between them, on one line: what does not fit is cut, with a mark."""
    line = Table.grid(padding=(0, 1))
    for _ in cells:
        line.add_column(no_wrap=True)
    line.add_row(*cells)
    return line


def _display(console: Console, renderable: RenderableType) -> "_Live | _Notebook | nullcontext[None]":
    """A display of what is moving that goes away at its end: on a terminal, in a notebook, or none elsewhere."""
    if console.file.isatty() and not console.is_dumb_terminal:
        return _Live(console, renderable)
    return _Notebook(renderable) if console.file is sys.stdout and _in_notebook() else nullcontext()


class _Live(Live):
    """A line of a terminal that is drawn anew ten times a second, and when something is printed above it.

    Its cursor waits at the beginning of the line, not behind it. A terminal that is made narrower breaks the line, and
    keeps the cursor where it is in the text: to clear the screen from there leaves no part of the line. That is done
    behind a space, as some take what is cleared from the first place of a screen on for worth to be kept.
    """

    _BACK = Control(ControlType.CARRIAGE_RETURN)
    _CLEAR = Segments([Segment("\r\x1b[2K \x1b[J\r", None, [(ControlType.CARRIAGE_RETURN,)])])

    def __init__(self, console: Console, renderable: RenderableType) -> None:
        errors = sys.stderr is not None and sys.stderr.isatty()  # those in a file belong there
        super().__init__(renderable, console=console, refresh_per_second=_TURN, transient=True, redirect_stderr=errors)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is printed, with the line below it."""
        if self.console.legacy_windows:  # knows no such code
            return super().process_renderables(renderables)
        return [self._CLEAR, *renderables, self._live_render, self._BACK]


class _Notebook:
    """The same as an output of a notebook's cell, which needs nobody but IPython's kernel; it moves with the steps."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable, self._drawn = renderable, 0.0
        self._handle: Any = None

    def __enter__(self) -> None:
        display = importlib.import_module("IPython.display").display
        self._handle = display(self._content(), raw=True, display_id=True)

    def __exit__(self, *_: object) -> None:
        self._handle.update({"text/plain": ""}, raw=True)

    def refresh(self) -> None:
        """Draw anew, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._drawn > 1 / _TURN:
            self._drawn = now
            self._handle.update(self._content(), raw=True)

    def _content(self) -> dict[str, str]:
        page = io.StringIO()
        Console(file=page, width=100, color_system=None, force_jupyter=False).print(self._renderable)
        return {"text/plain": page.getvalue().rstrip()}


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython in a terminal is none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:#.5g}"


def _share(value: float) -> str:
    return f"{value:.2%}" if value < 0.99995 else "100.0%"
