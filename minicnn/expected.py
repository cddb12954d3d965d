"""What options and the content of files may be, written as it looks, and the check: one line says what is wrong.

An expectation is a :class:`Number`; a :class:`OneOf` several words; an :class:`Either` of these; a type; ``[e]``, a
list of any length; ``(e, f)``, a list of exactly these; ``{name: e}``, a mapping that has at least these names, and
``Only({name: e})`` one that has no others. ``Maybe(e)`` is for what may be missing or null.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minicnn.text import brief, nearest

LARGEST = sys.float_info.max
_NAMES = {str: "text", bool: "true or false", dict: "a mapping", list: "a list"}


@dataclass(frozen=True)
class Number:
    """A finite number, true and false are none, between limits.

    It is from ``least`` to ``most``, itself not one of them where it must be ``above`` or ``below``; a ``whole`` one is
    an int.
    """

    least: float = 0
    most: float = LARGEST
    whole: bool = False
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        kind = int if self.whole else int | float
        if not isinstance(value, kind) or isinstance(value, bool) or not self.least <= value <= self.most:
            return False
        return not (self.above and value == self.least or self.below and value == self.most)

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.least:.15g}"
        limits = f" {'above' if self.above else 'from'} {self.least:g}" if self.least > -LARGEST else ""
        limits += f" to {'less than ' * self.below}{self.most:.15g}" if limits and self.most < LARGEST else ""
        return ("a whole number" if self.whole else "a number") + limits


class OneOf(tuple[str, ...]):
    """One of some words; the empty one, if it is among them, says that an option is off."""

    def __str__(self) -> str:
        words = list(filter(None, self))
        return f"one of {', '.join(words)}" if len(words) > 1 else "".join(words)


@dataclass(frozen=True)
class Several:
    """One or more numbers of a kind."""

    each: Number

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, list | tuple) and len(value) > 0 and all(number in self.each for number in value)

    def __str__(self) -> str:
        return f"a list, each {self.each}"


class Either(tuple[Number | OneOf | Several, ...]):
    """A number of one of some kinds, one of some words, or several numbers."""

    def __contains__(self, value: Any) -> bool:
        return any(value in each for each in self)

    def __str__(self) -> str:
        return " or ".join(map(str, self))


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
    elif isinstance(expected, Number | OneOf | Either):
        _require(value in expected, name, expected, value)
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


def _require(holds: bool, name: str, expected: Any, value: Any) -> None:
    if not holds:
        hint = nearest(value, expected) if isinstance(expected, OneOf) else ""
        raise ValueError(f"{name}: expected {expected}, received {brief(value)}{hint}")
