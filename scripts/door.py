"""The door to the commands: Ctrl-C while the libraries load, which takes seconds, ends at once and in silence.

It stands outside the package, since importing any part of that imports NumPy first.
"""

import importlib
import os
import signal
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None, command: str | None = None) -> None:
    """Load and run a command, as :func:`minicnn.cli.main.main` says."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # an ignored one stays ignored
        # an exception would not do: libraries of C turn it into an ImportError of their own
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    commands = importlib.import_module("minicnn.cli.main")
    if command is not None:
        commands.load(command)  # imports what that needs
    signal.signal(signal.SIGINT, before)
    commands.main(arguments, command)
