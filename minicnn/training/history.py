"""What the epochs of a training gave."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from minicnn.files import atomic_write
from minicnn.text import aligned, brief, html_table, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, float]
_SHOWN = {"epoch": ".0f", "learning_rate": ".3g", "seconds": ".1f", "images_per_second": ",.0f"}
"""How what is neither a loss nor an accuracy is shown."""


class History(list[Row]):
    """One row a finished epoch: a dict, the same names in each; a name instead of a number gives its column.

    The names are epoch (from 1), train_loss, train_accuracy, validation_loss and validation_accuracy unless there was
    nothing to validate on, learning_rate (of the last step), seconds, images_per_second. Losses are mean
    cross-entropies in nats (in training those with class weights), accuracies are from 0 to 1.

    Example:
        >>> from minicnn.training import History
        >>> history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
        >>> history["train_loss"]
        [0.5, 0.25]
        >>> history.best
        {'epoch': 2, 'train_loss': 0.25}
    """

    def __getitem__(self, key: SupportsIndex | slice | str) -> Any:
        """Return a row, a list of rows, or the column of a name.

        Raises:
            KeyError: a name that no row has.
        """
        if not isinstance(key, str):
            return super().__getitem__(key)
        names = [*self[0]] if self else []
        if key not in names:
            raise KeyError(f"history: expected one of {', '.join(names)}, received {brief(key)}{nearest(key, names)}")
        return [row[key] for row in self]

    @property
    def best(self) -> Row | None:
        """The row with the highest validation accuracy; of equals the one with the lowest validation loss.

        Without validation it is the last one, and None where there is no row.
        """

        def merit(row: Row) -> tuple[float, float]:
            if "validation_loss" not in row:
                return row["epoch"], 0.0
            return row["validation_accuracy"], -row["validation_loss"]

        return max(self, key=merit, default=None)

    def plot(self) -> Figure:
        """Return a figure of losses, accuracies and learning rate over the epochs, with the best epoch marked.

        Raises:
            ValueError: there is no row.
        """
        from minicnn.plots import curves

        if not self:
            raise ValueError("history: expected a finished epoch to plot, received none")
        return curves({name: self[name] for name in self[0]})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows with a line of names above them: with every digit, and at once or not at all."""
        lines = [",".join(self[0]), *(",".join(repr(value) for value in row.values()) for row in self)] if self else []
        atomic_write(Path(path), "\n".join([*lines, ""]))

    def __str__(self) -> str:
        head, rows = self._table()
        text = [[f"{cell:.2%}" if isinstance(cell, float) else cell for cell in cells] for cells in rows]
        return "\n".join(aligned([head, *text], range(len(head) - 1)))

    def _repr_html_(self) -> str | None:
        """Answer a notebook: the curves, and the rows as a table; None where there is no row."""
        from minicnn.plots import to_png

        if not self:
            return None
        head, rows = self._table()
        table = html_table("", head, rows, range(len(head) - 1))
        figure = self.plot()
        source, width = base64.b64encode(to_png(figure)).decode(), round(96 * figure.get_figwidth())
        picture = f'<img style="max-width:100%" width="{width}" src="data:image/png;base64,{source}"/>'
        return f"<div>{picture}{table}</div>"

    def _table(self) -> tuple[list[str], list[list[str | float]]]:
        """Return the names of the columns, and the text of each row, but accuracies as numbers."""
        names, best = [*self[0]] if self else ["epoch"], self.best
        rows: list[list[str | float]] = []
        for row in self:
            cells = [v if name.endswith("accuracy") else format(v, _SHOWN.get(name, ".4f")) for name, v in row.items()]
            rows.append([*cells, "best" if row is best else ""])
        return [*(name.replace("_", " ") for name in names), ""], rows
