"""Fuse: from nodes to fewer nodes and fewer blocks, with the same results."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minicnn.compile.graph import Block, Graph, Node, Region, Thing, halos
from minicnn.compile.program import Value


def fold(graph: Graph, constant: Collection[Node]) -> Graph:
    """Fold batch norm into weights.

    constant: the nodes whose results are the same in every replay, from which come the weights that are worth folding.
    """
    return replace(graph, nodes=tuple(_folded(graph.nodes, constant)))


def fuse(graph: Graph, machine: Any, constant: Collection[Node]) -> Graph:
    """Make a ReLU the floor and a sum the start of what is before it, a batch norm a part of the GELU behind it.

    Make pairs of bfloat16 where their numbers are made, transform filters in products, and work in place.

    constant: the nodes whose results are the same in every replay.
    """
    nodes = _paired(_normed(_floors(_transformed_there(graph, constant))))
    nodes = _apart(_in_place(_added(nodes), machine.INSTRUCTIONS))
    return replace(graph, nodes=without_unread(nodes, graph))


def _transformed_there(graph: Graph, constant: Collection[Node]) -> list[Node]:
    """Return the nodes with the transform of a filter in the products for all blocks, unless it is constant.

    They make it for some rows at a time, which stay in the cache. A weight that is rounded is rounded there too: an
    edit between the rounding and the products would have raised while the function was recorded.
    """
    makers = {thing: node for node in graph.nodes for thing in node.writes}
    readers = _readers(graph.nodes)
    changed: dict[Node, Node] = {}
    gone = set()
    for node in graph.nodes:
        filters = makers[node.operands["weight"]] if node.kind == "wide_products" else None
        if filters is None or filters in constant or len(readers[node.operands["weight"]]) > 1:
            continue
        source = filters.operands["source"]
        call = source.call if isinstance(source, Value) else None
        rounded = False
        if call is not None and call.kernel == "bfloat16":
            source, rounded = call.arguments[0], True
        if isinstance(source, Region) or _stays(source, graph):
            operands = {**node.operands, "weight": source, "adjoint": filters.operands["adjoint"], "rounded": rounded}
            changed[node] = replace(node, operands=operands, sees=(*node.sees, *filters.sees))
            gone.add(filters)
    return [changed.get(node, node) for node in graph.nodes if node not in gone]


def _stays(value: Value, graph: Graph) -> bool:
    """Whether a value is an array that is the same in every replay, where machine code may read it."""
    if value.call is not None or value in graph.program.inputs or not isinstance(value.array, np.ndarray):
        return False
    return value.array.flags.c_contiguous and value.array.flags.aligned


def without_unread(nodes: Sequence[Node], graph: Graph) -> tuple[Node, ...]:
    """Return the nodes without those that make weights which nothing reads any more."""
    kept: list[Node] = []
    wanted: set[Thing] = set(graph.program.outputs)
    for node in reversed(nodes):
        is_rounded = node.kind == "call" and node.call is not None and node.call.kernel == "bfloat16"
        if not (node.kind in _WEIGHTS or is_rounded) or not wanted.isdisjoint(map(graph.place_of, node.writes)):
            kept.append(node)
            wanted.update(map(graph.place_of, node.reads))
    return tuple(reversed(kept))


_WEIGHTS = ("load", "filters", "packed", "affine_terms")
_SUMS = ("products", "winograd", "gather_rows", "channel_products", "channel_winograd", "gather_tiles")
"""What ends with a bias and a floor: products, or what brings them back from the points of a transform."""


def _folded(nodes: Sequence[Node], constant: Collection[Node]) -> list[Node]:
    """Return the nodes with each batch norm in the weight and the bias of the products that it alone reads.

    Where these and its terms are constant: p (W x + b) + q = (p W) x + (p b + q).
    """
    makers = {thing: node for node in nodes for thing in node.writes}
    readers = _readers(nodes)
    before = [node for node in nodes if node in constant]
    changed: dict[Node, Node | None] = dict.fromkeys(before)
    for norm in nodes:
        if norm.kind not in ("affine", "channel_affine"):
            continue
        x = norm.operands["a"]
        last = makers.get(x)
        if last is None or last.kind not in _SUMS or len(readers[x]) > 1:
            continue
        products = last if "weight" in last.operands else makers[last.operands["x"]]
        weight = products.operands["weight"]
        chain = [makers[weight]]
        while isinstance(chain[0].operands["source"], Region):
            chain.insert(0, makers[chain[0].operands["source"]])
        turned = any(node.operands.get("adjoint") or node.kind == "swapped" for node in (products, *chain))
        if turned or not {*chain, makers[norm.operands["terms"]]} <= set(constant):
            continue
        made, scaled, shifted = _with_norm(chain, last, norm, makers)
        before += made
        ends = {"floor": norm.operands["floor"]} | ({"bias": shifted} if "bias" in last.operands else {})
        changed[norm] = None
        changed[products] = products.exchanged(weight, scaled)
        changed[last] = (changed.get(last) or last).exchanged(x, norm.operands["y"], **ends)
    return [*before, *(node for node in (changed.get(node, node) for node in nodes) if node)]


def _with_norm(
    chain: Sequence[Node], last: Node, norm: Node, makers: Mapping[Thing, Node]
) -> tuple[list[Node], Region, Region]:
    """Return nodes that make a weight and a bias with a batch norm in them, and where they are.

    chain: what makes the weight, the first from a tensor; last: what adds the bias, unless that is packed with it.
    """
    source, terms = chain[0].operands["source"], norm.operands["terms"]
    outputs, is_packed = source.shape[0], "bias" not in last.operands
    bias = (chain[-1] if is_packed else last).operands["bias"]
    weight, shifted = Region(source.shape), Region((outputs if is_packed else terms.shape[1],))

    def call(kind: str, **operands: Any) -> Node:
        return Node(kind, operands | {"terms": terms}, ("region",), norm.call)

    made = [
        call("scaled", source=source, region=weight),
        call("shifted", source=makers[bias].operands["source"] if isinstance(bias, Region) else bias, outputs=outputs,
             region=shifted),
    ]  # fmt: skip
    for node in chain:
        if node.kind != "load":
            operands = {**node.operands, "source": weight, "region": Region(node.operands["region"].shape)}
            if is_packed and node.kind == "packed":
                operands["bias"] = shifted
            made.append(replace(node, operands=operands))
            weight = operands["region"]
    return made, weight, shifted


def _added(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with each addition in the products that make one of its operands, the later one.

    The sum is made in the place of the other, which must be nothing that these products read.
    """
    places = {thing: i for i, node in enumerate(nodes) for thing in node.writes}
    readers, done = _readers(nodes), dict(enumerate(nodes))
    for i, node in enumerate(nodes):
        if node.kind != "add" or node.operands["a"] is node.operands["b"]:
            continue
        other, x = sorted((node.operands["a"], node.operands["b"]), key=places.__getitem__)
        products = done.get(places[x])
        if products is None or products.kind not in _SUMS[-3:] or len(readers[x]) > 1 or other in products.reads:
            continue
        if products.operands["added"] is None and products.operands["floor"] == -math.inf:
            y = done.pop(i).operands["y"]
            done[places[x]] = products.exchanged(x, y, added=other, floor=node.operands["floor"])
            places[y] = places[x]
    return [done[i] for i in sorted(done)]


