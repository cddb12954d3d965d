"""Graph: what the passes hand on, nodes and the things that they read and write. Nothing in it changes.

A pass is a function from one to the next; :func:`minicnn.compile.passes.compiled` calls them in order.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from minicnn.compile.program import Call, Program, Value

FILTERS_IN_CACHE = 128 * 128
"""Filters up to which a thread's sums of their gradient stay in its cache."""


@dataclass(frozen=True, eq=False)
class Block:
    """A value in blocks of images, (channels, height, width) each.

    points: how many of these there are, one after the other: the values of a transform.
    """

    channels: int
    height: int
    width: int
    points: int = 1

    @classmethod
    def of(cls, value: Value) -> Block:
        """Return a block of some images of a value (N, C, H, W), (N, F) as F channels of one pixel, or (N, L, E).

        Of the last, L tokens, the vectors are the channels, and the tokens a row of pixels.
        """
        if len(value.shape) == 3:
            return cls(value.shape[2], 1, value.shape[1])
        channels, height, width = (*value.shape[1:], 1, 1)[:3]
        return cls(channels, height, width)

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def tiles(self, edge: int) -> tuple[int, int]:
        """Return the rows and columns of tiles of ``edge`` x ``edge`` pixels that cover a channel."""
        return -(-self.height // edge), -(-self.width // edge)

    def halo_for_tiles(self, edge: int, around: int) -> tuple[int, int]:
        """Return the halo that has zeros for all that tiles read outside: ``around`` them, and what they stand over.

        Behind a row come the halo on its right and that on the left of the next, so over both ends it has twice its
        width; so it is with the rows of a channel and the next.
        """
        over = (n * edge - size for n, size in zip(self.tiles(edge), (self.height, self.width), strict=True))
        high, wide = (max(around, -(-(around + o) // 2)) for o in over)
        return high, wide


@dataclass(frozen=True, eq=False)
class Region:
    """A contiguous float32 array in the plan's memory.

    parts: how many partial results are kept there, one a part or a block of the batch; 0 for a single array.
    gap: elements left free behind each of the first axis, if only instructions look at it: what lies a power of two
    apart takes the same place in caches.
    """

    shape: tuple[int, ...]
    parts: int = 0
    gap: int = 0

    @property
    def step(self) -> int:
        """How far the elements of the first axis are apart."""
        return math.prod(self.shape[1:]) + self.gap

    @property
    def size(self) -> int:
        """Elements of one array."""
        return math.prod(self.shape[:1]) * self.step

    @property
    def length(self) -> int:
        """Elements of all."""
        return self.size * max(self.parts, 1)


Thing = Block | Region | Value


@dataclass(frozen=True, eq=False)
class Node:
    """A step of a plan: a block instruction, a call of a kernel ("call"), or another call from Python.

    Attributes:
        kind: the name of the instruction, or of the method of :mod:`minicnn.compile.run` that makes the call.
        operands: by name: things, lists of things, numbers and what else the step needs.
        results: the names of the operands that are written.
        call: the recorded call that the node is a part of.
        halos: by the name of an operand the rows and columns of zeros around its channels that are read.
        sees: Values that the operands are views of.
    """

    kind: str
    operands: Mapping[str, Any]
    results: tuple[str, ...]
    call: Call | None = None
    halos: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sees: tuple[Value, ...] = ()

    @cached_property
    def reads(self) -> tuple[Thing, ...]:
        """What the step reads."""
        return (*_things(v for name, v in self.operands.items() if name not in self.results), *self.sees)

    @cached_property
    def writes(self) -> tuple[Thing, ...]:
        """What the step writes."""
        return tuple(_things(self.operands[name] for name in self.results))

    def exchanged(self, thing: Thing, other: Thing, **operands: Any) -> Node:
        """Return the node with ``other`` in place of ``thing``, and with these operands."""
        now = {name: other if value is thing else value for name, value in self.operands.items()}
        return replace(self, operands=now | operands)


@dataclass(frozen=True)
class Layout:
    """What the lanes of a vector hold: of a pixel those of some images, or some channels of one.

    Attributes:
        lanes: their number; images: how many a block holds.
        rules: by the name of a kernel, what lowers a call of it.
        block_of: from a value (N, C, H, W), (N, F) or (N, L, E) to its block.
        instructions: the names of those that stand for others in this layout.
        is_shared: whether there is one block, whose instructions the threads share, or each thread has its blocks.
    """

    lanes: int
    images: int
    rules: Mapping[str, Callable[..., bool]]
    block_of: Callable[[Value], Block]
    instructions: Mapping[str, str] = field(default_factory=dict)
    is_shared: bool = False


@dataclass(frozen=True)
class Graph:
    """The nodes of a program.

    Attributes:
        regions: Values that lie in the plan's memory, and where.
        sees: by Values that calls made as views, the Values that they show.
        images, labels: the inputs that the machine reads where they are.
        constants: regions that lie outside of the plan's memory.
    """

    program: Program
    layout: Layout
    nodes: tuple[Node, ...]
    regions: Mapping[Value, Region]
    sees: Mapping[Value, tuple[Value, ...]]
    images: Value | None
    labels: Value | None
    constants: frozenset[Region] = frozenset()

    @property
    def count(self) -> int:
        """The number of blocks."""
        return -(-self.program.batch // self.layout.images)

    def place_of(self, thing: Thing) -> Thing:
        """Return where a thing is: of a Value in the plan's memory, its region."""
        return self.regions.get(thing, thing) if isinstance(thing, Value) else thing


def halos(nodes: Iterable[Node]) -> dict[Block, tuple[int, int]]:
    """Return the zeros that each block needs around its channels, for all that read it; (0, 0) for others."""
    found: dict[Block, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for node in nodes:
        for name, needed in node.halos.items():
            block = node.operands[name]
            found[block] = max(found[block][0], needed[0]), max(found[block][1], needed[1])
    return found


def _things(operands: Iterable[Any]) -> list[Thing]:
    found: list[Thing] = []
    for operand in operands:
        parts = operand if isinstance(operand, list | tuple) else (operand,)
        found += [part for part in parts if isinstance(part, Block | Region | Value)]
    return found
