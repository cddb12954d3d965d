"""The passes from a recorded program to a plan, each a function from data to data."""

import math
from typing import Any

from minicnn.backend import package
from minicnn.compile.allocate import allocate
from minicnn.compile.channels import channels
from minicnn.compile.constants import Store, constant_nodes
from minicnn.compile.device import DevicePlan
from minicnn.compile.encode import encode
from minicnn.compile.fuse import fold, fuse
from minicnn.compile.graph import Block, Graph, Region
from minicnn.compile.lower import lower
from minicnn.compile.plan import MachinePlan, Plan
from minicnn.compile.program import Program
from minicnn.compile.rules import interleaved
from minicnn.compile.schedule import rematerialise, schedule

_FEW = 16
"""Images up to which the lanes of a prediction may hold channels."""
_MORE = 1.25
"""By how much the multiply-adds of that layout take longer: each piece of weight is used for fewer pixels."""


def compiled(program: Program, store: Store) -> Plan:
    """Return the plan that replays a program; ``machine`` is :mod:`minicnn.backend.cpu.machine`."""
    if program.backend.name == "cupy":
        return DevicePlan(program)
    machine = package("numpy").machine
    graph = lowered(program, machine)
    graph = fold(graph, constant_nodes(graph, machine))
    graph = fuse(graph, machine, constant_nodes(graph, machine))
    graph, constants = store.take_out(graph, constant_nodes(graph, machine), machine)
    phases = rematerialise(schedule(graph, machine))
    phases, allocation = allocate(phases, graph, machine)
    return MachinePlan(encode(phases, allocation, graph, constants, machine))


def lowered(program: Program, machine: Any) -> Graph:
    """Lower in the layout for few images, where all products have a rule in it and take less time, or for many."""
    many = lower(program, machine, interleaved(machine.LANES))
    if program.batch > _FEW:
        return many
    few = lower(program, machine, channels(machine.LANES, program.batch))
    if any(node.kind == "call" and node.call and node.call.flop() for node in few.nodes):
        return many
    return few if 0 < _MORE * _multiply_adds(few) < _multiply_adds(many) else many


def _multiply_adds(graph: Graph) -> float:
    """Return the vectors of multiply-adds that one of two threads does, without those that kernels do."""
    shared, total = graph.layout.is_shared, 0
    y: Any
    for node in graph.nodes:
        weight, y = node.operands.get("weight"), node.operands.get("y")
        if isinstance(weight, Region):
            if isinstance(y, Block):
                pixels = math.prod(y.tiles(node.operands.get("edge", 1)))
            else:  # tiles, of an image or of a block
                pixels = node.operands["size"][2] if shared else y.shape[-1] // graph.layout.lanes
            total += weight.size * pixels
    return total * graph.program.batch / graph.layout.lanes / 2 if shared else total * -(-graph.count // 2)
