"""Lay out: order the nodes, and give everything its place in one memory."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from minicnn.backend import package
from minicnn.compile.lower import Block, Node, Region
from minicnn.compile.program import Program, Value
from minicnn.compile.rules import lower

_FEW = 4
"""Images up to which a prediction takes them one by one, with vectors along the rows ..."""
_HEAVY = {"conv2d", "linear", "conv2d_grad_input", "conv2d_grad_weight", "linear_grad_input", "linear_grad_weight"}
"""... if that leaves none of these to calls."""
_TRANSFORMS = ("spread_rows", "gather_rows_grad")
"""Instructions that make more than they read."""


class _Packing:
    """Places in one memory: what is not used at the same time may have the same.

    frames: place and size of what holds zeros from the beginning.
    """

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self._taken: list[tuple[int, int, float, float]] = []
        self._framed: dict[Any, list[tuple[int, list[tuple[int, int]]]]] = {}
        self.frames: list[tuple[int, int]] = []

    def place(self, size: int, first: int, last: int, frame: Any = None) -> int:
        """Return where ``size`` elements lie that are used from ``first`` to ``last``.

        frame: sizes of a block with zeros around it, which are written once and for all: its place is shared by blocks
        with the same frame alone.
        """
        if frame is None:
            return self._free(size, first, last)
        places = self._framed.setdefault(frame, [])
        for at, uses in places:
            if all(last < since or until < first for since, until in uses):
                uses.append((first, last))
                return at
        places.append((self._free(size, -math.inf, math.inf), [(first, last)]))
        self.frames.append((places[-1][0], size))
        return places[-1][0]

    def _free(self, size: int, first: float, last: float) -> int:
        at = self.start
        for begin, end, since, until in sorted(self._taken):
            if since <= last and first <= until:
                if at + size <= begin:
                    break
                at = max(at, end)
        self._taken.append((at, at + size, first, last))
        self.end = max(self.end, at + size)
        return at


def _is_plain(array: Any) -> bool:
    return array.dtype == np.float32 and array.flags.c_contiguous


def _with(node: Node, thing: Any, other: Any) -> Node:
    """Return ``node`` with ``other`` in place of ``thing``."""
    reads, writes = ([other if t is thing else t for t in things] for things in (node.reads, node.writes))
    return replace(
        node,
        reads=reads,
        writes=writes,
        options={key: other if value is thing else value for key, value in node.options.items()},
    )


class Layout:
    """The nodes of a program in phases, and a memory for their blocks and regions.

    Attributes:
        nodes: in recorded order, each with its phase.
        memory: float32: zeros for absent biases, regions, blocks that outlive a phase, scratch of every thread.
        room: floats of scratch a thread.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.machine = package("numpy").machine
        self.batch = program.batch
        lowering = lower(program, self.machine, self.machine.LANES)
        if self.batch <= _FEW:
            single = lower(program, self.machine, 1)
            if not any(node.kind == "call" and node.options["call"].kernel in _HEAVY for node in single.nodes):
                lowering = single
        self.lanes, self.count = lowering.lanes, lowering.count
        self.nodes = lowering.nodes
        self.regions = lowering.regions
        self.direct = lowering.images, lowering.labels
        self._overshot = {node.options["region"] for node in self.nodes if node.kind == "matrix"}
        self._see_through()
        self._schedule()
        self._postpone()
        self._join_steps()
        self._compute_again()
        self._allocate()

    # Order

    def _see_through(self) -> None:
        """What reads a view that a call has made (a reshape, a slice) reads what is seen there, too."""
        self.seen: dict[Any, list[Value]] = {}
        for node in self.nodes:
            node.reads = [*node.reads, *(value for thing in node.reads for value in self.seen.get(thing, []))]
            if node.kind == "call":
                values = [thing for thing in node.reads if isinstance(thing, Value)]
                for output in node.options["call"].outputs:
                    self.seen[output] = [v for v in values if np.may_share_memory(v.array, output.array)]

    def _schedule(self) -> None:
        """Even phases are calls from Python, odd ones programs of the machine; a node goes into the first it can."""
        ready: dict[Any, int] = {}  # the phase that makes a thing, or last edits it
        used: dict[Any, int] = {}  # the last phase that reads it
        for node in self.nodes:
            odd = node.kind in self.machine.OPERATIONS or node.kind == "reshape"
            before = [ready[r] for r in node.reads if r in ready]
            before += [max(ready.get(w, 0), used.get(w, 0)) for w in node.writes if w in ready or w in used]
            node.phase = max([int(odd), *(p if p % 2 == odd else p + 1 for p in before)])
            for r in node.reads:
                used[r] = max(used.get(r, 0), node.phase)
            for w in node.writes:
                ready[w] = node.phase

    def _postpone(self) -> None:
        """Make the filters of a Winograd convolution just before it: they are larger than all weights."""
        for node in [n for n in self.nodes if n.kind == "filters"]:
            (filters,), index = node.writes, self.nodes.index(node)
            later = [n for n in self.nodes[index + 1 :] if filters in n.reads or any(w in n.writes for w in node.reads)]
            node.phase = min(n.phase - (filters in n.reads) for n in later)
            self.nodes.remove(node)
            self.nodes.insert(self.nodes.index(later[0]), node)

    def _join_steps(self) -> None:
        """Make one call of the steps that SGD takes in a phase, where its gradients lie in this memory."""
        nodes: list[Node] = []
        joined: dict[tuple[int, bool], Node] = {}
        for node in self.nodes:
            call = node.options.get("call")
            if call is None or call.kernel != "sgd_step":
                joined = {}
            elif call.arguments[1] in self.regions and all(_is_plain(v.array) for v in call.reads() if v.call is None):
                key = node.phase, call.arguments[-1]
                if key in joined:
                    joined[key].reads += node.reads
                    joined[key].writes += node.writes
                    joined[key].options["calls"].append(call)
                    continue
                node = joined[key] = Node("sgd_steps", node.reads, node.writes, {"calls": [call]}, node.phase)
            nodes.append(node)
        self.nodes = nodes

    def _compute_again(self) -> None:
        """Make in every phase that needs it anew what is cheaper to make than to keep.

        Batch norm and what is added to it, if what they are made of is kept anyway; the points of a transform, which
        are twice as many numbers as are transformed.
        """
        for y in [n.options["y"] for n in self.nodes if n.kind in ("affine", *_TRANSFORMS)]:
            makers = [n for n in self.nodes if y in n.writes]
            first, *more = makers
            added = all(n.kind == "add" and n.phase == first.phase for n in more)
            if first.kind not in ("affine", *_TRANSFORMS) or not added:
                continue
            reads = [(n, thing) for n in makers for thing in n.reads if isinstance(thing, Block) and thing is not y]
            sources = {thing for _, thing in reads}
            kept = min(max(n.phase for n in self.nodes if source in n.reads) for source in sources)
            edited = any(source in n.writes for m, source in reads for n in self.nodes[self.nodes.index(m) + 1 :])
            phases = sorted({n.phase for n in self.nodes if y in n.reads} - {first.phase})
            if edited or (first.kind == "affine" and phases and phases[-1] > kept):
                continue
            for phase in phases:
                users = [n for n in self.nodes if n.phase == phase and y in n.reads]
                again = replace(y)
                place = self.nodes.index(users[0])
                self.nodes[place:place] = [_with(replace(n, phase=phase), y, again) for n in makers]
                for user in users:
                    self.nodes[self.nodes.index(user)] = _with(user, y, again)

    # Places

    def _allocate(self) -> None:
        self._split_reshapes()
        self.zeros = 0
        shared = self._shared()
        users: dict[Any, list[int]] = {}  # the moments at which a thing is used: calls have each their own
        lines: dict[Any, list[int]] = {}  # and at which nodes
        moment, phase = 0, -1
        for index, node in enumerate(sorted(self.nodes, key=lambda node: node.phase)):
            moment += node.phase != phase or phase % 2 == 0
            phase = node.phase
            for thing in (*node.reads, *node.writes):
                place: Any = self.regions.get(thing) if isinstance(thing, Value) else shared.get(thing, thing)
                users.setdefault(place, []).append(moment)
                lines.setdefault(place, []).append(index)
        blocks = [thing for thing in users if isinstance(thing, Block)]
        regions = [thing for thing in users if isinstance(thing, Region)]
        start = self.machine.up(max((b.channels for b in blocks), default=0) + 64, 16)
        kept = [self.regions.get(v) for output in self.program.outputs for v in (output, *self.seen.get(output, []))]
        main, scratch = _Packing(start), _Packing(0)
        things: list[Any] = [*regions, *blocks]
        for thing in sorted(things, key=self._size, reverse=True):
            first, final = min(users[thing]), max(users[thing])
            if isinstance(thing, Region):
                thing.at = main.place(self._size(thing), first, moment + 1 if thing in kept else final)
            else:
                frame = (thing.size, thing.halo, thing.points) if any(thing.halo) else None
                if first == final:
                    thing.step = -1
                    thing.at = scratch.place(self._size(thing), min(lines[thing]), max(lines[thing]), frame)
                else:
                    thing.step = self._size(thing)
                    thing.at = main.place(thing.step * self.count, first, final, frame)
        self.work = scratch.end
        self.room = self.work + max(
            [64 * self.machine.LANES, *(self._work(node) for node in self.nodes if "winograd" in node.kind)]
        )
        for block in blocks:
            if block.step < 0:
                block.at += main.end
        self.work += main.end
        for alias, block in shared.items():
            alias.at, alias.step = block.at, block.step
        # a tile may read some rows past the end of a weight or of a block
        margin = 16 * max([64, *(r.size // r.shape[0] for r in regions), *map(self._plane, blocks)])
        threads = min(self.count, self.machine.PARTS)
        self.length = main.end + self.room * threads + margin
        scratch_frames = [(main.end + t * self.room + at, size) for t in range(threads) for at, size in scratch.frames]
        self.frames = [(self.zeros, start), *main.frames, *scratch_frames]

    def _shared(self) -> dict[Block, Block]:
        """Reshapes that move nothing: by their result the block that it is."""
        shared: dict[Block, Block] = {}
        for node in self.nodes:
            if node.kind == "reshape" and node.options["x"].halo == node.options["y"].halo == (0, 0):
                node.kind = "same"
                x = node.options["x"]
                shared[node.options["y"]] = shared.get(x, x)
        return shared

    def _size(self, thing: Block | Region) -> int:
        """Room of a block or a region, with the rows that tiles write past its end."""
        if isinstance(thing, Region):
            rows = self.machine.TILES[0][0] * thing.size // thing.shape[0] if thing in self._overshot else 0
            return self.machine.up(thing.size * max(thing.parts, 1) + rows, 16)
        multiple = self.machine.tile_for(thing.channels, single=thing.height * thing.width == 1)[1]
        planes = (thing.points - 1) * thing.channels + self.machine.up(thing.channels, multiple)
        return self.machine.up(planes * self._plane(thing), 16)

    def _split_reshapes(self) -> None:
        """A reshape between two blocks with halos goes through one without."""
        nodes = []
        for node in self.nodes:
            if (
                node.kind == "reshape"
                and self.lanes > 1
                and any(node.options["x"].halo)
                and any(node.options["y"].halo)
            ):
                x, y = node.options["x"], node.options["y"]
                middle = Block(*y.size)
                nodes.append(Node("reshape", [x], [middle], {"x": x, "y": middle, "via": None}, node.phase))
                node = Node("reshape", [middle], [y], {"x": middle, "y": y, "via": None}, node.phase)
            nodes.append(node)
        self.nodes = nodes

    def _plane(self, block: Block) -> int:
        return (block.height + 2 * block.halo[0]) * self._row(block)

    def _row(self, block: Block) -> int:
        return (block.width + 2 * block.halo[1]) * self.lanes

    def strip(self, x: Block, y: Block) -> int:
        """How many 2 x 2 outputs Winograd's convolution works on at a time: few enough for the cache."""
        return 12 if x.height * x.width > 16 and x.channels + y.channels <= 512 else 4

    def _work(self, node: Node) -> int:
        x, y = node.options["x"], node.options.get("y") or node.options["gy"]
        return 16 * self.lanes * self.strip(x, y) * (x.channels + y.channels + 2 * self.lanes)

    def _inside(self, block: Block) -> tuple[int, int]:
        """Operand of the first pixel of a block."""
        return block.at + block.halo[0] * self._row(block) + block.halo[1] * self.lanes, block.step

    def _strides(self, block: Block) -> tuple[int, int]:
        return self._plane(block), self._row(block)

    def _window(self, x: Block, window: Any, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Offsets of the taps and of the windows of ``size``, and the operand of the first tap."""
        moving = self.machine.Window(*window)
        plane, row = self._strides(x)
        at = x.at + (x.halo[0] - moving.padding[0]) * row + (x.halo[1] - moving.padding[1]) * self.lanes
        return moving.tap_offsets(x.channels, plane, row), moving.pixel_offsets(size, row), (at, x.step)
