"""A reader of the pickles in which CIFAR-10's Python layout is published; nothing in such a file is ever run.

A pickle is a program for a small stack machine (https://docs.python.org/3/library/pickletools.html). :func:`load` knows
the opcodes that build plain values, which are what the published files use (protocol 2 of Python 2, with an array of
NumPy 1) and what Python 3 writes when it saves the same dictionary again (protocols 3 and 4):

- containers: EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, MARK, TUPLE, TUPLE1 to 3, APPEND, APPENDS, SETITEM, SETITEMS;
- values: NONE, NEWTRUE, NEWFALSE, BININT, BININT1, BININT2, and text and bytes with their length before them;
- what was met before: BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET;
- GLOBAL, STACK_GLOBAL, REDUCE and BUILD, with which an array is described: they make a :class:`Name` or a
  :class:`Record` here, which hold their arguments and do nothing. No name is looked up, no function is called, and no
  object of another library is made; :func:`uint8_array` checks the arguments and makes the array itself.

Any other opcode is an error. A file takes at most ``MAX_STEPS`` steps, and every value is a part of the file's bytes or
one of a fixed size, so that time and memory are bounded by the file's size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_STEPS = 200_000  # of one file; the published ones take 40,000
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),  # its name since NumPy 2
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


@dataclass(frozen=True)
class Name:
    """What GLOBAL stands for: the two words, of which nothing is looked up."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Record:
    """What REDUCE and BUILD stand for: a call that is not made, and a state that is not set."""

    function: Name
    arguments: tuple[Any, ...]
    state: Any = None


def load(content: bytes) -> Any:
    """The value of a pickle: None, bool, int, str (Python 2's as Latin-1), bytes, tuple, list, dict with str as keys.

    What else it holds is a Record. Raises ValueError for anything damaged or unknown, in time and memory that the
    length of ``content`` bounds.
    """
    machine = _Machine(content)
    try:
        for _ in range(MAX_STEPS):
            opcode = machine.take(1)
            if opcode == b".":
                return machine.result()
            if opcode not in _OPCODES:
                raise ValueError(f"the pickle opcode {opcode!r} is refused, only those of plain values are read")
            _OPCODES[opcode](machine)
    except (IndexError, KeyError, TypeError, AttributeError) as error:  # an empty stack, no such memo, a wrong kind
        raise ValueError(f"a damaged pickle: {type(error).__name__} at byte {machine.position:,}") from error
    raise ValueError(f"a pickle of more than {MAX_STEPS:,} steps is refused")


def uint8_array(value: Any) -> np.ndarray:
    """The array uint8 (N, M) that a Record describes, read-only. Raises ValueError for any other value."""
    if not isinstance(value, Record) or value.function.name != "_reconstruct":
        raise ValueError("expected an array of NumPy")
    if value.arguments not in ((Name("numpy", "ndarray"), (0,), kind) for kind in ("b", b"b")):
        raise ValueError("expected an array that starts empty")
    if not isinstance(value.state, tuple) or len(value.state) != 5:
        raise ValueError("expected version, shape, dtype, order and bytes of an array")
    _, shape, dtype, by_columns, content = value.state
    if not isinstance(dtype, Record) or dtype.function != Name("numpy", "dtype") or not _is_uint8(dtype):
        raise ValueError("expected an array of dtype |u1")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("expected an array of two axes")
    if isinstance(content, str):
        content = content.encode("latin1")
    if not isinstance(content, bytes) or len(content) != math.prod(shape):
        raise ValueError(f"expected an array's {shape[0]:,} x {shape[1]:,} bytes")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _is_uint8(dtype: Record) -> bool:
    """Its arguments are the name, align and copy; its state is a version, the byte order, and what no number has."""
    described = dtype.arguments in (("u1", 0, 1), ("|u1", 0, 1))
    return described and isinstance(dtype.state, tuple) and dtype.state[1:5] == ("|", None, None, None)


