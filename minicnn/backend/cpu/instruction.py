"""Instructions of the machine: each is declared once, at the function that does it.

    @instruction("x:view window:pair stride:pair floor:number -> y:view")
    @helper
    def max_pool(memory, x, window, stride, floor, y): ...

A program is an int64 array, a row for each instruction: its code, after how many others it comes where threads share a
program, ADDRESSES addresses, and the words of its operands. An address below 0 is one outside of the memory.
The declaration names the operands, how a row holds them, and behind the arrow those that are written; in brackets stand
the operands in whose place a result may be written. From it come the rows (:func:`row`), the interpreter's calls
(:func:`calls`) and the disassembly (:func:`disassembled`). A parameter that is not declared is the machine's own, as
``memory``: see :mod:`minicnn.backend.cpu.machine`.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

ADDRESSES = 5
"""How many operands of an instruction may be addresses. Each is a pair (at, step) in a row: at + block * step, or
at + thread * room for step -1, the scratch of a thread."""
_FIRST_ADDRESS = 2
_FIRST_WORD = _FIRST_ADDRESS + 2 * ADDRESSES
WIDTH = 38
"""Length of a row."""


class View(NamedTuple):
    """Where a block of images lies in the memory: its first pixel, and how far channels and rows are apart."""

    at: int
    plane: int
    row: int


class Kind(NamedTuple):
    """How an operand stands in a row: the number of its words, and how the interpreter reads them.

    A kind with an address begins with the pair (at, step), which moves with the block or is of the thread.
    """

    words: int
    source: str
    has_address: bool = False


KINDS = {
    "place": Kind(0, "{at}", True),
    "view": Kind(2, "View({at}, {0}, {1})", True),
    "part": Kind(2, "{0} + part * {1}"),  # of sums: each part of the batch has its own
    "word": Kind(1, "{0}"),
    "region": Kind(1, "inside({0}, origin)"),  # an address that is the same for all blocks
    "pair": Kind(2, "({0}, {1})"),
    "size": Kind(3, "({0}, {1}, {2})"),
    "pixels": Kind(3, "({0}, {1}, {2})"),  # a size whose rows may be joined: the order of pixels does not matter
    "number": Kind(1, "numbers[{0}]"),
    "key": Kind(1, "table[{0}]"),
}


@dataclass(frozen=True)
class Instruction:
    """An instruction: its function, compiled, with the kinds of its operands by name.

    results: by the name of each, the operands that it may overwrite.
    """

    code: int
    function: Any
    parameters: tuple[str, ...]
    operands: dict[str, str]
    results: dict[str, tuple[str, ...]]

    def words(self, row: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the operands of a row by name, each as its words, an address first."""
        addresses, words = iter(range(_FIRST_ADDRESS, _FIRST_WORD, 2)), iter(row[_FIRST_WORD:])
        for operand, kind in _kinds(self):
            first = next(addresses) if kind.has_address else 0
            address = row[first : first + 2] if kind.has_address else ()
            yield operand, (*map(int, address), *(int(next(words)) for _ in range(kind.words)))


INSTRUCTIONS: dict[str, Instruction] = {}
"""All instructions by name."""


def instruction(declaration: str) -> Any:
    """Declare the operands of a compiled function, ``name:kind`` with the results behind an arrow, and return it."""
    _, _, results = declaration.partition("->")
    operands = dict(re.findall(r"(\w+):(\w+)", declaration))
    overwritten = {name: tuple(re.findall(r"\w+", rest)) for name, rest in re.findall(r"(\w+):\w+(\S*)", results)}

    def declare(function: Any) -> Any:
        name, parameters = function.py_func.__name__, tuple(inspect.signature(function.py_func).parameters)
        if not operands.keys() <= set(parameters) or not set(operands.values()) <= KINDS.keys():
            raise TypeError(f"{name}: expected names of parameters with kinds, received {declaration!r}")
        kinds = [KINDS[kind] for kind in operands.values()]
        if sum(k.has_address for k in kinds) > ADDRESSES or sum(k.words for k in kinds) > WIDTH - _FIRST_WORD:
            raise TypeError(f"{name}: expected at most {ADDRESSES} addresses and {WIDTH - _FIRST_WORD} words")
        INSTRUCTIONS[name] = Instruction(len(INSTRUCTIONS), function, parameters, operands, overwritten)
        return function

    return declare


def row(name: str, **operands: tuple[int, ...]) -> list[int]:
    """Return the row of an instruction, each operand as its words in the order of its kind, an address first.

    Raises:
        TypeError: a missing or unknown operand, or a wrong number of words.
    """
    declared = INSTRUCTIONS[name]
    if operands.keys() != declared.operands.keys():
        raise TypeError(f"{name}: expected the operands {', '.join(declared.operands)}; received {', '.join(operands)}")
    addresses: list[int] = []
    words: list[int] = []
    for operand, kind in _kinds(declared):
        values = list(operands[operand])
        if len(values) != kind.words + 2 * kind.has_address:
            raise TypeError(
                f"{name}: expected {kind.words + 2 * kind.has_address} words for {operand}, received {values}"
            )
        if kind.has_address:
            addresses += values[:2]
            values = values[2:]
        words += values
    addresses += [0] * (2 * ADDRESSES - len(addresses))
    return [declared.code, 0, *addresses, *words, *[0] * (WIDTH - _FIRST_WORD - len(words))]


def after(row: list[int], others: int) -> list[int]:
    """Return a row that comes after so many others of its program."""
    return [row[0], others, *row[_FIRST_ADDRESS:]]


def calls(names: Iterable[str]) -> str:
    """Return the chain of calls of an interpreter, as the source of a branch for each of these instructions.

    The words of the row ``r`` are read once before: a reading in each branch is more to compile.
    """
    numbers = range(_FIRST_WORD, WIDTH)
    lines: list[str] = []
    for name in names:
        declared = INSTRUCTIONS[name]
        # a to e: the addresses, as the interpreter names them
        places, words = iter("abcde"), iter(f"r{i}" for i in numbers)
        read = {
            operand: kind.source.format(*islice(words, kind.words), at=next(places) if kind.has_address else "")
            for operand, kind in _kinds(declared)
        }
        arguments = ", ".join(read.get(parameter, parameter) for parameter in declared.parameters)
        lines += [f"{'el' if lines else ''}if code == {declared.code}:", f"    {name}({arguments})"]
    return "\n".join([*(f"r{i} = r[{i}]" for i in numbers), *lines])


def disassembled(words: np.ndarray, numbers: np.ndarray) -> str:
    """Return a row as text: the name of the instruction, and every operand by name."""
    name, declared = next((n, d) for n, d in INSTRUCTIONS.items() if d.code == words[0])
    texts = []
    for operand, values in declared.words(words):
        kind, place = KINDS[declared.operands[operand]], ""
        if kind.has_address:
            (at, step), values = values[:2], values[2:]
            place = f"scratch+{at}" if step < 0 else f"{at}+block*{step}" if step else str(at)
        is_number = declared.operands[operand] == "number"
        text = f"{numbers[values[0]]:g}" if is_number else kind.source.format(*values, at=place).replace(" ", "")
        texts.append(f"{operand}={text}")
    return " ".join([name, *texts])


def _kinds(declared: Instruction) -> Iterator[tuple[str, Kind]]:
    return ((operand, KINDS[kind]) for operand, kind in declared.operands.items())
