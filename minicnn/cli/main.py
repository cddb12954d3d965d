"""The door to the commands, and what becomes of an error: one line, and an exit code.

Exit codes: 0; 1 failure; 2 usage; 130 Ctrl-C; 143 SIGTERM; 129 SIGHUP. A traceback only with ``--debug``.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import typer

from minicnn import files
from minicnn.backend import BackendUnavailable
from minicnn.cli import streams
from minicnn.cli.compare import compare
from minicnn.cli.convert import convert
from minicnn.cli.evaluate import evaluate
from minicnn.cli.explain import explain
from minicnn.cli.find_lr import find_lr
from minicnn.cli.options import OutOfMemory, UsageError
from minicnn.cli.predict import predict
from minicnn.cli.publish import publish
from minicnn.cli.show import show
from minicnn.cli.study import study
from minicnn.cli.train import train
from minicnn.data import DatasetUnavailable, UnknownDataset
from minicnn.text import shown
from minicnn.training import TrainingError

_COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "find-lr": find_lr,
    "predict": predict,
    "evaluate": evaluate,
    "explain": explain,
    "compare": compare,
    "study": study,
    "show": show,
    "publish": publish,
    "convert": convert,
}
_ANSWERS = ("predict", "evaluate", "compare")  # what they print is what they are for; others write files
_TYPERS_ERROR: Any = typer.BadParameter.__mro__[1]  # UsageError; the module that has it depends on typer's version
_USAGE_ERRORS = (UsageError, UnknownDataset, DatasetUnavailable)
_USERS_ERRORS = (ValueError, TypeError, OSError, BackendUnavailable, TrainingError, OutOfMemory, MemoryError)


def main(arguments: Sequence[str] | None = None, command: str | None = None) -> None:
    """Run ``command`` with ``arguments`` (default: those of the process) and exit; without one, the first names it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    settings = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=settings)
    for name in _COMMANDS if command is None else [command]:
        app.command(name, context_settings=settings)(_COMMANDS[name])
    warnings.showwarning = _show_warning
    streams.protect()
    try:
        code = _run(app, words, command)
        sys.exit(_after_losses(code, command or next(iter(words), "")))
    except KeyboardInterrupt:
        sys.exit(130)


def _run(app: typer.Typer, words: list[str], command: str | None) -> int:
    debug = "--debug" in words
    try:
        words = [_at_home(word) for word in words]
        name = f"{command.replace('-', '_')}.py" if command else "minicnn"
        result = app(words, prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except _TYPERS_ERROR as error:
        return _fail(f"{error.format_message().rstrip('.')}; see --help", 2, debug)
    except _USAGE_ERRORS as error:
        return _fail(error, 2, debug)
    except _USERS_ERRORS as error:
        return _fail(error, 1, debug)


def _at_home(word: str) -> str:
    """An argument with the home folder for the "~" that it, or the value in --option=value, begins with.

    A shell does the former only, and neither in quotes; no option takes anything else that begins so.
    """
    option, equals, value = word.partition("=")
    if equals and option.startswith("-"):
        return f"{option}={_at_home(value)}"
    return str(files.expand_user(word)) if word.startswith("~") else word


def _after_losses(code: int, command: str) -> int:
    """Say what was lost on the way to stdout, unless its reader chose to leave; -> the exit code, ``code`` before."""
    lost, failed = streams.lost(), command in _ANSWERS
    if lost is None:
        return code
    if not isinstance(lost, BrokenPipeError):
        print(f"{'error' if failed else 'warning'}: cannot write to stdout: {lost.strerror}", file=sys.stderr)
    return code or int(failed)


_LONGEST = 4000


def _fail(error: object, code: int, debug: bool = False) -> int:
    """Print the error as one line, return ``code``; with ``debug`` let the error show its traceback."""
    if debug and isinstance(error, BaseException):
        raise error
    text = shown(" ".join(str(error).split())) or type(error).__name__
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"  # what a file holds may be in it
    if isinstance(error, MemoryError):
        text = f"out of memory ({text}): use a smaller --batch-size"
    print(f"error: {text}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {shown(' '.join(str(message).split()))}", file=sys.stderr)
