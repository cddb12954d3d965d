"""Schedule: put the nodes into phases, and make anew what is cheaper to make than to keep.

Even phases are calls from Python, one by one; odd ones are programs of the machine, each of which takes a block of
images through all its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minicnn.compile.graph import Block, Graph, Node, Thing
from minicnn.compile.program import Value

Schedule = tuple[tuple[Node, ...], ...]
"""The nodes of each phase, in order."""

_CHEAP = ("affine", "dropout", "round_to_bfloat16")
"""Instructions of one pass over what they read."""
_TRANSFORMS = ("spread_rows", "gather_rows_grad")
"""Instructions that make more than they read."""


def schedule(graph: Graph, machine: Any) -> Schedule:
    """Put each node into the first phase in which what it needs is there."""
    phases: dict[Node, int] = {}
    ready: dict[Thing, int] = {}  # the phase that makes a thing, or last edits it
    used: dict[Thing, int] = {}  # the last phase that reads it
    for node in graph.nodes:
        odd = node.kind in machine.INSTRUCTIONS or node.kind == "reshape"
        reads, writes = ([graph.place_of(thing) for thing in things] for things in (node.reads, node.writes))
        before = [ready[r] for r in reads if r in ready]
        before += [max(ready.get(w, 0), used.get(w, 0)) for w in writes if w in ready or w in used]
        phases[node] = max([int(odd), *(p if p % 2 == odd else p + 1 for p in before)])
        used.update((r, max(used.get(r, 0), phases[node])) for r in reads)
        ready.update((w, phases[node]) for w in writes)
    nodes = _postponed(graph.nodes, phases)
    ordered = [[n for n in nodes if phases[n] == phase] for phase in range(max(phases.values(), default=0) + 1)]
    return tuple(tuple(_joined_steps(graph, _joined_sums(graph, members))) for members in ordered)


def _postponed(nodes: Sequence[Node], phases: dict[Node, int]) -> list[Node]:
    """Make what a convolution needs of its weight just before it: together these are larger than all weights."""
    order = list(nodes)
    for node in [n for n in nodes if n.kind in ("filters", "in_registers", "paired", "swapped")]:
        (filters,), index = node.writes, order.index(node)
        later = [n for n in order[index + 1 :] if filters in n.reads or any(w in n.writes for w in node.reads)]
        phases[node] = min(phases[n] - phases[n] % 2 for n in later)  # the calls before a program, or among calls
        order.remove(node)
        order.insert(order.index(later[0]), node)
    return order


def _joined_sums(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """Make one call, the first of a phase, of its copies of tensors and its sums over parts of the batch."""
    edited = {value.memory for node in nodes for value in node.writes if isinstance(value, Value)}

    def joins(node: Node) -> bool:
        if node.kind == "reduce":
            return True
        source = node.operands["source"] if node.kind == "load" else None
        if not isinstance(source, Value) or source.call or source in graph.program.inputs or source.memory in edited:
            return False
        same = source.shape == node.operands["region"].shape
        flags = source.array.flags
        return same and source.array.dtype == np.float32 and flags.c_contiguous and flags.aligned

    joined = [node for node in nodes if joins(node)]
    if not joined:
        return list(nodes)
    operands: dict[str, Any] = {"sources": [], "regions": [], "calls": []}
    for node in joined:
        operands["sources"].append(node.operands["source" if node.kind == "load" else "partial"])
        operands["regions"].append(node.operands["region"])
        operands["calls"].append(node.call)
    first = replace(joined[0], kind="sums", operands=operands, results=("regions",))
    return [first, *(node for node in nodes if node not in joined)]


def _joined_steps(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """Make one call of the steps that SGD takes one after the other, where its gradients lie in the plan's memory."""
    done: list[Node] = []
    for node in nodes:
        call = node.call
        if node.kind == "call" and call is not None and call.kernel == "sgd_step":
            states = [v.array for v in call.reads() if v.call is None]
            flat = all(a.dtype == np.float32 and a.flags.c_contiguous for a in states)
            if flat and call.arguments[1] in graph.regions:
                node = replace(node, kind="sgd_steps", operands={**node.operands, "calls": [call]})
                before = done[-1] if done else None
                if before and before.kind == "sgd_steps" and _nesterov(before) == _nesterov(node):
                    joined = {name: [*before.operands[name], *node.operands[name]] for name in node.operands}
                    done[-1] = replace(before, operands=joined, sees=(*before.sees, *node.sees))
                    continue
        done.append(node)
    return done


def _nesterov(node: Node) -> bool:
    return bool(node.operands["calls"][0].arguments[-1])


def rematerialise(phases: Schedule) -> Schedule:
    """Make anew, in every phase that needs it, what is cheaper to make than to keep.

    Batch norm, dropout, rounding and what is added, if what they are made of is kept anyway; the points of a
    transform, which are twice as many numbers as are transformed. Where it is not needed at first, it is not made then.
    """
    result = [list(nodes) for nodes in phases]
    kinds: dict[Block, str] = {}  # of what makes each block first
    for node in (node for nodes in phases for node in nodes):
        if "y" in node.results and isinstance(node.operands["y"], Block):
            kinds.setdefault(node.operands["y"], node.kind)
    place = _places(phases)
    found = [y for y, kind in kinds.items() if kind in (*_CHEAP, *_TRANSFORMS)]
    # first what rounding makes of a block: while that is not made anew itself, it is seen to be there in later phases
    for y in sorted(found, key=lambda y: kinds[y] != "round_to_bfloat16"):
        order = [(phase, n) for phase, nodes in enumerate(result) for n in nodes]
        makers = [(phase, n) for phase, n in order if y in n.writes]
        home = makers[0][0]
        if any(phase != home or n.kind not in ("add", "round_to_bfloat16") for phase, n in makers[1:]):
            continue
        sources = {place(t) for _, n in makers for t in n.reads if isinstance(t, Block) and t is not y}
        kept = min(max(phase for phase, n in order if source in map(place, n.reads)) for source in sources)
        later = sorted({phase for phase, n in order if y in n.reads} - {home})
        if _are_edited(sources, makers, order, place) or (kinds[y] in _CHEAP and later and later[-1] > kept):
            continue
        for phase in later:
            again = replace(y)
            nodes = [n.exchanged(y, again) for n in result[phase]]
            first = next(i for i, n in enumerate(nodes) if again in n.reads)
            nodes[first:first] = [n.exchanged(y, again) for _, n in makers]
            result[phase] = nodes
        if later and not any(y in n.reads for n in result[home] if (home, n) not in makers):
            result[home] = [n for n in result[home] if (home, n) not in makers]
    return tuple(map(tuple, result))


def _places(phases: Schedule) -> Callable[[Thing], Thing]:
    """Return a function from a thing to the one that lies in its place: of a reshape's result, what it reshapes."""
    origins = {n.operands["y"]: n.operands["x"] for nodes in phases for n in nodes if n.kind == "reshape"}

    def place(thing: Thing) -> Thing:
        while isinstance(thing, Block) and thing in origins:
            thing = origins[thing]
        return thing

    return place


def _are_edited(
    sources: set[Thing],
    makers: Sequence[tuple[int, Node]],
    order: Sequence[tuple[int, Node]],
    place: Callable[[Thing], Thing],
) -> bool:
    """Whether a node behind the first that reads them writes to the places of sources of the makers."""
    return any(
        source in map(place, n.writes)
        for maker in makers
        for source in sources.intersection(map(place, maker[1].reads))
        for _, n in order[order.index(maker) + 1 :]
        if n.kind != "reshape"
    )
