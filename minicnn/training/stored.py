"""What files hold, checked against what is expected before it is used: one line says where, what, and what was there.

What is expected is written as it looks: a :class:`Number`; a type; a set of words, one of which it is; ``[e]``, a list
of any length; ``(e, f)``, a list of exactly these; ``{name: e}``, a mapping that has at least these names, and
``Only({name: e})`` one that has no others. ``Maybe(e)`` is for what may be missing or null.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicnn.files import atomic_write
from minicnn.text import brief

LARGEST = sys.float_info.max
MAX_JSON = 64 * 1024 * 1024  # bytes
_NAMES = {str: "text", bool: "true or false", dict: "a mapping", list: "a list"}


@dataclass(frozen=True)
class Number:
    """A finite number (true and false are none) from ``least`` to ``most``; a ``whole`` one is an int."""

    least: float = 0
    most: float = LARGEST
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        kind = int if self.whole else int | float
        return isinstance(value, kind) and not isinstance(value, bool) and self.least <= value <= self.most

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.least:.15g}"
        limits = f" from {self.least:g}" + (f" to {self.most:.15g}" if self.most < LARGEST else "")
        return ("a whole number" if self.whole else "a number") + (limits if self.least > -LARGEST else "")


@dataclass(frozen=True)
class Maybe:
    """What may be missing or null, and is as ``expected`` otherwise."""

    expected: Any


class Only(dict[str, Any]):
    """A mapping without any other name."""


def check(value: Any, expected: Any, name: str = "") -> None:
    """Raise ValueError, one line, unless ``value`` is as ``expected``; ``name`` says where it is."""
    if isinstance(expected, Maybe):
        if value is not None:
            check(value, expected.expected, name)
    elif isinstance(expected, Number):
        _require(value in expected, name, expected, value)
    elif isinstance(expected, set):
        _require(isinstance(value, str) and value in expected, name, " or ".join(sorted(expected)), value)
    elif isinstance(expected, Mapping):
        _require(isinstance(value, Mapping), name, _NAMES[dict], value)
        if isinstance(expected, Only):
            _require(value.keys() <= expected.keys(), name, f"nothing but {', '.join(expected)}", value)
        for key, inner in expected.items():
            where = f"{name}.{key}" if name else key
            if key not in value and not isinstance(inner, Maybe):
                raise ValueError(f"{where} is missing")
            check(value.get(key), inner, where)
    elif isinstance(expected, list | tuple):
        _require(isinstance(value, list | tuple), name, _NAMES[list], value)
        if isinstance(expected, tuple):
            _require(len(value) == len(expected), name, f"a list of {len(expected)}", value)
        for i, item in enumerate(value):
            check(item, expected[0 if isinstance(expected, list) else i], f"{name}[{i}]")
    else:
        _require(isinstance(value, expected), name, _NAMES[expected], value)


def like(value: Any) -> Any:
    """Return what is expected where another value of the same form stands: numbers from 0, the same names and types."""
    if isinstance(value, Mapping):
        return {key: like(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(like, value))
    return type(value) if isinstance(value, str | bool) else Number(whole=isinstance(value, int))


def read_json(path: Path, expected: Any) -> dict[str, Any]:
    """Return the mapping in a JSON file, ``expected`` as for :func:`check`; ValueError for one that is damaged."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        check(content, expected, "its content" if not isinstance(content, dict) else "")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return content


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, atomically; ValueError for NaN and infinities, which JSON does not have."""
    atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _require(holds: bool, name: str, expected: Any, value: Any) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, received {brief(value)}")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")
