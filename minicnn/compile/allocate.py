"""Allocate: give everything a place in one memory: what is not used at the same time may have the same.

The memory begins with zeros, for absent biases; then come regions and the blocks that outlive a phase, then the scratch
of each thread, for the blocks that do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minicnn.compile import amx, matrices
from minicnn.compile.graph import Block, Graph, Node, Region, Thing, halos
from minicnn.compile.planes import rows_of_tiles
from minicnn.compile.schedule import Schedule

_WHOLE = ("amx_sums", "matrices", "wide_products")
"""Products that are made for all blocks at once, by any number of threads, and use their scratch."""


class Place(NamedTuple):
    """Where a thing begins, and how far the next block of it is; step -1: in the scratch of each thread."""

    at: int
    step: int = 0


@dataclass(frozen=True)
class Allocation:
    """The places of all things, and what they need.

    Attributes:
        lanes: images a block.
        places: where each thing lies, those of ``shared`` too.
        shared: the result of a reshape that moves nothing -> the block that it is.
        halos: of blocks, the rows and columns of zeros around their channels; (0, 0) where there is none.
        work: where the scratch of an instruction begins in that of its thread.
        room: floats of scratch a thread.
        length: floats in all.
        zeros: floats at the beginning that are 0, for absent biases.
    """

    lanes: int
    places: Mapping[Thing, Place]
    shared: Mapping[Block, Block]
    halos: Mapping[Block, tuple[int, int]]
    work: int
    room: int
    length: int
    zeros: int

    def plane(self, block: Block) -> int:
        """Return how far the channels of a block are apart."""
        return (block.height + 2 * self.halos[block][0]) * self.row(block)

    def row(self, block: Block) -> int:
        """Return how far the rows of a block are apart."""
        return (block.width + 2 * self.halos[block][1]) * self.lanes

    def view(self, block: Block, size: tuple[int, int, int] | None = None) -> tuple[int, int, int, int]:
        """Return first pixel, step, plane and row of a block, or of a block of ``size`` without halo in its place."""
        at, step = self.places[block]
        if size is not None:
            return at, step, size[1] * size[2] * self.lanes, size[2] * self.lanes
        high, wide = self.halos[block]
        return at + high * self.row(block) + wide * self.lanes, step, self.plane(block), self.row(block)


def strip(edge: int, x: Block, y: Block) -> int:
    """Return how many tiles Winograd's convolution works on at a time: few enough for the cache."""
    return 12 if edge == 2 and x.height * x.width > 16 and x.channels + y.channels <= 512 else 4


def allocate(phases: Schedule, graph: Graph, machine: Any) -> tuple[Schedule, Allocation]:
    """Return the phases without reshapes, and where everything lies."""
    allocation = Allocation(graph.layout.lanes, {}, {}, halos(node for nodes in phases for node in nodes), 0, 0, 0, 0)
    phases, shared = _placed_reshapes(phases, graph, allocation.halos)
    users: dict[Thing, list[int]] = defaultdict(list)  # the moments at which a thing is used: calls have each their own
    lines: dict[Thing, list[int]] = defaultdict(list)  # and at which nodes
    moment = line = 0
    for phase, nodes in enumerate(phases):
        for node in nodes:
            moment += phase % 2 == 0 or node is nodes[0]
            line += 1
            for thing in (*node.reads, *node.writes):
                place = shared.get(thing, thing) if isinstance(thing, Block) else graph.place_of(thing)
                users[place].append(moment)
                lines[place].append(line)
    outputs = [v for output in graph.program.outputs for v in (output, *graph.sees.get(output, ()))]
    for value in outputs:
        users[graph.place_of(value)].append(moment + 1)
    blocks = [thing for thing in users if isinstance(thing, Block)]
    regions = [thing for thing in users if isinstance(thing, Region) and thing not in graph.constants]
    sizes = _sizes(phases, blocks, regions, graph, allocation, machine)
    start = machine.up(max((b.channels for b in blocks), default=0) * machine.LANES + 64, 16)
    main, scratch = _Packing(start), _Packing(0)
    places: dict[Thing, Place] = {}
    alone = {block for block in blocks if min(users[block]) == max(users[block]) and not graph.layout.is_shared}
    for thing in sorted(sizes, key=sizes.__getitem__, reverse=True):
        size, first, last = sizes[thing], min(users[thing]), max(users[thing])
        if not isinstance(thing, Block):
            places[thing] = Place(main.place(size, first, last))
            continue
        if thing in alone:
            places[thing] = Place(scratch.place(size, min(lines[thing]), max(lines[thing])), -1)
        else:
            places[thing] = Place(main.place(size * graph.count, first, last), size)
    for block in alone:
        places[block] = Place(main.end + places[block].at, -1)
    places |= {block: places[other] for block, other in shared.items()}
    room = scratch.end + max([64 * machine.LANES, *_works(phases, machine)])
    # a tile may read some rows past the end of a weight or of a block
    margin = 16 * max([64, *(r.size // r.shape[0] for r in regions), *map(allocation.plane, blocks)])
    whole = any(node.kind in _WHOLE for nodes in phases for node in nodes)
    threads = machine.PARTS if graph.layout.is_shared or whole else min(graph.count, machine.PARTS)
    length = main.end + room * threads + margin
    work = main.end + scratch.end
    return phases, replace(allocation, places=places, shared=shared, work=work, room=room, length=length, zeros=start)


class _Packing:
    """Places in one memory from ``start`` on."""

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self._taken: list[tuple[int, int, int, int]] = []

    def place(self, size: int, first: int, last: int) -> int:
        """Return where ``size`` elements lie that are used from ``first`` to ``last``."""
        at = self.start
        for begin, end, since, until in sorted(self._taken):
            if since <= last and first <= until:
                if at + size <= begin:
                    break
                at = max(at, end)
        self._taken.append((at, at + size, first, last))
        self.end = max(self.end, at + size)
        return at


def _placed_reshapes(
    phases: Schedule, graph: Graph, needs: Mapping[Block, tuple[int, int]]
) -> tuple[Schedule, dict[Block, Block]]:
    """Return the phases without reshapes, and by results of those that move nothing the blocks that they are."""
    shared: dict[Block, Block] = {}
    done: list[tuple[Node, ...]] = []
    for nodes in phases:
        moved: list[Node] = []
        for node in nodes:
            if node.kind != "reshape":
                moved.append(node)
            elif needs[node.operands["x"]] == needs[node.operands["y"]] == (0, 0):
                x = node.operands["x"]
                shared[node.operands["y"]] = shared.get(x, x)
            else:
                moved += _moves(node, needs)
        done.append(tuple(moved))
    return tuple(done), shared


def _moves(node: Node, needs: Mapping[Block, tuple[int, int]]) -> list[Node]:
    """Return what a reshape is where a block has a halo: a copy, or two where both have one."""
    x, y = node.operands["x"], node.operands["y"]
    if needs[x] != (0, 0) and needs[y] != (0, 0):
        middle = Block(*y.size)
        return [replace(node, kind="copy", operands={"a": a, "y": b}) for a, b in ((x, middle), (middle, y))]
    return [replace(node, kind="copy", operands={"a": x, "y": y})]


def _sizes(
    phases: Schedule,
    blocks: Iterable[Block],
    regions: Iterable[Region],
    graph: Graph,
    allocation: Allocation,
    machine: Any,
) -> dict[Thing, int]:
    """Return the room that each thing takes, a block of images each, with the rows that tiles write past its end."""
    overshot = {node.operands["region"] for nodes in phases for node in nodes if node.kind == "matrix"}
    sizes: dict[Thing, int] = {}
    for region in regions:
        rows = machine.TILES[0][0] * region.size // region.shape[0] if region in overshot else 0
        sizes[region] = machine.up(region.length + rows, 16)
    for block in blocks:
        multiple = (
            1 if graph.layout.is_shared else machine.tile_for(block.channels, single=block.height * block.width == 1)[1]
        )
        planes = (block.points - 1) * block.channels + machine.up(block.channels, multiple)
        high, wide = allocation.halos[block]  # the zeros behind the last plane are those before a next
        behind = high * allocation.row(block) + wide * allocation.lanes
        sizes[block] = machine.up(planes * allocation.plane(block) + behind, 16)
    return sizes


def _works(phases: Schedule, machine: Any) -> Iterable[int]:
    """Yield the scratch that nodes need beside their blocks."""
    lanes = machine.LANES
    for nodes in phases:
        for node in nodes:
            if node.kind == "amx_sums":
                yield amx.work(machine, node.operands["region"])
            elif node.kind.startswith("amx"):
                yield 4 * machine.REGISTER
            elif node.kind == "channel_winograd":
                x, y, edge = node.operands["x"], node.operands["y"], node.operands["edge"]
                tiles = rows_of_tiles(y, edge) * y.tiles(edge)[1]
                yield (edge + 2) ** 2 * (
                    lanes * tiles * (x.channels + y.channels) + 2 * machine.POINTS_APART
                ) + edge**2 * lanes
            elif node.kind in _WHOLE:
                yield matrices.work(machine, node)
            elif node.kind == "attention_grad":
                yield node.operands["weights"].height * node.operands["weights"].width * lanes
            elif node.kind == "winograd_operands":
                yield (node.operands["edge"] + 2) ** 2 * lanes * lanes
            elif node.kind.startswith("winograd"):
                x, y = node.operands["x"], node.operands.get("y") or node.operands["gy"]
                edge = node.operands["edge"]
                yield (edge + 2) ** 2 * lanes * strip(edge, x, y) * (x.channels + y.channels + 2 * lanes)
