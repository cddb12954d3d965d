"""Logs of training that TensorBoard shows; they need the package tensorboard."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from minicnn.files import check_writable

_TAGS = {"learning_rate": "learning rate", "images_per_second": "images per second", "seconds": "seconds"}


class Log:
    """A log in a folder, to be used in a ``with`` block: one point an epoch for each number of its row.

    ``tensorboard --logdir FOLDER`` shows loss and accuracy with a line each for training and validation.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a log; the folder is made where it is missing.

        Raises:
            ValueError: the package tensorboard is not installed.
            OSError: the folder cannot be written into.
        """
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise ValueError('a log for TensorBoard needs its package: pip install "minicnn[tensorboard]"') from error
        check_writable(folder)
        self._writers = {part: Writer(str(Path(folder) / part)) for part in ("train", "validation")}

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add the numbers of a finished epoch."""
        for name, value in row.items():
            if name == "epoch":
                continue
            part, _, rest = name.partition("_")
            writer = self._writers.get(part, self._writers["train"])
            writer.add_scalar(_TAGS.get(name, rest), value, step=int(row["epoch"]))
        for writer in self._writers.values():
            writer.flush()
