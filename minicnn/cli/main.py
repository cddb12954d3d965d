"""The door to the commands, and what becomes of an error: one line, and an exit code.

Exit codes: 0; 1 failure; 2 usage; 130 Ctrl-C; 143 SIGTERM; 129 SIGHUP. A traceback only with ``--debug``.
"""

import ast
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from minicnn import __version__, files
from minicnn.backend import BackendUnavailable
from minicnn.cli import streams
from minicnn.cli.help import Command, Commands
from minicnn.cli.options import OutOfMemory, UsageError
from minicnn.text import shown

COMMANDS = (
    "train", "find-lr", "predict", "evaluate", "explain", "compare", "study", "show", "publish", "convert",
)  # fmt: skip
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_ANSWERS = ("predict", "evaluate", "compare")  # what they print is what they are for; others write files
_TYPERS_ERROR: Any = typer.BadParameter.__mro__[1]  # UsageError; the module that has it depends on typer's version


def main(arguments: Sequence[str] | None = None, command: str | None = None) -> None:
    """Run ``command`` with ``arguments`` (default: those of the process) and exit; without one, the first names it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if command is None and not words:
        words = ["--help"]
    warnings.showwarning = _show_warning
    streams.protect()
    try:
        code = _run(application(words, command), words, command)
        sys.exit(_after_losses(code, command or next(iter(words), "")))
    except KeyboardInterrupt:
        sys.exit(130)


def application(words: Sequence[str], command: str | None = None) -> typer.Typer:
    """Return the application of one ``command``, or of all: those that no word names are not imported.

    All that an import would tell of those is the sentence for the list of commands, which stands in their source.
    """
    app = typer.Typer(
        cls=Commands,
        add_completion=command is None,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
        rich_markup_mode=None,
    )
    if command is not None:
        app.command(command, cls=Command, context_settings=_SETTINGS)(load(command))
        return app
    app.callback()(_minicnn)
    completed = [os.environ.get(name, "") for name in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")]  # by a shell
    named = {*words, *" ".join(completed).split()}
    for name in COMMANDS:
        if name in named:
            app.command(name, cls=Command, context_settings=_SETTINGS)(load(name))
        else:
            app.command(name, help=_sentence(name))(_unnamed)
    return app


def load(name: str) -> Callable[..., int]:
    """Return the function of a command."""
    module = name.replace("-", "_")
    function: Callable[..., int] = getattr(importlib.import_module(f"minicnn.cli.{module}"), module)
    return function


def _sentence(name: str) -> str:
    """The first line of the docstring of a command's function."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(f"minicnn.cli.{module}")
    source: Any = spec.loader if spec else None
    tree = ast.parse(source.get_source(f"minicnn.cli.{module}"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == module)
    return (ast.get_docstring(function) or "").partition("\n")[0]


def _unnamed() -> int:
    """Stand in the list of commands for one that no word names, so that this does not run."""
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"minicnn {__version__}")
        raise typer.Exit


def _minicnn(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """Train convolutional networks, and ask them."""


def _run(app: typer.Typer, words: list[str], command: str | None) -> int:
    debug = "--debug" in words
    try:
        words = [_at_home(word) for word in words]
        name = f"{command.replace('-', '_')}.py" if command else "minicnn"
        result = app(words, prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except _TYPERS_ERROR as error:
        return _fail(f"{error.format_message().rstrip('.')}; see --help", 2, debug)
    except _usage_errors() as error:
        return _fail(error, 2, debug)
    except _users_errors() as error:
        return _fail(error, 1, debug)


def _usage_errors() -> tuple[type[Exception], ...]:
    """Those that end with 2; asked for when there is an error, as what defines them takes its time to import."""
    data = importlib.import_module("minicnn.data")
    return UsageError, data.UnknownDataset, data.DatasetUnavailable


def _users_errors() -> tuple[type[Exception], ...]:
    """Those that end with 1."""
    training = importlib.import_module("minicnn.training")
    return ValueError, TypeError, OSError, BackendUnavailable, training.TrainingError, OutOfMemory, MemoryError


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
