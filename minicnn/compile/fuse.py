"""Fuse: from nodes to fewer nodes and fewer blocks, with the same results."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minicnn.compile.graph import Block, Graph, Node, Thing, halos


def fuse(graph: Graph, machine: Any) -> Graph:
    """Make a ReLU the floor of what is before it, and write results in the place of what is read for the last time."""
    nodes = _floors(graph.nodes, graph.layout.instructions.get("relu", "relu"))
    return replace(graph, nodes=tuple(_in_place(nodes, machine.INSTRUCTIONS)))


def _floors(nodes: Sequence[Node], relu: str) -> list[Node]:
    """Return the nodes without each ReLU that its maker can do, and without each gradient of one that a pool can do.

    A maker has a floor, and nobody else may see its result without: but for the gradient of a maximum, which only looks
    for the pixel that won.
    """
    makers = {thing: i for i, node in enumerate(nodes) for thing in node.writes}
    readers: dict[Thing, list[int]] = defaultdict(list)
    for i, node in enumerate(nodes):
        for thing in node.reads:
            readers[thing].append(i)
    fused: dict[int, Node] = dict(enumerate(nodes))

    def join(i: int, result: Block, others: Sequence[int] = ()) -> None:
        """Let the maker of ``result`` have a floor and make what node ``i`` does, and ``others`` read that."""
        y = fused.pop(i).operands["y"]
        j = makers[y] = makers[result]
        fused[j] = fused[j].exchanged(result, y, floor=max(fused[j].operands["floor"], 0.0))
        for k in others:
            fused[k] = fused[k].exchanged(result, y)

    for i, node in enumerate(nodes):
        if node.kind not in (relu, "relu_grad"):
            continue
        x = node.operands["a"]
        maker, others = fused[makers[x]], [k for k in readers[x] if k != i]
        if node.kind == relu:
            pools = all(fused[k].kind == "max_pool_grad" and fused[k].operands["y"] is x for k in others)
            if "floor" in maker.operands and pools:
                join(i, x, others)
        elif maker.kind == "max_pool_grad" and maker.operands["x"] is fused[i].operands["b"] and not others:
            join(i, x)
    return [fused[i] for i in sorted(fused)]


def _in_place(nodes: Sequence[Node], instructions: Mapping[str, Any]) -> list[Node]:
    """Return the nodes with results in the place of operands that nothing reads any more, where instructions allow.

    A block whose pixels are summed is joined with no other that needs another halo: its rows would no longer be one.
    """
    needs, summed = halos(nodes), _summed(nodes, instructions)
    place: dict[Thing, Thing] = {}  # of a result, what lies there; a reshape may leave its result where its operand is

    def root(thing: Thing) -> Thing:
        while thing in place:
            thing = place[thing]
        return thing

    for node in nodes:
        if node.kind == "reshape":
            place[node.operands["y"]] = node.operands["x"]
    last = {root(thing): i for i, node in enumerate(nodes) for thing in node.reads}
    taken: dict[Thing, Block] = {}
    done = []
    for i, node in enumerate(nodes):
        blocks = {name: taken.get(v, v) for name, v in node.operands.items() if isinstance(v, Block)}
        for result, candidates in (instructions[node.kind].results if node.kind in instructions else {}).items():
            for x in (blocks[name] for name in candidates):
                y = blocks[result]
                if last[root(x)] == i and (needs[x] == needs[y] or not summed & {x, y}):
                    needs[x] = max(needs[x][0], needs[y][0]), max(needs[x][1], needs[y][1])
                    summed |= {x} if y in summed else set()
                    last[root(x)] = last.get(root(y), i)
                    taken[y] = place[y] = blocks[result] = x
                    break
        done.append(replace(node, operands={**node.operands, **blocks}))
    return done


def _summed(nodes: Sequence[Node], instructions: Mapping[str, Any]) -> set[Thing]:
    """Return the blocks that are summed in any order of their pixels."""
    sums = {
        name
        for name, declared in instructions.items()
        if "pixels" in declared.operands.values() and "view" not in map(declared.operands.get, declared.results)
    }
    return {thing for node in nodes if node.kind in sums for thing in node.reads if isinstance(thing, Block)}
