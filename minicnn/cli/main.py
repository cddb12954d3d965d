"""The door to the commands, and what becomes of an error: one line, and an exit code.

Exit codes: 0; 1 failure; 2 usage; 130 Ctrl-C; 143 SIGTERM. A traceback only with ``--debug``.
"""

import sys
import warnings
from collections.abc import Sequence

import typer

from minicnn.backend import BackendUnavailable
from minicnn.cli.evaluate import evaluate
from minicnn.cli.predict import predict
from minicnn.cli.train import train
from minicnn.data import DatasetUnavailable
from minicnn.training import TrainingError

_COMMANDS = {"train": train, "predict": predict, "evaluate": evaluate}
_USERS_ERRORS = (ValueError, TypeError, OSError, BackendUnavailable, DatasetUnavailable, TrainingError, MemoryError)


def main(arguments: Sequence[str] | None = None, command: str | None = None) -> None:
    """Run ``command`` with ``arguments`` (default: those of the process) and exit; without one, the first names it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    app = typer.Typer(add_completion=False, no_args_is_help=command is None, pretty_exceptions_enable=False)
    for name in _COMMANDS if command is None else [command]:
        app.command(name, context_settings={"help_option_names": ["-h", "--help"]})(_COMMANDS[name])
    warnings.showwarning = _show_warning
    sys.exit(_run(app, words, command))


def _run(app: typer.Typer, words: list[str], command: str | None) -> int:
    debug = "--debug" in words
    try:
        result = app(words, prog_name=f"{command}.py" if command else "minicnn", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except DatasetUnavailable as error:
        return _fail(error, 2, debug)
    except _USERS_ERRORS as error:
        return _fail(error, 1, debug)
    except Exception as error:  # what typer raises for wrong words on the command line; its class has moved about
        if not hasattr(error, "format_message"):
            raise
        return _fail(f"{error.format_message()} See --help.", 2, debug)


def _fail(error: object, code: int, debug: bool = False) -> int:
    """Print the error as one line, return ``code``; with ``debug`` let the error show its traceback."""
    if debug and isinstance(error, BaseException):
        raise error
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        text = f"out of memory ({text}): use a smaller --batch-size"
    print(f"error: {text}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
