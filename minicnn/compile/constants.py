"""Constants: what depends on weights alone is computed once, and again only after an edit of these.

A prediction folds, transforms and packs its weights. Those are nodes that Python calls; where all that they read are
tensors that the run does not edit, or results of such nodes, they leave the replay. Their results lie outside of the
memory of a plan, and all plans of a function share them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from minicnn.autograd import Version
from minicnn.compile.binding import Binding, aligned_zeros
from minicnn.compile.graph import Block, Graph, Node, Region, Thing
from minicnn.compile.program import PerReplay, Program, Value


def constant_nodes(graph: Graph, machine: Any) -> tuple[Node, ...]:
    """Return the nodes whose results are the same in every replay, as long as nobody edits a tensor."""
    known: set[Thing] = {*versions(graph.program), *graph.program.fixed}
    inside = {thing for node in graph.nodes for thing in _read_inside(node, machine)}
    found = []
    for node in graph.nodes:
        of_python = node.kind not in machine.INSTRUCTIONS and node.kind != "reshape"
        if of_python and _is_pure(node) and known.issuperset(node.reads) and inside.isdisjoint(node.writes):
            known.update(node.writes)
            found.append(node)
    return tuple(found)


def versions(program: Program) -> dict[Value, Version]:
    """Return the tensors, as Values, that a run reads and does not edit, each with its version."""
    edited = {value.memory for value in program.written}
    of_array = {id(array): tensor._version for tensor, array, _ in program.tensors}
    states = {v for call in program.calls for v in call.reads() if v.call is None and v not in program.inputs}
    return {v: of_array[id(v.array)] for v in states if id(v.array) in of_array and v.memory not in edited}


def _read_inside(node: Node, machine: Any) -> list[Thing]:
    """Return the regions that a node reads in the memory of the plan alone."""
    if node.kind in ("matrix", "matrices"):
        return list(node.reads)
    kinds = machine.INSTRUCTIONS[node.kind].operands if node.kind in machine.INSTRUCTIONS else {}
    return [v for name, v in node.operands.items() if kinds.get(name) == "word" and isinstance(v, Region)]


def _is_pure(node: Node) -> bool:
    call = node.call if node.kind == "call" else None
    if call is None:
        return bool(node.reads)
    live = any(isinstance(argument, PerReplay) for argument in call.arguments)
    return bool(node.reads) and not live and not call.facts.writes and call.kernel != "check_on_replay"


class Constant:
    """The results of the last of some nodes, in arrays that stay where they are.

    What the other nodes make for it, such as a weight before it is packed, is freed as soon as the last is done.
    """

    def __init__(
        self, nodes: Sequence[Node], graph: Graph, machine: Any, known: Mapping[Thing, np.ndarray],
        sources: Sequence[Version], parents: Sequence[Constant],
    ) -> None:  # fmt: skip
        self.arrays = [_room(thing) for thing in nodes[-1].writes]
        self._parents = tuple(parents)
        self._sources: tuple[Version, ...] = tuple(
            dict.fromkeys([*sources, *(s for parent in parents for s in parent._sources)])
        )
        self._stamps: list[int] | None = None
        self.nodes = tuple(nodes)  # whose Values keep the arrays of tensors, so that their ids stay theirs
        # not the program, which would keep replaced weights: a later plan may share the results
        program = Program(graph.program.backend)
        self._graph = replace(graph, program=program, nodes=(), regions={}, sees={}, images=None, labels=None)
        self._machine = machine
        self._known = {thing: known[thing] for node in nodes for thing in node.reads if thing in known}

    def refresh(self) -> bool:
        """Compute the results anew if a source may have been edited since; return whether none may be unnoticed."""
        stamps = [source.stamp() for source in self._sources]
        if stamps != self._stamps:
            self._make()
            self._stamps = stamps
        return stamps == [source.stamp() for source in self._sources]

    def _make(self) -> None:
        """Compute all anew, and write the results at the end: other threads may read them, and most stay equal.

        At first nobody reads them, and they are computed where they stay.
        """
        last = self.nodes[-1].writes
        places = self.arrays if self._stamps is None else map(_room, last)
        arrays = self._known | {thing: _room(thing) for node in self.nodes[:-1] for thing in node.writes}
        arrays |= dict(zip(last, places, strict=True))
        environment = {value: array for value, array in arrays.items() if isinstance(value, Value)}
        binding = Binding(self._graph, self._machine, arrays.__getitem__, environment)
        for node in self.nodes:
            binding.step(node)()
            for thing in node.writes:
                if isinstance(thing, Value):  # a call made a new array
                    np.copyto(arrays[thing], environment[thing])
                    environment[thing] = arrays[thing]
        for thing, result in zip(last, self.arrays, strict=True):
            if result is not arrays[thing]:
                np.copyto(result, arrays[thing])


class Constants:
    """Those of one plan.

    Attributes:
        arrays: by Regions and Values their arrays.
    """

    def __init__(self, members: Sequence[Constant], arrays: Mapping[Thing, np.ndarray], lock: RLock) -> None:
        self.arrays = arrays
        self._members, self._lock = tuple(members), lock
        self._seen: int | None = None

    @property
    def chains(self) -> list[tuple[Node, ...]]:
        """The nodes that make each, the last its results."""
        return [constant.nodes for constant in self._members]

    def refresh(self) -> None:
        """See to it that all are up to date."""
        latest = Version.latest
        if latest != self._seen:
            with self._lock:
                settled = [constant.refresh() for constant in self._members]
            self._seen = latest if all(settled) else None

    def address(self, region: Region) -> int:
        """Return where a region begins, in floats from address 0."""
        return self.arrays[region].ctypes.data // 4


class Store:
    """The constants of all plans of a function: equal nodes on equal sources share their results."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[Any, Constant] = WeakValueDictionary()
        self._lock = RLock()

    def take_out(self, graph: Graph, nodes: Sequence[Node], machine: Any) -> tuple[Graph, Constants]:
        """Return the graph without these nodes, and their results."""
        known = versions(graph.program)
        left = tuple(node for node in graph.nodes if node not in set(nodes))
        read = (thing for node in left for thing in node.reads)
        wanted = set(map(graph.place_of, (*graph.program.outputs, *read)))
        owners: dict[Thing, tuple[Constant, int]] = {}
        arrays: dict[Thing, np.ndarray] = {value: np.zeros(value.shape, value.dtype) for value in graph.program.fixed}
        for node in nodes:
            if wanted.isdisjoint(map(graph.place_of, node.writes)):
                continue
            needed = _needed(node, nodes, owners)
            key = tuple(_key(each, needed, graph.program.fixed, owners) for each in needed)
            constant = self._known.get(key)
            if constant is None:
                reads = list(dict.fromkeys(thing for each in needed for thing in each.reads))
                sources = [known[thing] for thing in reads if thing in known]
                parents = [owners[thing][0] for thing in reads if thing in owners]
                constant = self._known[key] = Constant(needed, graph, machine, arrays, sources, parents)
            for index, (thing, array) in enumerate(zip(node.writes, constant.arrays, strict=True)):
                owners[thing], arrays[thing] = (constant, index), array
        arrays |= {value: arrays[region] for value, region in graph.regions.items() if region in arrays}
        members = list(dict.fromkeys(constant for constant, _ in owners.values()))
        regions = frozenset(thing for thing in arrays if isinstance(thing, Region))
        return replace(graph, nodes=left, constants=regions), Constants(members, arrays, self._lock)


