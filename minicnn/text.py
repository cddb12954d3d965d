"""How what comes from outside is shown to a user: names of files, classes and arrays, and wrong values."""

import reprlib
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

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


def width_of(text: str) -> int:
    """Return how many columns a text takes: two for Chinese and Japanese characters and emoji, none for accents."""
    free = (c for c in text if unicodedata.combining(c) == 0 and c not in _JOINERS)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in free)


def aligned(rows: Sequence[Sequence[str]], right: Collection[int], width: int | None = None) -> list[str]:
    """Return rows of as many cells each as lines: the columns numbered in ``right`` are flush right, others left.

    Columns that do not fit into a ``width`` follow in further tables, below an empty line, each beside the first
    column. No cell is cut: a table of two columns may be wider.
    """
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]

    def padded(cell: str, column: int) -> str:
        space = " " * (widths[column] - width_of(cell))
        return space + cell if column in right else cell + space

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
        lines += ["  ".join(padded(row[column], column) for column in columns).rstrip() for row in rows]
    return lines