class _Machine:
    """The stack machine: the file and the place in it, the stack, what lay below each open MARK, and the memo."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def take(self, count: int) -> bytes:
        """The next bytes."""
        start, self.position = self.position, self.position + count
        if self.position > len(self.content):
            raise ValueError("the pickle is cut off")
        return self.content[start : self.position]

    def number(self, count: int, signed: bool = False) -> int:
        """The next ``count`` bytes as a number."""
        return int.from_bytes(self.take(count), "little", signed=signed)

    def counted(self, count: int) -> bytes:
        """The bytes whose length the next ``count`` bytes have."""
        return self.take(self.number(count))

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """Pop everything above the last MARK."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def last(self, count: int) -> list[Any]:
        """Pop ``count`` values, the lowest first."""
        values = [self.pop() for _ in range(count)]
        return values[::-1]

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("only a list is appended to")
        self.stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        keys = values[::2]
        if not isinstance(self.stack[-1], dict) or len(values) % 2 or not all(isinstance(key, str) for key in keys):
            raise TypeError("only a dictionary has items, and their keys are text")
        self.stack[-1].update(zip(keys, values[1::2], strict=True))

    def line(self) -> str:
        """The text up to the end of the line."""
        end = self.content.index(b"\n", self.position, self.position + 100)
        return self.take(end + 1 - self.position)[:-1].decode("latin1")

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is text")
        if (module, name) not in _NAMES:
            raise ValueError(f"{f'{module}.{name}'[:40]!r} is refused, only NumPy arrays are read")
        self.push(Name(module, name))

    def reduce(self) -> None:
        function, arguments = self.last(2)
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError("a call is of a name with a tuple")
        self.push(Record(function, arguments))

    def build(self) -> None:
        state = self.pop()
        if not isinstance(self.stack[-1], Record):
            raise TypeError("only a record has a state")
        self.stack[-1].state = state

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def result(self) -> Any:
        """The only value left, at the end of the file."""
        if self.below or len(self.stack) != 1 or self.position != len(self.content):
            raise ValueError("the pickle does not end with one value")
        return self.pop()


_OPCODES: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME
    b"(": _Machine.mark,
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.push(tuple(m.last(1))),
    b"\x86": lambda m: m.push(tuple(m.last(2))),
    b"\x87": lambda m: m.push(tuple(m.last(3))),
    b"a": lambda m: m.append(m.last(1)),
    b"e": lambda m: m.append(m.since_mark()),
    b"s": lambda m: m.set_items(m.last(2)),
    b"u": lambda m: m.set_items(m.since_mark()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number(4, signed=True)),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"U": lambda m: m.push(m.counted(1).decode("latin1")),  # SHORT_BINSTRING, text or bytes of Python 2
    b"T": lambda m: m.push(m.counted(4).decode("latin1")),  # BINSTRING
    b"\x8c": lambda m: m.push(m.counted(1).decode()),  # SHORT_BINUNICODE
    b"X": lambda m: m.push(m.counted(4).decode()),  # BINUNICODE
    b"C": lambda m: m.push(m.counted(1)),  # SHORT_BINBYTES
    b"B": lambda m: m.push(m.counted(4)),  # BINBYTES
    b"c": lambda m: m.name(m.line(), m.line()),  # GLOBAL
    b"\x93": lambda m: m.name(*m.last(2)),  # STACK_GLOBAL
    b"R": _Machine.reduce,
    b"b": _Machine.build,
    b"q": lambda m: m.remember(m.number(1)),  # BINPUT
    b"r": lambda m: m.remember(m.number(4)),  # LONG_BINPUT
    b"\x94": lambda m: m.remember(len(m.memo)),  # MEMOIZE
    b"h": lambda m: m.push(m.memo[m.number(1)]),  # BINGET
    b"j": lambda m: m.push(m.memo[m.number(4)]),  # LONG_BINGET
}
