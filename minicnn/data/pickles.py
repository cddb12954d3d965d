"""A reader of the pickles in which CIFAR-10's Python layout is published; nothing in such a file is ever run.

A pickle is a program for a small stack machine (https://docs.python.org/3/library/pickletools.html). :func:`load` runs
it on that of the standard library, in Python, with the opcodes alone that build plain values, and those with which an
array is described: GLOBAL and REDUCE make a :class:`Name` and a :class:`Record`, which BUILD completes. These hold
their arguments and do nothing: no name is looked up, no function is called, and no object of another library is made;
:func:`uint8_array` checks the arguments and makes the array itself.

Time and memory are bounded by the file's size. With the standard library alone they are not: in C it makes room for a
memo of 2^32 entries or a text of 2^32 bytes when a file names the number, and a call copies its arguments.
"""

import io
import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_READS = 400_000  # of one file, one an opcode and one or two for what follows it; the published ones take 100,000
_CONTAINERS = (
    pickle.EMPTY_DICT + pickle.EMPTY_LIST + pickle.EMPTY_TUPLE + pickle.MARK + pickle.TUPLE + pickle.TUPLE1
    + pickle.TUPLE2 + pickle.TUPLE3 + pickle.APPEND + pickle.APPENDS + pickle.SETITEM + pickle.SETITEMS
)  # fmt: skip
_VALUES = (
    pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE + pickle.BININT + pickle.BININT1 + pickle.BININT2
    + pickle.SHORT_BINSTRING + pickle.BINSTRING  # text or bytes of Python 2
    + pickle.SHORT_BINUNICODE + pickle.BINUNICODE + pickle.SHORT_BINBYTES + pickle.BINBYTES
)  # fmt: skip
_MET_BEFORE = pickle.BINPUT + pickle.LONG_BINPUT + pickle.MEMOIZE + pickle.BINGET + pickle.LONG_BINGET
_ARRAYS = pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.REDUCE + pickle.BUILD
_OPCODES = _CONTAINERS + _VALUES + _MET_BEFORE + _ARRAYS + pickle.PROTO + pickle.FRAME + pickle.STOP
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
    file = _File(content)
    reader = _Reader(file, encoding="latin1")
    try:
        value = reader.load()
    except (LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:  # an empty stack, a wrong kind, …
        raise ValueError(f"a damaged pickle: {type(error).__name__} at byte {file.tell():,}") from error
    if reader.stack or reader.metastack or file.tell() != len(content):
        raise ValueError("the pickle does not end with one value")
    return value


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


class _File(io.BytesIO):
    """The content of a pickle; an error for what lies beyond its end, and after MAX_READS."""

    reads = 0

    def read(self, count: int | None = -1) -> bytes:
        self.reads += 1
        content = super().read(count)
        if self.reads > MAX_READS:
            raise ValueError(f"a pickle of more than {MAX_READS:,} values is refused")
        if count is not None and len(content) < count:
            raise ValueError("the pickle is cut off")
        return content


class _Dict(dict[str, Any]):
    """A dictionary that EMPTY_DICT makes. Keys are text: a tuple of a few bytes could take for ever to hash."""

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError("a key is text")
        super().__setitem__(key, value)


class _Opcodes(dict[int, Any]):
    """What each opcode does."""

    def __missing__(self, code: int) -> None:
        raise ValueError(f"the pickle opcode {bytes([code])!r} is refused, only those of plain values are read")


class _Reader(pickle._Unpickler):
    stack: list[Any]
    metastack: list[list[Any]]
    dispatch = _Opcodes({code: pickle._Unpickler.dispatch[code] for code in _OPCODES})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise ValueError(f"{f'{module}.{name}'[:40]!r} is refused, only NumPy arrays are read")
        return Name(module, name)

    def reduce(self) -> None:
        arguments = self.stack.pop()
        if not isinstance(self.stack[-1], Name) or not isinstance(arguments, tuple):
            raise TypeError("a call is of a name with a tuple")
        self.stack[-1] = Record(self.stack[-1], arguments)

    def build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Record):
            raise TypeError("only a record has a state")
        self.stack[-1].state = state

    dispatch[pickle.REDUCE[0]] = reduce
    dispatch[pickle.BUILD[0]] = build
    dispatch[pickle.EMPTY_DICT[0]] = lambda reader: reader.append(_Dict())
    dispatch[pickle.FRAME[0]] = lambda reader: reader.read(8)  # its length: a hint for reading ahead
