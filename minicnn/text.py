"""How what comes from outside is shown to a user: names of files, classes and arrays, and wrong values."""

import reprlib
import unicodedata
from collections.abc import Collection, Sequence

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


def table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return rows as lines of aligned columns; ``right``: the columns that are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(t.rjust(w) if i in right else t.ljust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )
