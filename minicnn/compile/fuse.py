"""Fuse: from nodes to fewer nodes and fewer blocks, with the same results."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from minicnn.compile.graph import Block, Graph, Node, Region, Thing, halos


def fuse(graph: Graph, machine: Any, constant: Collection[Node]) -> Graph:
    """Fold batch norm into weights, make a ReLU the floor and a sum the start of what is before it, work in place.

    constant: the nodes whose results are the same in every replay, from which come the weights that are worth folding.
    """
    nodes = _floors(_folded(graph.nodes, constant))
    nodes = _apart(_in_place(_added(nodes), machine.INSTRUCTIONS))
    return replace(graph, nodes=without_unread(nodes, graph))


def without_unread(nodes: Sequence[Node], graph: Graph) -> tuple[Node, ...]:
    """Return the nodes without those that make weights which nothing reads any more."""
    kept: list[Node] = []
    wanted: set[Thing] = set(graph.program.outputs)
    for node in reversed(nodes):
        if node.kind not in _WEIGHTS or not wanted.isdisjoint(map(graph.place_of, node.writes)):
            kept.append(node)
            wanted.update(map(graph.place_of, node.reads))
    return tuple(reversed(kept))


_WEIGHTS = ("load", "filters", "packed", "affine_terms")
_PRODUCTS = ("products", "winograd", "channel_products")


def _folded(nodes: Sequence[Node], constant: Collection[Node]) -> list[Node]:
    """Return the nodes with each batch norm in the weight and the bias of the products that it alone reads.

    Where these and its terms are constant: p (W x + b) + q = (p W) x + (p b + q).
    """
    makers = {thing: node for node in nodes for thing in node.writes}
    readers = _readers(nodes)
    made: dict[Node, list[Node]] = {}  # in the place of products
    dropped = set()
    for node in nodes:
        maker = makers.get(node.operands["a"]) if node.kind in ("affine", "channel_affine") else None
        if maker is None or maker.kind not in _PRODUCTS or maker in made or maker.operands.get("adjoint"):
            continue
        weight, terms = makers[maker.operands["weight"]], makers[node.operands["terms"]]
        if len(readers[node.operands["a"]]) == 1 and weight in constant and terms in constant:
            made[maker] = _with_terms(maker, weight, makers, node)
            dropped.add(node)
    # the terms may be made after the products
    early = {terms: None for node in dropped for terms in (makers[node.operands["terms"]],)}
    first = [n for n in nodes if n in constant]
    others = [n for n in nodes if n not in constant and n not in dropped]
    if not early:
        return list(nodes)
    return first + [n for node in others for n in made.get(node, [node])]


def _with_terms(products: Node, weight: Node, makers: Mapping[Thing, Node], norm: Node) -> list[Node]:
    """Return products with a batch norm behind them, and before them what makes the weight and the bias of both."""
    source, terms = weight.operands["source"], norm.operands["terms"]
    packed = weight.kind == "packed"
    bias = weight.operands["bias"] if packed else products.operands["bias"]
    if isinstance(bias, Region):
        bias = makers[bias].operands["source"]

    def call(kind: str, **operands: Any) -> Node:
        return Node(kind, operands, ("region",), norm.call)

    outputs = source.shape[0]
    scaled, shifted = Region(source.shape), Region((outputs,))
    before = [
        call("scaled", source=source, terms=terms, region=scaled),
        call("shifted", source=bias, terms=terms, region=shifted),
    ]
    floor = {"floor": norm.operands["floor"]}
    if weight.kind == "load":
        folded = products.exchanged(products.operands["weight"], scaled, bias=shifted, **floor)
    else:
        region = Region(weight.operands["region"].shape)
        options = {"bias": shifted} if packed else {}
        before.append(replace(weight, operands={**weight.operands, "source": scaled, "region": region, **options}))
        folded = products.exchanged(
            products.operands["weight"], region, **floor, **({} if packed else {"bias": shifted})
        )
    return [*before, folded.exchanged(products.operands["y"], norm.operands["y"])]


def _added(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with each addition in the products that make one of its operands, and the later one."""
    places = {thing: i for i, node in enumerate(nodes) for thing in node.writes}
    readers, done = _readers(nodes), dict(enumerate(nodes))
    for i, node in enumerate(nodes):
        if node.kind != "add" or node.operands["a"] is node.operands["b"]:
            continue
        other, x = sorted((node.operands["a"], node.operands["b"]), key=places.__getitem__)
        products = done.get(places[x])
        if products is None or products.kind != "channel_products" or len(readers[x]) > 1:
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

    A maker has a floor, and nobody else may see its result without: but for the gradient of a maximum, which only looks
    for the pixel that won.
    """
    makers = {thing: i for i, node in enumerate(nodes) for thing in node.writes}
    readers = _readers(nodes)
    fused: dict[int, Node] = dict(enumerate(nodes))

    def join(i: int, result: Block, others: Sequence[int] = ()) -> None:
        """Let the maker of ``result`` have a floor and make what node ``i`` does, and ``others`` read that."""
        y = fused.pop(i).operands["y"]
        j = makers[y] = makers[result]
        fused[j] = fused[j].exchanged(result, y, floor=max(fused[j].operands["floor"], 0.0))
        for k in others:
            fused[k] = fused[k].exchanged(result, y)

    for i, node in enumerate(nodes):
        if node.kind not in ("relu", "relu_grad"):
            continue
        x = node.operands["a"]
        maker, others = fused[makers[x]], [k for k in readers[x] if k != i]
        if node.kind == "relu":
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