def _needed(node: Node, nodes: Sequence[Node], owners: Collection[Thing]) -> list[Node]:
    """Return those of the nodes that make what a node reads, as far as no constant owns it, in order, and the node."""
    found, wanted = [node], {thing for thing in node.reads if thing not in owners}
    for other in reversed(nodes[: nodes.index(node)]):
        if not wanted.isdisjoint(other.writes):
            found.append(other)
            wanted.update(thing for thing in other.reads if thing not in owners)
    return found[::-1]


def _room(thing: Thing) -> np.ndarray:
    """Return an array for what a node writes."""
    if isinstance(thing, Region):
        # a tile may read some rows past the end of a weight, (outputs, ...) or (points, outputs, ...)
        row = math.prod(thing.shape[2 if len(thing.shape) in (3, 5) else 1 :])
        return aligned_zeros(thing.size + 16 * row)[: thing.size].reshape(thing.shape)
    assert isinstance(thing, Value)
    return np.zeros(thing.shape, thing.dtype)


def _key(
    node: Node, chain: Sequence[Node], fixed: Sequence[Value], owners: Mapping[Thing, tuple[Constant, int]]
) -> Any:
    """Return the same for nodes that compute the same of the same."""
    known: dict[Thing, Any] = {value: ("like", value.dtype) for value in fixed}
    for i, other in enumerate(chain):
        made = (thing for thing in other.writes if not isinstance(thing, Block))
        known |= {thing: ("made", i, k, thing.shape) for k, thing in enumerate(made)}
    known |= {thing: ("result of", id(constant), index) for thing, (constant, index) in owners.items()}
    if node.kind == "call" and node.call:
        return node.call.kernel, _part(node.call.arguments, known)
    return node.kind, *((name, _part(operand, known)) for name, operand in node.operands.items())


def _part(operand: Any, known: Mapping[Thing, Any]) -> Any:
    if isinstance(operand, list | tuple):
        return type(operand).__name__, *(_part(each, known) for each in operand)
    if isinstance(operand, Value | Region) and operand in known:
        return known[operand]
    return ("tensor", operand.shape, id(operand.array)) if isinstance(operand, Value) else repr(operand)
