"""Declarations of instructions: rows, what they say, and what is refused."""

import numpy as np
import pytest

from minicnn.backend.cpu import instruction as declarations
from minicnn.backend.cpu.instruction import INSTRUCTIONS, KINDS, WIDTH, calls, disassembled, instruction, row
from minicnn.backend.cpu.machine import _interpret_all

X, Y = (100, -1, 64, 8), (200, 32, 16, 4)
POOL = {"x": X, "size": (3, 4, 5), "window": (2, 3), "stride": (1, 2), "floor": (1,), "y": Y}


class Compiled:
    """What a decorator of Numba makes of a function."""

    def __init__(self, function):
        self.py_func = function


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(declarations, "INSTRUCTIONS", {})
    return declarations.INSTRUCTIONS


def test_a_row_has_the_code_the_addresses_and_the_words_in_order():
    words = [64, 8, 3, 4, 5, 2, 3, 1, 2, 1, 16, 4]
    expected = [INSTRUCTIONS["max_pool"].code, 0, 100, -1, 200, 32, *[0] * 6, *words]
    found = row("max_pool", **dict(reversed(POOL.items())))  # by name, in any order
    assert found == expected + [0] * (WIDTH - len(expected))


def test_a_row_is_read_back():
    found = np.array(row("max_pool", **POOL))
    assert dict(INSTRUCTIONS["max_pool"].words(found)) == POOL
    text = disassembled(found, np.array([0, -2.5], np.float32))
    assert text == (
        "max_pool x=View(scratch+100,64,8) size=(3,4,5) window=(2,3) stride=(1,2) floor=-2.5 y=View(200+block*32,16,4)"
    )


@pytest.mark.parametrize(
    "operands, message",
    [
        ({k: v for k, v in POOL.items() if k != "window"}, "max_pool: expected the operands x, size, window"),
        (POOL | {"padding": (0, 0)}, "received .*padding"),
        (POOL | {"window": (2,)}, r"max_pool: expected 2 words for window, received \[2\]"),
        (POOL | {"x": X[:2]}, "max_pool: expected 4 words for x"),
    ],
)
def test_a_wrong_or_missing_operand_raises(operands, message):
    with pytest.raises(TypeError, match=message):
        row("max_pool", **operands)


def test_a_declaration(registry):
    def scale(memory, first, a, by, y): ...

    compiled = Compiled(scale)
    assert instruction("a:view by:number -> y:view(a)")(compiled) is compiled
    declared = registry["scale"]
    assert declared.operands == {"a": "view", "by": "number", "y": "view"} and declared.results == {"y": ("a",)}
    source = calls(["scale"])
    assert "if code == 0:" in source
    assert "scale(memory, first, View(a, r12, r13), numbers[r14], View(b, r15, r16))" in source


@pytest.mark.parametrize(
    "declaration",
    ["a:view b:view -> y:view", "a:field -> y:view", "a:view -> x:view", "a:size y:size " + "-> x:size"],
)
def test_a_declaration_of_what_is_not_there_raises(registry, declaration):
    def scale(memory, a, y): ...

    with pytest.raises(TypeError, match="scale: expected names of parameters with kinds"):
        instruction(declaration)(Compiled(scale))
    assert not registry


def test_a_declaration_of_more_than_a_row_holds_raises(registry):
    names = [f"x{i}" for i in range(6)]
    scope = {}
    exec(f"def wide({', '.join(names)}): ...", scope)
    with pytest.raises(TypeError, match="wide: expected at most 5 addresses and 26 words"):
        instruction(" ".join(f"{name}:place" for name in names))(Compiled(scope["wide"]))


def test_every_instruction_is_called_by_the_interpreter_with_all_its_parameters():
    assert sorted(d.code for d in INSTRUCTIONS.values()) == list(range(len(INSTRUCTIONS)))
    own = {"memory", "table", "images", "labels", "count", "first", "images_in_block", "block", "part", "accumulate"}
    for name, declared in INSTRUCTIONS.items():
        assert set(declared.parameters) - declared.operands.keys() <= own, name
        assert declared.operands.keys() <= set(declared.parameters) and set(declared.operands.values()) <= KINDS.keys()
        assert name in _interpret_all.__code__.co_names