def _apart(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with additions of their own again where the sum could not be made in the place of a summand."""
    done = []
    for node in nodes:
        added = node.operands.get("added")
        if added is None or added is node.operands["y"]:
            done.append(node)
        else:
            y, floor = node.operands["y"], node.operands["floor"]
            done.append(node.exchanged(added, added, added=None, floor=-math.inf))
            done.append(Node("add", {"a": y, "b": added, "floor": floor, "y": y}, ("y",), node.call))
    return done


def _readers(nodes: Sequence[Node]) -> dict[Thing, list[int]]:
    readers: dict[Thing, list[int]] = defaultdict(list)
    for i, node in enumerate(nodes):
        for thing in node.reads:
            readers[thing].append(i)
    return readers


def _floors(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes without each ReLU that its maker can do, and without each gradient of one that a pool can do.

    A maker has a floor, and nobody else may see its result without it. Where its floor won, a pool's tap is -1, so that
    its gradient is 0 there, as that of the ReLU before it would be; so all its gradients must come through a ReLU.
    """
    makers = {thing: i for i, node in enumerate(nodes) for thing in node.writes}
    readers = _readers(nodes)
    fused: dict[int, Node] = dict(enumerate(nodes))
    for i, node in enumerate(nodes):
        if node.kind not in ("relu", "relu_grad") or len(readers[node.operands["a"]]) > 1:
            continue
        x, y = node.operands["a"], node.operands["y"]
        floored = j = makers[x]
        if node.kind == "relu_grad":
            if fused[j].kind != "max_pool_grad":
                continue
            taps = fused[j].operands["taps"]
            floored = makers[taps]
            if fused[floored].operands["x"] is not node.operands["b"] or len(readers[taps]) > 1:
                continue
        elif "floor" not in fused[j].operands:
            continue
        elif fused[j].kind == "max_pool_and_taps":
            gradients = (nodes[makers[nodes[k].operands["gy"]]] for k in readers[fused[j].operands["taps"]])
            if not all(gy.kind == "relu_grad" and gy.operands["b"] is y for gy in gradients):
                continue
        del fused[i]
        makers[y] = j
        fused[j] = fused[j].exchanged(x, y)
        fused[floored] = fused[floored].exchanged(x, y, floor=max(fused[floored].operands["floor"], 0.0))
    return [fused[i] for i in sorted(fused)]


def _normed(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with each batch norm in the GELU that alone reads it, where lanes are images."""
    makers = {thing: i for i, node in enumerate(nodes) for thing in node.writes}
    readers, fused = _readers(nodes), dict(enumerate(nodes))
    for i, node in enumerate(nodes):
        if node.kind not in ("gelu", "gelu_and_slope"):
            continue
        x: Block = node.operands["a"]
        norm = fused[makers[x]]
        if norm.kind == "affine" and norm.operands["floor"] == -math.inf and len(readers[x]) == 1:
            del fused[makers[x]]
            fused[i] = node.exchanged(x, norm.operands["a"], terms=norm.operands["terms"])
    return [fused[i] for i in sorted(fused)]


_PAIRING = {"gelu_and_slope": "y", "max_pool_grad": "gx", "norm_grad": "y"}
"""Instructions that have a form that makes pairs, with the result that is pairs then."""


def _paired(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with pairs of bfloat16 made by what makes their numbers, where nobody else reads these."""
    makers = {thing: i for i, node in enumerate(nodes) for thing in node.writes}
    readers, fused = _readers(nodes), dict(enumerate(nodes))
    for i, node in enumerate(nodes):
        if node.kind != "pair":
            continue
        x: Block = node.operands["x"]
        maker = fused[makers[x]]
        is_made = maker.kind in _PAIRING and maker.operands[_PAIRING[maker.kind]] == x
        overlap = maker.kind == "max_pool_grad" and maker.operands["window"] != maker.operands["stride"]
        if not is_made or overlap or x.channels % 2 or len(readers[x]) > 1:
            continue
        del fused[i]
        operands = {"planes": node.operands["planes"], "size": maker.operands.get("size", x.size)}
        maker = maker.exchanged(x, node.operands["y"], **operands)
        fused[makers[x]] = replace(maker, kind=f"{maker.kind}_and_pair")
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
            for x in (blocks[name] for name in candidates if name in blocks):
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
