"""How things are shown to a user: foreign names and wrong values, tables, and what a notebook shows."""

import html
import reprlib
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format, surrogate; separators of lines and paragraphs
_JOINERS = "\u200c\u200d"  # of Persian, of the scripts of India, and of emoji


def shown(value: object) -> str:
    r"""Return ``str(value)`` on one line that leaves a terminal as it is: \n, \x1b, \u202e and their kin as escapes.

    These are C0 and C1 controls, line separators, invisible characters, those that turn the direction of writing, and
    surrogates, which Python has for bytes of a file's name that are not UTF-8. All other characters stay.
    """
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _ESCAPED and c not in _JOINERS else c
        for c in str(value)
    )


def brief(value: object, length: int = 100) -> str:
    """Return the ``repr`` of a value on one line, its middle left out where it is longer than ``length``."""
    try:
        text = repr(value)
        text = text if len(text) <= length else reprlib.repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = type(value).__name__
    return " ".join(text.splitlines())


def nearest(value: object, words: Iterable[str]) -> str:
    """Return a question after the one of the words that ``value`` may have been meant to be, "" where none is near."""
    close = get_close_matches(value, list(words), 1) if isinstance(value, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def aligned(rows: Sequence[Sequence[str]], right: Collection[int], width: int | None = None) -> list[str]:
    """Return rows of as many cells each as lines: the columns numbered in ``right`` are flush right, others left.

    Columns that do not fit into a ``width`` follow in further tables, below an empty line, each beside the first
    column. No cell is cut: a table of two columns may be wider.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides: list[Any] = [str.rjust if column in right else str.ljust for column in range(len(widths))]
    tables, room = [[0]], 0
    for column in range(1, len(widths)):
        room += 2 + widths[column]
        if width is not None and widths[0] + room > width and len(tables[-1]) > 1:
            tables.append([0])
            room = 2 + widths[column]
        tables[-1].append(column)
    lines = []
    for number, columns in enumerate(tables):
        lines += [""] * bool(number)
        lines += ["  ".join(sides[c](row[c], widths[c]) for c in columns).rstrip() for row in rows]
    return lines


# For a notebook. Styles stand at the elements, as that of a page would go where a notebook is not trusted.

_CAPTION = "font-weight:600;margin-bottom:4px"
_CELL = "padding:1px 10px;white-space:pre;text-align:"
_BAR = "background:linear-gradient(90deg,rgba(0,114,178,.3) {0:.1%},transparent {0:.1%});"


def html_text(caption: str, text: str) -> str:
    """Return HTML of a caption and lines in the font of code."""
    return _scrolling(caption, f'<pre style="margin:0;font-family:monospace">{html.escape(text)}</pre>')


def html_table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str | float]], right: Collection[int] = ()
) -> str:
    """Return an HTML table whose text is escaped.

    Args:
        caption: a line above it.
        head: the names of the columns.
        rows: cells, as many as ``head``, or one that spans all columns. A float from 0 to 1 is shown as a percentage on
            a bar of that length.
        right: numbers of the columns that are flush right.

    Example:
        >>> from minicnn.text import html_table
        >>> "<i>" in html_table("", ["name"], [["<i>"]])
        False
    """
    sides = ["right" if column in right else "left" for column in range(len(head))]
    cells = [_cell("th", name, side) for name, side in zip(head, sides, strict=True)]
    lines = [f"<tr>{''.join(cells)}</tr>"]
    for row in rows:
        if len(row) == 1 < len(head):
            cells = [_cell("td", row[0], "left", f' colspan="{len(head)}"')]
        else:
            cells = [_cell("td", value, side) for value, side in zip(row, sides, strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return _scrolling(caption, f'<table style="border-collapse:collapse;margin:0">{"".join(lines)}</table>')


def _cell(tag: str, value: str | float, side: str, attributes: str = "") -> str:
    bar, text = "", value
    if isinstance(value, float):
        bar, text = _BAR.format(value), f"{value:.1%}"
    return f'<{tag}{attributes} style="{bar}{_CELL}{side}">{html.escape(shown(text))}</{tag}>'


def _scrolling(caption: str, content: str) -> str:
    """Return HTML below a caption, in a box that scrolls where it is large."""
    head = f'<div style="{_CAPTION}">{html.escape(shown(caption))}</div>' if caption else ""
    return f'<div>{head}<div style="max-height:36em;overflow:auto">{content}</div></div>'
