"""Lay out: order the nodes, and give everything its place in one memory."""

from typing import Any

import numpy as np

from minicnn.backend import get
from minicnn.compile.lower import Block, Node, Region
from minicnn.compile.record import Program
from minicnn.compile.rules import lower


class Layout:
    """The nodes of a program in phases, and a memory for their blocks and regions.

    Attributes:
        nodes: in recorded order, each with its phase.
        memory: float32: zeros for absent biases, regions, blocks that outlive a phase, scratch of every thread.
        room: floats of scratch a thread.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.machine = get("numpy").kernels.machine
        self.lanes = self.machine.LANES
        self.batch = program.inputs[0].shape[0]
        self.count = -(-self.batch // self.lanes)
        lowering = lower(program, self.machine, self.count)
        self.nodes = lowering.nodes
        self.regions = lowering.regions
        self.direct = lowering.images, lowering.labels
        self._schedule()
        self._allocate()

    # Order

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

    # Places

    def _allocate(self) -> None:
        self._split_reshapes()
        blocks: dict[Block, list[Node]] = {}
        regions: dict[Region, None] = {}
        for node in self.nodes:
            for thing in (*node.reads, *node.writes):
                if isinstance(thing, Block):
                    blocks.setdefault(thing, []).append(node)
                elif isinstance(thing, Region):
                    regions[thing] = None
        columns = max((int(np.prod(r.shape[1:])) for r in regions), default=0)
        self.zeros = 0
        at = self.machine.up(max([columns, *(b.channels for b in blocks)]) + 64, 16)
        spare = {
            n.options["region"]: self.machine.TILES[0][0] * n.options["region"].shape[1]
            for n in self.nodes
            if n.kind == "matrix"
        }
        for region in regions:
            region.at = at
            at = self.machine.up(at + region.size * max(region.parts, 1) + spare.get(region, 0), 16)
        at += 16 * max(columns, 1)  # a tile may read, and the last matrix write, some rows past the end
        for node in self.nodes:
            if node.kind == "reshape" and node.options["x"].halo == node.options["y"].halo == (0, 0):
                node.kind = "same"
        shared = {n.options["y"]: n.options["x"] for n in self.nodes if n.kind == "same"}
        for alias, block in shared.items():
            while block in shared:
                block = shared[block]
            shared[alias] = block
            blocks[block] += blocks.pop(alias)
        scratch = 0
        for block, nodes in blocks.items():
            size = self._room(block)
            if len({node.phase for node in nodes}) == 1:
                block.step, block.at = -1, scratch
                scratch += self.machine.up(size, 16)
            else:
                block.step, block.at = self.machine.up(size, 16), at
                at += block.step * self.count
        self.work = scratch
        scratch += max([64 * self.lanes, *(self._work(node) for node in self.nodes if "winograd" in node.kind)])
        for block in blocks:
            if block.step < 0:
                block.at += at
        self.work += at
        for alias, block in shared.items():
            alias.at, alias.step = block.at, block.step
        self.room = scratch
        planes = max((self._plane(b) for b in blocks), default=0)
        memory = np.zeros(at + scratch * min(self.count, self.machine.PARTS) + 8 * planes + 16, dtype=np.float32)
        self.memory = memory[-memory.ctypes.data % 64 // 4 :]

    def _split_reshapes(self) -> None:
        """A reshape between two blocks with halos goes through one without."""
        nodes = []
        for node in self.nodes:
            if node.kind == "reshape" and any(node.options["x"].halo) and any(node.options["y"].halo):
                x, y = node.options["x"], node.options["y"]
                middle = Block(*y.size)
                nodes.append(Node("reshape", [x], [middle], {"x": x, "y": middle}, node.phase))
                node = Node("reshape", [middle], [y], {"x": middle, "y": y}, node.phase)
            nodes.append(node)
        self.nodes = nodes

    def _plane(self, block: Block) -> int:
        return (block.height + 2 * block.halo[0]) * self._row(block)

    def _row(self, block: Block) -> int:
        return (block.width + 2 * block.halo[1]) * self.lanes

    def _room(self, block: Block) -> int:
        """Elements of a block, with room for the rows of the tiles that its last channels do not fill."""
        multiple = self.machine.tile_for(block.channels, single=block.height * block.width == 1)[1]
        return self.machine.up(block.channels, multiple) * self._plane(block)

    def strip(self, x: Block, y: Block) -> int:
        """How many 2 x 2 outputs Winograd's convolution works on at a time: few enough for the cache."""
        return 12 if x.height * x.width > 16 and x.channels + y.channels <= 512 else 4

    def _work(self, node: Node) -> int:
        x, y = node.options["x"], node.options.get("y") or node.options["gy"]
        return 16 * self.lanes * self.strip(x, y) * (x.channels + y.channels + 2 * self.lanes)

    def _view(self, region: Region) -> np.ndarray:
        shape = (region.parts, *region.shape) if region.parts else region.shape
        return self.memory[region.at : region.at + region.size * max(region.parts, 1)].reshape(shape)

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
